"""Rounding by what layers get: order of layers, activations, biases, what cannot be served."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from skqfair.exceptions import NearestRoundingWarning
from skqfair.quantization import (
    ROUNDINGS,
    QuantizationScheme,
    QuantizedTensor,
    compensate_rounding,
    convert,
    float_moments,
    move_batchnorm,
    observe_activations,
    round_alone,
)
from skqfair.quantization._gptq import round_with_feedback


@pytest.fixture
def problem():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
    return module.eval(), torch.randn(400, 3) @ torch.randn(3, 8) + 0.5


class Sequences(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.body, self.kind = kind, type(kind)
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        if self.kind is nn.MultiheadAttention:
            hidden = self.body(x, x, x)[0]
        elif self.kind is nn.LSTMCell:
            state = None
            for step in range(x.shape[1]):
                state = self.body(x[:, step], state)
            return self.out(state[0])
        else:
            hidden = self.body(x)[0]
        return self.out(hidden.mean(1))


KINDS = {
    "lstm": lambda: Sequences(nn.LSTM(6, 6, num_layers=2, batch_first=True)),
    "gru": lambda: Sequences(nn.GRU(6, 6, batch_first=True)),
    "cell": lambda: Sequences(nn.LSTMCell(6, 6)),
    "attention": lambda: Sequences(nn.MultiheadAttention(6, 2, batch_first=True)),
    "convolutions": lambda: nn.Sequential(
        nn.Conv1d(5, 8, 3, padding=1, groups=1),
        nn.SiLU(),
        nn.ConvTranspose1d(8, 6, 4, stride=2, groups=2),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool1d(2),
        nn.Flatten(),
        nn.Linear(12, 3),
    ),
}


@pytest.fixture(params=KINDS)
def every_kind(request):
    torch.manual_seed(0)
    module = KINDS[request.param]().eval()
    return module, torch.randn(300, 5, 4) @ torch.randn(4, 6)


def quantized_by(module, X, rounding="gptq", bias_correction=False, scheme=None, statistics=None):
    converted = convert(module, scheme or QuantizationScheme(3), statistics)
    return compensate_rounding(
        converted,
        module,
        lambda m: [m(part) for part in X.split(100)],
        rounding=rounding,
        bias_correction=bias_correction,
    )


@pytest.mark.parametrize("rounding", ROUNDINGS[1:])
@pytest.mark.parametrize("waiting", [0, 1])
def test_passes_made_anew_have_the_same_codes(every_kind, rounding, waiting, monkeypatch):
    module, X = every_kind
    all_wait = quantized_by(module, X, rounding, bias_correction=True)
    monkeypatch.setattr("skqfair.quantization._passes._WAITING", waiting)
    anew = quantized_by(module, X, rounding, bias_correction=True)
    for name, weight in all_wait.weights.items():
        assert torch.equal(anew.weights[name].codes, weight.codes), name
    for name, values in all_wait.module.state_dict().items():
        assert torch.equal(anew.module.state_dict()[name], values), name
    for net in (module, all_wait.module):
        assert not any(part._forward_pre_hooks for part in net.modules())


@pytest.mark.parametrize(("rounding", "networks"), [("gptq", 1), ("least_squares", 2)])
def test_each_layer_is_called_once(problem, rounding, networks):
    """Of three batches: once to record them, once in each network that has to be known."""
    module, X = problem
    calls = {}
    quantized = convert(module, QuantizationScheme(3))
    for net in (module, quantized.module):
        for name, part in net.named_children():

            def count(*_, name=name):
                calls[name] = calls.get(name, 0) + 1

            part.register_forward_hook(count)
    returned = []

    def run(m):
        returned.append([m(part) for part in X.split(150)])

    compensate_rounding(quantized, module, run, rounding=rounding)
    found = [calls[name] for name in "01234"]
    assert found == [3 + 3 * networks] * 4 + [3]  # nothing is behind the last
    with torch.no_grad():
        expected = [module(part) for part in X.split(150)]
    for outputs in returned:
        torch.testing.assert_close(outputs, expected)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_run_that_does_not_call_the_module(problem, rounding):
    module, X = problem
    quantized = convert(module, QuantizationScheme(3))
    with pytest.raises(ValueError, match="run must call the module"):
        compensate_rounding(quantized, module, lambda m: m[2:](m[:2](X)), rounding=rounding)


def test_a_module_that_is_the_layer():
    torch.manual_seed(0)
    layer, X = nn.Linear(6, 4).eval(), torch.randn(50, 3) @ torch.randn(3, 6)
    for rounding in ROUNDINGS[1:]:
        done = quantized_by(layer, X, rounding)
        nearest = quantized_by(layer, X, "nearest")
        error = [(m.module(X) - layer(X)).square().mean() for m in (done, nearest)]
        assert error[0] < error[1]
        assert not done.module._forward_pre_hooks


def test_layers_get_inputs_of_quantized_ones(problem):
    module, X = problem
    done = quantized_by(module, X)
    hidden = X
    for place in (0, 2, 4):
        nearest = convert(module, QuantizationScheme(3)).weights[f"{place}.weight"]
        products = hidden.double().T @ hidden.double()
        moved = round_with_feedback(
            module[place].weight.detach()[None], nearest.scale, torch.tensor(3), products[None]
        )[0]
        codes = (moved / nearest.scale).round().clamp(-3, 3)
        found = done.weights[f"{place}.weight"]
        assert (found.codes != codes).float().mean() < 0.01  # products are summed in float32
        assert torch.equal(found.scale, nearest.scale)
        with torch.no_grad():
            hidden = done.module[: place + 2](X)


@pytest.mark.parametrize("bits", [2, 3])
def test_moments_of_the_float_network_for_several_widths(problem, bits):
    module, X = problem
    moments = float_moments(module, lambda m: [m(part) for part in X.split(150)])
    nearest = convert(module, QuantizationScheme(bits))
    done = compensate_rounding(nearest, module, moments=moments, rounding="gptq")
    for place in (0, 2, 4):
        with torch.no_grad():
            rows = module[:place](X).double()
        products = rows.T @ rows
        assert moments[f"{place}.weight"].count == 400
        torch.testing.assert_close(
            moments[f"{place}.weight"].products[0], products, rtol=1e-4, atol=1e-3
        )
        found, limit = done.weights[f"{place}.weight"], 2 ** (bits - 1) - 1
        moved = round_with_feedback(
            module[place].weight.detach()[None], found.scale, torch.tensor(limit), products[None]
        )[0]
        codes = (moved / found.scale).round().clamp(-limit, limit)
        assert (found.codes != codes).float().mean() < 0.01  # products are summed in float32


def test_either_run_or_moments(problem):
    module, X = problem
    quantized = convert(module, QuantizationScheme(3))
    for given in ({}, {"run": lambda m: m(X), "moments": {}}):
        with pytest.raises(ValueError, match="either run or moments"):
            compensate_rounding(quantized, module, **given)
    with pytest.warns(NearestRoundingWarning, match=r"0\.weight, 2\.weight, 4\.weight"):
        compensate_rounding(quantized, module, moments={})


def test_weights_in_the_module_are_those_of_the_codes(problem):
    module, X = problem
    before = copy.deepcopy(module.state_dict())
    done = quantized_by(module, X, bias_correction=True)
    for name, weight in done.weights.items():
        assert torch.equal(dict(done.module.named_parameters())[name], weight.dequantize())
    for name, values in module.state_dict().items():
        assert torch.equal(values, before[name])


def test_outputs_are_nearer(problem):
    module, X = problem
    with torch.no_grad():
        target = module(X)
        error = {
            rounding: float((quantized_by(module, X, rounding).module(X) - target).square().mean())
            for rounding in ROUNDINGS
        }
    assert error["gptq"] < error["nearest"] / 2
    assert error["least_squares"] < error["gptq"]


def test_a_layer_makes_good_what_those_before_it_lost(problem):
    """Given a first layer of two bits, the last one in float width is the least-squares one."""
    module, X = problem
    scheme = QuantizationScheme(16, layer_bits={"0": 2})
    done = quantized_by(module, X, "least_squares", scheme=scheme)
    with torch.no_grad():
        target = module[2](module[:2](X))
        inputs = done.module[:2](X)
        best = torch.linalg.lstsq(inputs, target - module[2].bias).solution
        residuals = [(inputs @ w - target + module[2].bias).square().sum() for w in (best, best * 0)]
        found = (done.module[2](inputs) - target).square().sum()
        plain = (module[2](inputs) - target).square().sum()
    assert residuals[0] <= found < residuals[0] * 1.5
    assert plain > 2 * found


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_one_layer_alone_at_several_widths(problem, rounding):
    module, X = problem
    weight = module[2].weight.detach()
    nearest = [
        QuantizedTensor.from_float(weight, bits, per_channel=True, calibration="mse")
        for bits in (2, 3, 4)
    ]
    found = round_alone(module, "2.weight", nearest, lambda m: m(X), rounding=rounding)
    for bits, codes in zip((2, 3, 4), found, strict=True):
        scheme = QuantizationScheme(bits, calibration="mse", layer_bits={"0": None, "4": None})
        expected = quantized_by(module, X, rounding, scheme=scheme).weights["2.weight"]
        assert (codes.codes != expected.codes).float().mean() < 0.02  # sums in another order
    other = nn.ModuleList([*module, nn.Linear(8, 3)])
    other.forward = lambda X: other[5](X)
    unseen = round_alone(other, "2.weight", nearest, lambda m: m(X), rounding=rounding)
    assert unseen is nearest


def test_every_kind_of_layer(every_kind):
    module, X = every_kind
    with torch.no_grad():
        target = module(X)
        error = {
            rounding: float((quantized_by(module, X, rounding).module(X) - target).square().mean())
            for rounding in ROUNDINGS
        }
    assert error["least_squares"] < error["nearest"], error


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_bias_correction_gives_each_layer_its_mean(problem, rounding):
    module, X = problem
    done = quantized_by(module, X, rounding, bias_correction=True)
    plain = quantized_by(module, X, rounding)
    with torch.no_grad():
        for place in (1, 3, 5):  # linear outputs
            mean = module[:place](X).mean(0)
            torch.testing.assert_close(done.module[:place](X).mean(0), mean, rtol=1e-4, atol=1e-4)
            assert not torch.allclose(plain.module[:place](X).mean(0), mean, rtol=1e-3, atol=1e-3)


def test_activation_quantizers_are_in_place(problem):
    module, X = problem
    with observe_activations(module) as statistics:
        module(X)
    scheme = QuantizationScheme(3, activation_bits=3)
    done = quantized_by(module, X, "nearest", True, scheme, statistics)
    with torch.no_grad():
        torch.testing.assert_close(done.module(X).mean(0), module(X).mean(0), rtol=1e-4, atol=1e-4)


def test_bits_by_channel_and_layers_in_float(problem):
    module, X = problem
    scheme = QuantizationScheme(4, layer_bits={"0": None, "2": [2, 3, 8] * 4})
    done = quantized_by(module, X, scheme=scheme)
    assert set(done.weights) == {"2.weight", "4.weight"}
    limits = 2 ** (np.array([2, 3, 8] * 4) - 1) - 1
    assert (done.weights["2.weight"].codes.abs().amax(1).numpy() <= limits).all()
    assert torch.equal(done.module[0].weight, module[0].weight)


def test_shared_layers_see_all_their_calls():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.out = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.out(self.layer(self.layer(x).relu()).relu())

    torch.manual_seed(0)
    module, X = Twice().eval(), torch.randn(300, 6)
    with torch.no_grad():
        target = module(X)
        near = (quantized_by(module, X, "nearest").module(X) - target).square().mean()
        fed = (quantized_by(module, X).module(X) - target).square().mean()
    assert fed < near


def test_what_is_not_served_is_named_once():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.rnn = nn.Embedding(9, 4), nn.LSTM(4, 7, batch_first=True, proj_size=5)
            self.unused, self.out = nn.Linear(5, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.out(self.rnn(self.rows(x))[0][:, -1])

    torch.manual_seed(0)
    module, X = Net().eval(), torch.randint(0, 9, (50, 6))
    nearest = convert(module, QuantizationScheme(3)).weights
    with pytest.warns(NearestRoundingWarning, match=r"come: rnn\.weight_hr_l0, unused") as caught:
        done = quantized_by(module, X)
    (warning,) = (w for w in caught if w.category is NearestRoundingWarning)
    assert "rows" not in str(warning.message)
    assert torch.equal(done.weights["unused.weight"].codes, nearest["unused.weight"].codes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantized_by(module, X, "nearest", True)


def test_encoder_with_its_fast_path():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    module, X = nn.TransformerEncoder(layer, 2).eval(), torch.randn(64, 5, 8)
    with torch.no_grad():
        target = module(X)
        near = (quantized_by(module, X, "nearest").module(X) - target).square().mean()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # every weight is served
            fed = (quantized_by(module, X).module(X) - target).square().mean()
    assert fed < near


def test_bad_input(problem):
    module, X = problem
    with pytest.raises(
        ValueError, match="rounding must be one of 'nearest', 'gptq', 'least_squares'; got 'up'"
    ):
        quantized_by(module, X, "up")
    with pytest.raises(ValueError, match=r"inputs of 0\.weight on the calibration samples are"):
        quantized_by(module, torch.full_like(X, torch.inf))


def test_weights_of_samples_against_numpy(problem, monkeypatch):
    """The products of a layer's inputs, and their means, have the weights of the runs."""
    module, X = problem
    seen = []

    def spy(weight, scale, limit, products):
        seen.append(products)
        return round_with_feedback(weight, scale, limit, products)

    monkeypatch.setattr("skqfair.quantization._rounding.round_with_feedback", spy)
    few, many = X[:100], X[100:]
    runs = [(2.5, lambda m: m(few)), (0.5, lambda m: (m(many[:150]), m(many[150:])))]
    nearest = convert(module, QuantizationScheme(3))
    done = compensate_rounding(nearest, module, runs, rounding="gptq", bias_correction=True)
    weights = np.where(np.arange(400) < 100, 2.5, 0.5)
    inputs = X.numpy().astype(np.float64)
    np.testing.assert_allclose(seen[0][0].numpy(), (inputs.T * weights) @ inputs, rtol=1e-5)
    with torch.no_grad():
        for part in (1, 3, 5):
            means = [np.average(m[:part](X).numpy(), 0, weights) for m in (module, done.module)]
            np.testing.assert_allclose(*means, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rounding", ROUNDINGS[1:])
def test_weight_two_is_to_come_twice(every_kind, rounding):
    module, X = every_kind
    parts = X.split([40, len(X) - 40])
    codes = [
        compensate_rounding(
            convert(module, QuantizationScheme(3)), module, runs, rounding=rounding
        ).weights
        for runs in (
            [(2.0, lambda m: m(parts[0])), (1.0, lambda m: m(parts[1]))],
            lambda m: (m(parts[0]), m(parts[0]), m(parts[1])),
        )
    ]
    for name, weight in codes[0].items():  # but for sums in another order
        assert (weight.codes != codes[1][name].codes).float().mean() < 0.05, name


class LeavesEarly(nn.Module):
    """Its second layer runs only where the first gives what the float network gives."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)
        self.expected = None

    def forward(self, x):
        x = self.first(x)
        return self.second(self.norm(x)) if torch.equal(x, self.expected) else x


@pytest.mark.parametrize("rounding", ROUNDINGS[1:])
def test_a_layer_that_the_quantized_network_does_not_reach(rounding):
    torch.manual_seed(0)
    module, X = LeavesEarly().eval(), torch.randn(20, 4)
    with torch.no_grad():
        module.expected = module.first(X)
    quantized = convert(module, QuantizationScheme(2))
    before = quantized.weights["second.weight"].codes.clone()
    with pytest.warns(NearestRoundingWarning, match=r"did not come: second\.weight"):
        done = compensate_rounding(quantized, module, lambda m: m(X), rounding=rounding)
    assert torch.equal(done.weights["second.weight"].codes, before)
    mean = done.module.norm.running_mean.clone()
    move_batchnorm(done.module, module, lambda m: m(X))
    assert torch.equal(done.module.norm.running_mean, mean)
