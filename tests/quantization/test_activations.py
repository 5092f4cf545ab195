import numpy as np
import pytest
import torch
from module_zoo import ZOO, build
from reference import numpy_clip
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from skqfair.quantization import QuantizationScheme, convert, observe_activations


def reference_quantizer(values, bits, calibration):
    """Numpy: quantize values with ranges from the same values."""
    values = np.asarray(values, np.float32)
    low, high = (-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1) if values.min() < 0 else (0, 2**bits - 1)
    clip = numpy_clip(values, calibration, high)
    scale = np.float32(clip / np.float32(high)) if clip > 0 else np.float32(1)
    return np.clip(np.rint(values / scale), low, high) * scale


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("shift", [0.0, 5.0], ids=["signed", "unsigned"])
def test_inputs_are_quantized_as_in_numpy(bits, calibration, shift):
    layer = nn.Linear(40, 3)
    data = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) + shift
    data = data.abs() if shift else data
    with observe_activations(layer) as statistics:
        layer(data)
    quantized = convert(layer, QuantizationScheme(None, bits, calibration=calibration), statistics)
    expected = torch.as_tensor(reference_quantizer(data, bits, calibration))
    with torch.no_grad():
        torch.testing.assert_close(quantized.module(data), layer(expected), rtol=1e-4, atol=1e-4)
    hook = quantized.activations[""]
    assert hook.signed == (not shift)
    torch.testing.assert_close(hook.quantize(data), expected, rtol=1e-5, atol=1e-6)


def test_later_negatives_clip_where_calibration_saw_none():
    layer = nn.Linear(2, 2)
    with observe_activations(layer) as statistics:
        layer(torch.tensor([[0.0, 1.0]]))
    hook = convert(layer, QuantizationScheme(8, 8), statistics).activations[""]
    assert hook.quantize(torch.tensor([-3.0, 0.5, 9.0])).tolist() == pytest.approx([0, 0.5, 1], abs=3e-3)


def test_one_pass_serves_all_widths_and_calibrations():
    layer, data = nn.Linear(4, 2), torch.randn(30, 4)
    with observe_activations(layer) as statistics:
        for batch in data.split(7):
            layer(batch)
    scales = {
        (bits, calibration): float(
            convert(layer, QuantizationScheme(8, bits, calibration=calibration), statistics)
            .activations[""]
            .scale
        )
        for bits in range(2, 17)
        for calibration in ("minmax", "percentile", "mse")
    }
    for (bits, calibration), scale in scales.items():
        q = 2 ** (bits - 1) - 1
        assert scale == pytest.approx(numpy_clip(data, calibration, q) / q, rel=1e-5)


def test_one_range_over_all_calls_of_a_shared_module():
    module, data = build("shared")
    with observe_activations(module) as statistics:
        module(data * 100)
    assert set(statistics) == {"layer", "tied"}
    assert statistics["layer"].high == float((data * 100).max())


@pytest.mark.parametrize("name", ZOO)
def test_inputs_of_linear_convolutional_and_recurrent_layers(name):
    module, data = build(name)
    with observe_activations(module) as statistics:
        module(data)
    assert not any(child._forward_pre_hooks for child in module.modules())
    kinds = {
        type(dict(module.named_modules())[key]).__name__.removeprefix("Parametrized")
        for key in statistics
    }
    assert kinds <= {"Linear", "GRU", "LSTM", "RNN", "GRUCell"} | {
        f"Conv{t}{d}d" for t in ("", "Transpose") for d in (1, 2, 3)
    }
    assert not any("out_proj" in key for key in statistics)  # attention's insides stay float
    quantized = convert(module, QuantizationScheme(8, 8), statistics)
    with torch.no_grad():
        assert (quantized.module(data) - module(data)).abs().max() < 0.5


def test_packed_sequences_and_keyword_inputs():
    rnn = nn.LSTM(3, 4)
    packed = pack_sequence([torch.randn(5, 3), torch.randn(2, 3)])
    with observe_activations(rnn) as statistics:
        rnn(packed)
    assert statistics[""].high == float(packed.data.max())
    layer = nn.Linear(3, 2)
    with observe_activations(layer) as statistics:
        layer(input=torch.ones(1, 3))
    quantized = convert(layer, QuantizationScheme(8, 2), statistics).module
    assert torch.equal(quantized(input=torch.full((1, 3), 0.9)), quantized(input=torch.ones(1, 3)))


def test_large_inputs_are_sampled_but_extremes_are_exact():
    layer = nn.Linear(1, 1)
    values = torch.randn(300_000, 1)
    values[123] = 50.0
    with observe_activations(layer) as statistics:
        layer(values)
    assert statistics[""].high == 50.0
    assert sum(map(len, statistics[""]._values)) == 2**16
