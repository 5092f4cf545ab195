"""Scales of groups of columns against loops over channels and groups."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import numpy_clip, numpy_codes, rows_of
from torch import nn

from skqfair.quantization import (
    FakeQuantization,
    QuantizationScheme,
    QuantizedTensor,
    compensate_rounding,
    convert,
    quantize,
    quantized_size,
)


def groups_of(row, size):
    return [row[start : start + size] for start in range(0, len(row), size)]


def numpy_scales(weight, bits, calibration, axis, size):
    """The scale of each (channel, group), by the definition; ``bits`` is one number for each channel."""
    scales = []
    for row, b in zip(rows_of(weight, axis), bits, strict=True):
        q = np.float32(2 ** (b - 1) - 1)
        clips = [numpy_clip(group, calibration, q) for group in groups_of(row, size)]
        scales.append([clip / q if clip > 0 else np.float32(1) for clip in clips])
    return np.array(scales, np.float32)


def repeated(scales, size, axis, shape):
    """The scale of each weight, one at a time."""
    of_each = np.empty(shape, np.float32)
    for place in np.ndindex(*shape):
        of_each[place] = scales[place[axis], place[1 - axis] // size]
    return of_each


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("size", [5, 30, 32, 10**12])
@pytest.mark.parametrize("axis", [0, -1])
def test_scales_and_codes_are_those_of_a_loop(calibration, bits, size, axis):
    weight = np.random.default_rng(size).standard_t(4, (6, 64)).astype(np.float32)
    weight[1, :35] = 0
    weight = weight if axis == 0 else weight.T.copy()
    codes, scale = quantize(
        weight, bits, granularity=("per_group", size), calibration=calibration, axis=axis
    )
    scales = numpy_scales(weight, [bits] * 6, calibration, axis % 2, size)
    np.testing.assert_allclose(scale.numpy(), repeated(scales, size, axis % 2, weight.shape), rtol=2e-6)
    np.testing.assert_array_equal(codes.numpy(), numpy_codes(weight, scale.numpy(), bits))


@settings(max_examples=100)
@given(
    weight=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.floats(-100, 100, width=32, allow_subnormal=False),
    ),
    bits=st.integers(2, 16),
    size=st.integers(2, 10),
    axis=st.integers(0, 1),
)
def test_minmax_of_any_matrix(weight, bits, size, axis):
    codes, scale = quantize(
        weight, bits, granularity=("per_group", size), calibration="minmax", axis=axis
    )
    channels = weight.shape[axis]
    scales = numpy_scales(weight, [bits] * channels, "minmax", axis, size)
    np.testing.assert_array_equal(scale.numpy(), repeated(scales, size, axis, weight.shape))
    np.testing.assert_array_equal(codes.numpy(), numpy_codes(weight, scale.numpy(), bits))


def test_an_outlier_spoils_its_own_group_alone():
    weight = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    spoiled = weight.clone()
    spoiled[1, 20] = 1000.0
    for calibration in ("minmax", "percentile", "mse"):
        options = {"granularity": ("per_group", 16), "calibration": calibration}
        (before, _), (after, _) = quantize(weight, 4, **options), quantize(spoiled, 4, **options)
        changed = (before != after).nonzero()
        assert (changed[:, 0] == 1).all()
        assert (changed[:, 1] >= 16).all()


@pytest.mark.parametrize("bits", [2, 5, 13, np.array([2, 8, 4, 3, 16])])
@pytest.mark.parametrize("axis", [0, 1])
def test_claimed_bytes_are_those_of_codes_and_scales(bits, axis):
    weight = torch.randn(5, 37, generator=torch.Generator().manual_seed(1)).movedim(0, axis)
    quantized = QuantizedTensor.from_float(
        weight, bits, per_channel=True, calibration="mse", axis=axis, group_size=16
    )
    assert quantized.scale.shape == ((5, 3) if axis == 0 else (3, 5))
    assert quantized.nbytes == len(quantized.pack()) + quantized.scale.numpy().nbytes
    widths = np.broadcast_to(bits, 5)
    scales = numpy_scales(weight.numpy(), widths, "mse", axis, 16)
    np.testing.assert_allclose(quantized.scale.movedim(axis, 0).numpy(), scales, rtol=2e-6)
    limits = np.expand_dims(widths, 1 - axis)
    of_each = repeated(quantized.scale.movedim(axis, 0).numpy(), 16, axis, weight.shape)
    codes = numpy_codes(weight.numpy(), of_each, limits)
    np.testing.assert_array_equal(quantized.codes.numpy(), codes)
    np.testing.assert_array_equal(quantized.dequantize().numpy(), codes.astype(np.float32) * of_each)


class Mixed(nn.Module):
    """A module of each kind, and a matrix of its own with the channels along its second axis."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 20)
        self.attention = nn.MultiheadAttention(20, 2, batch_first=True)
        self.own = nn.Parameter(torch.randn(20, 9))
        self.recurrent = nn.LSTM(9, 20, batch_first=True)
        self.convolution = nn.Conv1d(20, 24, 1)
        self.narrow = nn.Linear(8, 4)
        self.wide = nn.Linear(24, 8)

    def forward(self, X):
        hidden = self.embedding(X)
        hidden = self.attention(hidden, hidden, hidden, need_weights=False)[0] @ self.own
        hidden = self.recurrent(hidden)[0].transpose(1, 2)
        return self.narrow(self.wide(self.convolution(hidden).mean(2)))


