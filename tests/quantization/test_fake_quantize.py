"""The gradients of fake quantization against autograd on the formulas of the docstrings."""

import copy

import numpy as np
import pytest
import torch
from module_zoo import ZOO, build
from torch import nn

from skqfair.quantization import (
    FakeQuantization,
    QuantizationScheme,
    convert,
    observe_activations,
    plain_copy,
    quantizable_weights,
)


def straight_through(weight, scale, limit, learned):
    """The estimator, spelled out by detach; its own path from scratch to the gradients."""
    ratio = weight / scale
    inside = ratio.abs() <= limit + 0.5
    codes = ratio.detach().round().clamp(-limit, limit)
    passed = torch.where(inside, weight, weight.detach())
    value = passed + (codes * scale - weight).detach()
    if not learned:
        return value
    slope = torch.where(ratio.abs() <= limit, codes - ratio, ratio.sign() * limit).detach()
    return value + slope * (scale - scale.detach())


def scale_gradients(fake):
    """The gradient of each learned scale, weights first, in the shapes of the scales."""
    quantized = [*fake.weights.values(), *fake.inputs.values()]
    parts = fake.learned_scales[0].grad.split([q.scale.numel() for q in quantized])
    return [part.view_as(q.scale) for part, q in zip(parts, quantized, strict=True)]


def stepped(module, fake, X):
    with fake.applied(training=True):
        loss = module(X).square().mean()
        loss.backward()
    return loss


@pytest.mark.parametrize("bits", [2, 3, 8, [2, 4, 8, 2, 3]])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor", ("per_group", 4)])
def test_gradients_of_weights_and_scales(bits, learned, granularity):
    if isinstance(bits, list) and granularity == "per_tensor":
        pytest.skip("one scale for all channels has one width")
    torch.manual_seed(0)
    module, X = nn.Sequential(nn.Linear(6, 5, bias=False)).double(), torch.randn(20, 6).double()
    module[0].weight.data[0, 0] = 5.0  # far beyond the others: clipped
    scheme = QuantizationScheme(8, layer_bits={"0": bits}, granularity=granularity)
    fake = FakeQuantization(module, scheme, learned=learned)
    loss = stepped(module, fake, X)

    weight = module[0].weight.detach().clone().requires_grad_()
    scale = fake.weights["0.weight"].scale.detach().clone().requires_grad_()
    limit = torch.tensor(2.0) ** (torch.tensor(bits, dtype=torch.double) - 1) - 1
    limit = limit[:, None] if isinstance(bits, list) else limit
    columns = [0, 0, 0, 0, 1, 1] if scale.shape == (5, 2) else slice(None)  # the last group has two
    of_each = scale if scale.ndim == 0 else scale[:, columns]
    expected = (X @ straight_through(weight, of_each, limit, learned).T).square().mean()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(module[0].weight.grad, weight.grad)
    if learned:
        n = torch.tensor([4.0, 2.0]) if scale.shape == (5, 2) else weight.numel() / scale.numel()
        (found,) = scale_gradients(fake)
        torch.testing.assert_close(found, scale.grad / torch.sqrt(n * limit))
        assert (found != 0).all()
    else:
        assert not fake.learned_scales


@pytest.mark.parametrize("signed", [True, False, "affine"])
@pytest.mark.parametrize("learned", [True, False])
def test_gradients_through_inputs(signed, learned):
    torch.manual_seed(0)
    first = nn.Linear(6, 5).double()
    between = {True: nn.Identity(), False: nn.ReLU(), "affine": nn.LeakyReLU(0.2)}
    module = nn.Sequential(first, between[signed], nn.Linear(5, 3).double())
    X = torch.randn(50, 6).double()
    kind = {"activation_scheme": "affine"} if signed == "affine" else {}
    scheme = QuantizationScheme(None, activation_bits=3, calibration="percentile", **kind)
    with observe_activations(module) as statistics:
        module(X)
    if not learned:
        statistics["2"].high /= 2  # so that something clips
        statistics["2"].low /= 2
        statistics["2"]._values = [v / 2 for v in statistics["2"]._values]
        scheme = QuantizationScheme(None, activation_bits=3, calibration="minmax", **kind)
    fake = FakeQuantization(module, scheme, learned=learned, statistics=statistics)
    assert fake.inputs["2"].signed == bool(signed)
    assert bool(fake.inputs["2"].zero_point) == (signed == "affine")
    loss = stepped(module, fake, X)

    scales = [hook.scale.detach().clone().requires_grad_() for hook in fake.inputs.values()]

    def quantized(values, scale, hook):
        ratio = values / scale
        inside = (ratio <= hook.high + 0.5) & (ratio >= hook.low - 0.5)
        inside &= (values >= 0) | bool(signed)
        codes = ratio.detach().round().clamp(hook.low, hook.high)
        passed = torch.where(inside, values, values.detach())
        value = passed + (codes * scale - values).detach()
        beyond = (ratio < hook.low) | (ratio > hook.high)
        slope = torch.where(beyond, codes, codes - ratio).detach()
        return value + slope * (scale - scale.detach())

    weight = first.weight.detach().clone().requires_grad_()
    hooks = list(fake.inputs.values())
    hidden = nn.functional.linear(quantized(X, scales[0], hooks[0]), weight, first.bias.detach())
    hidden = module[1](hidden)
    outputs = module[2].weight.detach() @ quantized(hidden, scales[1], hooks[1]).T
    expected = (outputs.T + module[2].bias.detach()).square().mean()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(first.weight.grad, weight.grad)
    if learned:
        for found, scale, hook, n in zip(scale_gradients(fake), scales, hooks, (6, 5), strict=True):
            largest = max(hook.high, -hook.low)
            torch.testing.assert_close(found, scale.grad / np.sqrt(n * largest))
            assert found != 0


