import copy
import pickle

import numpy as np
import pytest
import torch
from module_zoo import ZOO, build
from reference import numpy_codes
from torch import nn

from skqfair.quantization import (
    QuantizationScheme,
    convert,
    float_size,
    observe_activations,
    plain_copy,
    quantized_size,
)


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("name", ZOO)
def test_module_computes_with_the_codes(name, granularity):
    """At every width."""
    module, data = build(name)
    state = copy.deepcopy(module.state_dict())
    plain = dict(plain_copy(module).named_parameters())
    for bits in range(2, 17):
        quantized = convert(module, QuantizationScheme(bits, granularity=granularity))
        found = dict(quantized.module.named_parameters())
        for key, weight in quantized.weights.items():
            scale, case = weight.scale.numpy(), f"{key} at {bits} bits"
            codes = numpy_codes(plain[key].detach(), scale, bits)
            np.testing.assert_array_equal(weight.codes.numpy(), codes, case)
            dequantized = codes.astype(np.float32) * scale
            np.testing.assert_array_equal(found[key].detach().numpy(), dequantized, case)
        # an independent forward: the float module with those weights put in
        reference = plain_copy(module)
        with torch.no_grad():
            for key, weight in quantized.weights.items():
                dict(reference.named_parameters())[key].copy_(weight.dequantize())
            assert torch.equal(quantized.module(data), reference(data)), bits
    for key, value in module.state_dict().items():
        assert torch.equal(value, state[key])  # the user's module is as it was


@pytest.mark.parametrize("name", ZOO)
def test_float_scheme_changes_nothing(name):
    module, data = build(name)
    quantized = convert(module, QuantizationScheme(None))
    with torch.no_grad():
        torch.testing.assert_close(quantized.module(data), module(data), rtol=0, atol=1e-6)
    assert quantized.weights == {}
    assert quantized_size(quantized) == float_size(quantized.module)


@pytest.mark.parametrize("name", ZOO)
def test_quantized_modules_pickle_and_copy(name):
    module, data = build(name)
    with observe_activations(module) as statistics:
        module(data)
    quantized = convert(module, QuantizationScheme(4, 8), statistics)
    with torch.no_grad():
        expected = quantized.module(data)
        for other in (pickle.loads(pickle.dumps(quantized)), copy.deepcopy(quantized)):
            assert torch.equal(other.module(data), expected)


def test_tied_weights_stay_tied():
    quantized = convert(build("shared")[0], QuantizationScheme(4)).module
    assert quantized.layer.weight is quantized.tied.weight


def test_size_by_hand():
    module = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3, bias=False))
    scheme = QuantizationScheme(3, layer_bits={"2": 8})
    left = 7 + 4 * 7  # bias; scale, shift, mean and variance of BatchNorm
    assert float_size(module) == 4 * (35 + 21 + left)
    packed = (-(-35 * 3 // 8) + 4 * 7) + (21 + 4 * 3)
    assert quantized_size(convert(module, scheme)) == packed + 4 * left
    per_tensor = QuantizationScheme(3, layer_bits={"2": 8}, granularity="per_tensor")
    assert quantized_size(convert(module, per_tensor)) == (14 + 4) + (21 + 4) + 4 * left


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("name", ["conv2d", "lstm", "shared", "attention"])
def test_size_is_that_of_the_bytes(name, bits, tmp_path):
    module, data = build(name)
    with observe_activations(module) as statistics:
        module(data)
    quantized = convert(module, QuantizationScheme(bits, 8), statistics)
    with (tmp_path / "model").open("wb") as file:
        for weight in quantized.weights.values():
            file.write(weight.pack().tobytes() + weight.scale.numpy().tobytes())
        left = [*quantized.module.named_parameters(), *quantized.module.named_buffers()]
        for key, value in left:
            if key not in quantized.weights and "num_batches" not in key:
                file.write(value.detach().numpy().astype(np.float32).tobytes())
        for hook in quantized.activations.values():
            file.write(hook.scale.numpy().tobytes())
    assert quantized_size(quantized) == (tmp_path / "model").stat().st_size


def test_activation_bits_need_statistics():
    with pytest.raises(ValueError, match="statistics must be given"):
        convert(nn.Linear(2, 2), QuantizationScheme(8, 8))


def test_old_style_weight_norm_is_quantized_too():
    with pytest.warns(FutureWarning):
        module = nn.Sequential(nn.utils.weight_norm(nn.Linear(5, 4)), nn.Linear(4, 2))
    quantized = convert(module, QuantizationScheme(2))
    assert set(quantized.layer_bits) == {"0.weight", "1.weight"}
    assert all(len(row.unique()) <= 3 for row in quantized.module[0].weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_rounded_in_float32(dtype):
    """At 16 bits nothing moves by more than half itself does; codes never leave their range."""
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    data = torch.randn(50, 6).to(dtype)
    with observe_activations(module) as statistics:
        module(data)
    for bits in (10, 13, 16):
        quantized = convert(module, QuantizationScheme(bits, activation_bits=16), statistics)
        for name, weight in quantized.weights.items():
            plain = module.get_parameter(name).detach()
            codes = numpy_codes(plain.float(), weight.scale.numpy(), bits)
            np.testing.assert_array_equal(weight.codes.numpy(), codes)
            found = quantized.module.get_parameter(name).detach()
            assert found.dtype == dtype
            assert torch.equal(found, weight.dequantize().to(dtype))
    hook = quantized.activations["0"]
    rounded = hook.quantize(data)
    assert rounded.dtype == dtype
    error = (rounded.double() - data.double()).abs()
    assert (error <= float(hook.scale) / 2 + data.double().abs() * torch.finfo(dtype).eps).all()


class WithTables(nn.Module):
    """Holds a table that it makes anew when it is loaded, one that it stores, and complex numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.register_buffer("made", torch.ones(1000), persistent=False)
        self.register_buffer("kept", torch.ones(10))
        self.phase = nn.Parameter(torch.ones(3, dtype=torch.complex64))


def test_the_size_counts_what_is_stored():
    module = nn.Sequential(WithTables(), nn.BatchNorm1d(2))
    stored = {k: v for k, v in module.state_dict().items() if "num_batches" not in k}
    numbers = sum(v.numel() * (v.element_size() // 4) for v in stored.values())
    assert float_size(module) == 4 * numbers == 4 * (10 + 10 + 6 + 8)
    quantized = convert(module, QuantizationScheme(8))
    assert quantized_size(quantized) == 4 * (numbers - 8) + 8 + 4 * 2


def test_layers_under_torchs_pruning_are_quantized():
    from torch.nn.utils import prune

    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    prune.l1_unstructured(module[0], "weight", amount=0.5)
    prune.random_unstructured(module[0], "bias", amount=0.5)
    prune.ln_structured(module[2], "weight", amount=1, n=2, dim=0)
    prune.l1_unstructured(module[2], "weight", amount=0.2)  # two masks in one hook
    before = {name: value.clone() for name, value in module.state_dict().items()}
    plain, data = plain_copy(module), torch.randn(5, 6)
    assert torch.equal(plain(data), module(data))
    quantized = convert(module, QuantizationScheme(4))
    assert list(quantized.layer_bits) == ["0.weight", "2.weight"]
    assert set(quantized.module.state_dict()) == {"0.bias", "0.weight", "2.bias", "2.weight"}
    for name, weight in quantized.weights.items():
        masked = module[int(name[0])].weight.detach()
        np.testing.assert_array_equal(weight.codes, numpy_codes(masked, weight.scale.numpy(), 4))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert prune.is_pruned(module)