def test_which_weights_have_groups():
    torch.manual_seed(0)
    module, X = Mixed().eval(), torch.randint(0, 7, (30, 5))
    scheme = QuantizationScheme(4, granularity=("per_group", 8), quantize_parameters={"own": 1})
    quantized = convert(module, scheme)
    shapes = {name: tuple(weight.scale.shape) for name, weight in quantized.weights.items()}
    assert shapes == {
        "own": (3, 9),
        "embedding.weight": (7, 1),
        "attention.in_proj_weight": (60, 3),
        "attention.out_proj.weight": (20, 3),
        "recurrent.weight_ih_l0": (80, 1),
        "recurrent.weight_hh_l0": (80, 1),
        "convolution.weight": (24, 1, 1),
        "narrow.weight": (4, 1),  # has no more columns than a group
        "wide.weight": (8, 3),
    }
    scales = sum(int(np.prod(shape)) for shape in shapes.values())
    packed = sum(-(-weight.codes.numel() // 2) for weight in quantized.weights.values())
    floats = sum(p.numel() for name, p in module.named_parameters() if name not in shapes)
    assert quantized_size(quantized) == packed + 4 * (scales + floats)

    for name, weight in quantized.weights.items():
        axis = 1 if name == "own" else 0
        kind = "per_channel" if weight.group_size is None else ("per_group", 8)
        codes, scale = quantize(module.get_parameter(name), 4, granularity=kind, axis=axis)
        assert torch.equal(weight.codes, codes)
        assert torch.equal(quantized.module.get_parameter(name), codes * scale)
    before = quantized.module(X)
    for rounding in ("gptq", "least_squares"):
        with pytest.warns(UserWarning, match="rounded to nearest.*: own"):
            rounded = compensate_rounding(
                convert(module, scheme), module, lambda m: m(X), rounding=rounding
            )
        assert not torch.equal(rounded.module(X), before)
        for name, weight in rounded.weights.items():  # on the scales that the float weights gave
            assert torch.equal(weight.scale, quantized.weights[name].scale)
            assert int(weight.codes.abs().max()) <= 7


def test_a_tied_weight_has_the_groups_of_its_product():
    module = nn.Sequential(nn.Embedding(6, 16), nn.Linear(16, 6, bias=False))
    module[1].weight = module[0].weight
    quantized = convert(module, QuantizationScheme(4, granularity=("per_group", 8)))
    assert quantized.weights["0.weight"].scale.shape == (6, 2)


@pytest.mark.parametrize("rounding", ["gptq", "least_squares"])
@pytest.mark.parametrize("bits", [2, 3])
def test_rounding_by_outputs_loses_less_than_nearest(rounding, bits):
    torch.manual_seed(0)
    net, X = nn.Linear(50, 20).eval(), torch.randn(400, 12) @ torch.randn(12, 50)
    nearest = convert(net, QuantizationScheme(bits, granularity=("per_group", 16)))

    def error():
        return float((nearest.module(X) - net(X)).detach().square().mean())

    before = error()
    compensate_rounding(nearest, net, lambda module: module(X), rounding=rounding)
    assert error() < before / 2


def test_learned_scales_start_and_end_in_their_groups():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(10, 3, bias=False))
    weight = module[0].weight.detach().numpy().copy()
    scheme = QuantizationScheme(3, granularity=("per_group", 4))
    fake = FakeQuantization(module, scheme, learned=True)
    start = [[2 * np.abs(g).mean() / np.sqrt(3) for g in groups_of(row, 4)] for row in weight]
    np.testing.assert_allclose(fake.weights["0.weight"].scale.detach(), start, rtol=1e-6)
    for _ in range(3):
        module.zero_grad()
        with fake.applied(training=True):
            module(torch.randn(20, 10)).square().mean().backward()
        for parameter in module.parameters():
            parameter.data -= 0.5 * parameter.grad
    finished = fake.finish()
    scale = finished.weights["0.weight"].scale
    assert scale.shape == (3, 3)
    assert (scale.numpy() != np.float32(start)).all()
    of_each = repeated(scale.numpy(), 4, 0, (3, 10))
    codes = numpy_codes(module[0].weight.detach().numpy(), of_each, 3)
    np.testing.assert_array_equal(finished.module[0].weight.detach(), codes * of_each)


class Turned(nn.Module):
    """A linear layer whose weight has its channels along the second axis."""

    def __init__(self, linear):
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().T.contiguous())

    def forward(self, X):
        return X @ self.weight