class Twice(nn.Module):
    """One layer called twice in double precision, another one in single precision."""

    def __init__(self):
        super().__init__()
        self.shared, self.last = nn.Linear(6, 6, bias=False).double(), nn.Linear(6, 3, bias=False)

    def forward(self, x):
        return self.last(self.shared(self.shared(x)).float())


def test_gradients_of_a_shared_layer_and_of_mixed_precision():
    torch.manual_seed(0)
    module, X = Twice(), torch.randn(20, 6).double()
    with observe_activations(module) as statistics:
        module(X)
    scheme = QuantizationScheme(3, activation_bits=4)
    fake = FakeQuantization(module, scheme, learned=True, statistics=statistics)
    loss = stepped(module, fake, X)

    weights = [module.shared.weight, module.last.weight]
    quantized = [*fake.weights.values(), *fake.inputs.values()]
    scales = [q.scale.detach().clone().requires_grad_() for q in quantized]
    latents = [w.detach().clone().requires_grad_() for w in weights]
    shared = straight_through(latents[0], scales[0], 3, True)
    last = straight_through(latents[1], scales[1].float(), 3, True)
    hidden = X
    for _ in range(2):
        hidden = straight_through(hidden, scales[2], 7, True) @ shared.T
    outputs = straight_through(hidden.float(), scales[3].float(), 7, True) @ last.T
    expected = outputs.square().mean()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for weight, latent in zip(weights, latents, strict=True):
        torch.testing.assert_close(weight.grad, latent.grad)
    for found, scale, q in zip(scale_gradients(fake), scales, (3, 3, 7, 7), strict=True):
        torch.testing.assert_close(found, scale.grad / np.sqrt(6 * q), rtol=1e-5, atol=1e-7)
    for name, weight in fake.finish().weights.items():
        assert weight.scale.dtype == module.get_parameter(name).dtype


@pytest.mark.parametrize("kind", ["time first", "packed", "one sequence"])
def test_features_of_a_sequence_are_counted_per_sample(kind):
    """The gradient of the input's scale is that of the layer which has the batch first."""
    torch.manual_seed(0)
    n, layer = 1 if kind == "one sequence" else 5, nn.LSTM(3, 4, batch_first=True)
    X, found = torch.randn(n, 7, 3), []
    with observe_activations(layer) as statistics:
        layer(X)
    other = X.transpose(0, 1) if kind == "time first" else X[0]
    if kind == "packed":
        other = nn.utils.rnn.pack_sequence(list(X))
    for values in (X, other):
        module = copy.deepcopy(layer)
        module.batch_first = values is X
        scheme = QuantizationScheme(None, activation_bits=3)
        fake = FakeQuantization(module, scheme, learned=True, statistics=statistics)
        with fake.applied(training=True):
            module(values)[1][0].sum().backward()
        found.append(fake.learned_scales[0].grad)
    torch.testing.assert_close(*found)
    assert found[0] != 0


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("learned", [True, False])
def test_any_module_trains_on_its_grid(name, learned):
    """Weights get gradients; the latent ones come back untouched; the result is on its grid."""
    module, X = build(name)
    module = plain_copy(module)
    fake = FakeQuantization(module, QuantizationScheme(3), learned=learned)
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    modes = [m.training for m in module.modules()]
    outputs = {}
    with fake.applied(training=True):
        outputs["train"] = module(*X) if isinstance(X, tuple) else module(X)
        outputs["train"].square().mean().backward()
    assert modes == [m.training for m in module.modules()]
    parameters = dict(module.named_parameters())
    for weight in quantizable_weights(module):
        assert torch.equal(parameters[weight], before[weight])
    got = [parameters[n].grad for n in quantizable_weights(module) if parameters[n].grad is not None]
    assert got
    assert all(bool(grad.isfinite().all()) for grad in got)
    finished = fake.finish()
    assert not [n for n in module.state_dict() if n.startswith("quantization_scale")]
    for weight in finished.weights.values():
        rows = weight.codes.movedim(weight.axis, 0).flatten(1)
        assert max(len(row.unique()) for row in rows) <= 2**3 - 1


