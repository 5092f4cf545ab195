"""Zero points: codes of numpy, zero exact, what they are worth, scales that follow, bytes."""

import numpy as np
import pytest
import torch
from torch import nn

from skqfair import FairQATClassifier, QuantizedClassifier
from skqfair.networks import make_classifier
from skqfair.quantization import (
    FakeQuantization,
    QuantizationScheme,
    convert,
    observe_activations,
    quantized_size,
)

SHAPES = {
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "leaky": lambda x: nn.functional.leaky_relu(x, 0.1),
    "elu": nn.functional.elu,
    "shifted": lambda x: x + 1,
    "negative": lambda x: -x.abs() - 0.1,
}


def values(kind, n=4000):
    return SHAPES[kind](torch.randn(n, generator=torch.Generator().manual_seed(0)))


def hook_for(data, bits, calibration="minmax", scheme="affine"):
    layer = nn.Linear(data.shape[-1], 2)
    with observe_activations(layer) as statistics:
        layer(data)
    options = {"activation_calibration": calibration, "activation_scheme": scheme}
    return convert(layer, QuantizationScheme(None, bits, **options), statistics).activations[""]


def reference(data, low, high, bits):
    """Numpy: unsigned codes with a zero point, and back."""
    data, low, high = data.numpy(), min(low, 0), max(high, 0)
    scale = np.float32((high - low) / (2**bits - 1))
    zero = int(np.rint(-low / ((high - low) / (2**bits - 1))))
    codes = np.clip(np.rint(data / scale) + zero, 0, 2**bits - 1)
    return (codes - zero) * scale, zero


@pytest.mark.parametrize("bits", [2, 4, 8, 12])
@pytest.mark.parametrize("kind", SHAPES)
def test_codes_of_numpy(kind, bits):
    data = values(kind)
    hook = hook_for(data.reshape(-1, 4), bits)
    expected, zero = reference(data, float(data.min()), float(data.max()), bits)
    assert hook.zero_point == zero
    np.testing.assert_allclose(hook.quantize(data), expected, rtol=1e-6, atol=1e-7)
    assert not hook.quantize(torch.zeros(3)).any()
    assert f"zero_point={zero}" in repr(hook)


def test_percentiles_of_both_ends():
    data = values("leaky", 50_000)
    hook = hook_for(data.reshape(-1, 4), 4, "percentile")
    low, high = np.percentile(data.numpy(), [0.01, 99.99])
    expected, zero = reference(data, low, high, 4)
    assert hook.zero_point == zero
    np.testing.assert_allclose(hook.quantize(data), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("kind", SHAPES)
def test_least_error_against_a_full_grid(kind, bits):
    """Both ends on a grid at once; ours goes end by end."""
    data = values(kind)
    shares = np.linspace(0.02, 1, 50)
    errors = [
        np.mean(
            (reference(data, a * float(data.min()), b * float(data.max()), bits)[0] - data.numpy()) ** 2
        )
        for a in shares
        for b in shares
    ]
    found = float((hook_for(data.reshape(-1, 4), bits, "mse").quantize(data) - data).square().mean())
    assert found < 1.1 * min(errors)


@pytest.mark.parametrize("kind", ["silu", "gelu", "leaky", "elu"])
def test_worth_some_decibels_at_four_bits(kind):
    data = values(kind).reshape(-1, 4)
    noise = {
        scheme: float((hook_for(data, 4, "mse", scheme).quantize(data) - data).square().mean())
        for scheme in ("symmetric", "affine")
    }
    gain = 10 * np.log10(noise["symmetric"] / noise["affine"])
    assert gain > 2, gain


def test_nothing_negative_is_as_before():
    data = values("silu").abs().reshape(-1, 4)
    hooks = [hook_for(data, 4, "mse", scheme) for scheme in ("symmetric", "affine")]
    assert hooks[1].zero_point is None
    assert torch.equal(hooks[0].quantize(data), hooks[1].quantize(data))


@pytest.mark.parametrize("calibration", ["minmax", "mse"])
def test_scales_follow_and_zero_points_stay(calibration):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 2))
    X = torch.randn(300, 4)

    def observe():
        with observe_activations(module) as statistics:
            module(X)
        return statistics

    options = {"activation_calibration": calibration, "activation_scheme": "affine"}
    fake = FakeQuantization(
        module, QuantizationScheme(8, 4, **options), observe=observe, statistics=observe()
    )
    hook = fake.inputs["2"]
    before, zero = hook.scale.clone(), hook.zero_point
    with torch.no_grad():
        module[0].weight.mul_(3)
    fake._stale = True
    fake.rescale()
    assert hook.zero_point == zero > 0
    assert hook.scale > 1.5 * before
    assert fake.finish().activations["2"].zero_point == zero


def test_a_zero_point_is_a_byte():
    module, X = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 2)), torch.randn(99, 4)
    with observe_activations(module) as statistics:
        module(X)
    sizes = {
        (scheme, bits): quantized_size(
            convert(module, QuantizationScheme(8, bits, activation_scheme=scheme), statistics)
        )
        for scheme in ("symmetric", "affine")
        for bits in (8, 9)
    }
    assert sizes["affine", 8] == sizes["symmetric", 8] + 2
    assert sizes["affine", 9] == sizes["symmetric", 9] + 4


@pytest.mark.parametrize("kind", [QuantizedClassifier, FairQATClassifier])
def test_in_the_estimators(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 6)).astype(np.float32)
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    net = make_classifier(nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 2)), max_epochs=3)
    accuracy = {}
    for scheme in ("symmetric", "affine"):
        clf = kind(net, activation_bits=3, activation_scheme=scheme, random_state=0).fit(X, y)
        found = [h.zero_point for m in clf.module_.modules() for h in m._forward_pre_hooks.values()]
        assert all(z is None for z in found) == (scheme == "symmetric")
        noise = clf.decision_function(X) - clf.float_classifier_.decision_function(X)
        accuracy[scheme] = np.mean(noise**2)
    if kind is QuantizedClassifier:
        assert accuracy["affine"] < accuracy["symmetric"]
    with pytest.raises(ValueError, match="activation_scheme"):
        kind(net, activation_scheme="odd").fit(X, y)