def test_learned_scales_of_either_layout():
    torch.manual_seed(0)
    linear, X = nn.Linear(10, 3, bias=False).double(), torch.randn(20, 10).double()
    found = []
    for module, more in ((Turned(linear), {"weight": 1}), (linear, None)):
        scheme = QuantizationScheme(3, granularity=("per_group", 4), quantize_parameters=more)
        fake = FakeQuantization(module, scheme, learned=True)
        with fake.applied(training=True):
            module(X).square().mean().backward()
        shape = fake.weights["weight"].scale.shape
        scale, gradient = (t.detach().view(shape) for t in (fake.scales, fake.scales.grad))
        found.append((scale, gradient, module.weight.grad, fake.finish().weights["weight"].codes))
    for turned, straight in zip(*found, strict=True):
        torch.testing.assert_close(turned.T, straight)
        assert (straight != 0).any()


@pytest.mark.parametrize("size", [0, 1, -8, 2.0, True, "32", None])
def test_bad_sizes(size):
    for make in (
        lambda granularity: quantize(torch.ones(2, 4), 4, granularity=granularity),
        lambda granularity: QuantizationScheme(4, granularity=granularity),
    ):
        with pytest.raises(ValueError, match=r"granularity must be .*\('per_group', n\).*2 or more"):
            make(("per_group", size))


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4)])
def test_groups_are_for_matrices(shape):
    with pytest.raises(ValueError, match=rf"tensor has {len(shape)} dimensions: use 'per_ch"):
        quantize(torch.ones(shape), 4, granularity=("per_group", 2))


def test_a_module_without_matrices_is_refused():
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())
    with pytest.raises(ValueError, match=r"Sequential has no weight whose columns.*'per_channel'"):
        convert(module, QuantizationScheme(4, granularity=("per_group", 16)))


def test_bits_for_each_channel_need_channels():
    with pytest.raises(ValueError, match=r"needs granularity='per_channel' or \('per_group', n\)"):
        QuantizationScheme(4, layer_bits={"0": [2, 4]}, granularity="per_tensor")