def test_no_steps_are_post_training_quantization():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    expected = convert(module, QuantizationScheme(3))
    fake = FakeQuantization(copy.deepcopy(module), QuantizationScheme(3))
    for name, weight in fake.finish().weights.items():
        assert torch.equal(weight.codes, expected.weights[name].codes)
        assert torch.equal(weight.scale, expected.weights[name].scale)


def test_what_is_deployed_is_what_the_last_step_ran_on():
    """Scales follow the weights at the start of an epoch, and stay until the next one."""
    torch.manual_seed(0)
    module, X = nn.Sequential(nn.Linear(6, 5)), torch.randn(30, 6)
    fake = FakeQuantization(module, QuantizationScheme(3))
    scale = fake.weights["0.weight"].scale
    start = scale.clone()
    stepped(module, fake, X)
    module[0].weight.data *= 2
    with fake.applied(training=False):
        assert torch.equal(scale, start)
    fake.rescale()
    torch.testing.assert_close(scale, 2 * start)
    module[0].weight.data *= 2
    with fake.applied(training=False):
        during = module(X)
    assert torch.equal(fake.finish().module(X), during)


@pytest.mark.parametrize("learned", [True, False])
def test_the_state_of_the_module_holds_the_scales(learned):
    torch.manual_seed(0)
    module, X = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), torch.randn(30, 6)
    with observe_activations(module) as statistics:
        module(X)
    scheme = QuantizationScheme(3, activation_bits=4)
    fake = FakeQuantization(module, scheme, learned=learned, statistics=statistics)
    state = copy.deepcopy(module.state_dict())
    with fake.applied(training=False):
        before = module(X)
    for parameter in module.parameters():
        parameter.data *= 1.7
    for quantized in [*fake.weights.values(), *fake.inputs.values()]:
        quantized.scale.data *= 3
    module.load_state_dict(state)
    with fake.applied(training=False):
        assert torch.equal(module(X), before)
    assert torch.equal(fake.finish().module(X), before)
    assert not [name for name in module.state_dict() if "quantization" in name]


def test_learned_scales_start_as_published_and_stay_positive():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5))
    module[0].weight.data[2] = 0
    fake = FakeQuantization(module, QuantizationScheme(4), learned=True)
    scale, magnitude = fake.weights["0.weight"].scale, module[0].weight.detach().abs()
    expected = 2 * magnitude.mean(1, keepdim=True) / np.sqrt(7)
    expected[2] = 1
    torch.testing.assert_close(scale.detach(), expected)
    scale.data.fill_(-1.0)
    with fake.applied(training=True):
        assert (scale > 0).all()
        assert module[0].weight.isfinite().all()


def test_gradients_of_several_backwards_add_up():
    torch.manual_seed(0)
    module, X = nn.Sequential(nn.Linear(6, 5)), torch.randn(30, 6)
    fake = FakeQuantization(module, QuantizationScheme(3), learned=True)
    stepped(module, fake, X)
    once = [module[0].weight.grad.clone(), fake.learned_scales[0].grad.clone()]
    stepped(module, fake, X)
    torch.testing.assert_close(module[0].weight.grad, 2 * once[0])
    torch.testing.assert_close(fake.learned_scales[0].grad, 2 * once[1])


def test_an_error_inside_gives_the_weights_back():
    module = nn.Sequential(nn.Linear(6, 5))
    fake = FakeQuantization(module, QuantizationScheme(2))
    before = module[0].weight.detach().clone()
    with pytest.raises(RuntimeError, match="on purpose"), fake.applied(training=True):
        raise RuntimeError("on purpose")
    assert torch.equal(module[0].weight, before)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_train_on_the_codes_of_float32(dtype, learned):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    data = torch.randn(30, 6).to(dtype)
    with observe_activations(module) as statistics:
        module(data)
    scheme = QuantizationScheme(12, activation_bits=12)
    fake = FakeQuantization(module, scheme, learned=learned, statistics=statistics)
    for _ in range(2):
        with fake.applied(training=True):
            module(data).float().square().mean().backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= 0.01 * parameter.grad
    quantized = fake.finish()
    for name, weight in quantized.weights.items():
        latent, scale = module.get_parameter(name).detach().float(), weight.scale
        assert scale.dtype == torch.float32
        assert torch.equal(weight.codes, (latent / scale).round().clamp(-2047, 2047).to(torch.int16))
        assert torch.equal(quantized.module.get_parameter(name), weight.dequantize().to(dtype))
