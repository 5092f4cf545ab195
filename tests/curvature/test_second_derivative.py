"""Where torch's second derivative is not that of the loss, there is an error and no figure."""

import copy
import warnings

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from skqfair import QuantizationDiagnostics
from skqfair._copies import deep_copy
from skqfair.diagnostics import (
    group_hessian_eigenvalues,
    group_hessian_trace,
    per_sample_gradient_norms,
)
from skqfair.exceptions import DoubleBackwardError, NoCurvatureWarning
from skqfair.networks import make_classifier


class KeptOnCtx(torch.autograd.Function):
    """x³ whose backward keeps its input where the second backward does not look."""

    @staticmethod
    def forward(ctx, x):
        ctx.kept = x.detach()
        return x**3

    @staticmethod
    def backward(ctx, grad):
        return 3 * ctx.kept**2 * grad


class Data(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0].data * grad


class Net(nn.Module):
    """A linear layer, something between, a linear layer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

    def between(self, x):
        return torch.tanh(x)

    def forward(self, x):
        return self.last(self.between(self.first(x)))


class OnCtx(Net):
    def between(self, x):
        return KeptOnCtx.apply(x)


class ByData(Net):
    def between(self, x):
        return Data.apply(x)


class Detached(Net):
    def between(self, x):
        return x * torch.sigmoid(x).detach()


class Branch(Net):
    """A branch that one sample in 40 takes."""

    def between(self, x):
        return torch.where(self.taken[:, None], x * x.detach(), x)

    def forward(self, x):
        self.taken = x[:, 0] > 2.0
        return super().forward(x)


class Random(Net):
    def between(self, x):
        return F.dropout(torch.tanh(x), 0.3)


class Reentrant(Net):
    def between(self, x):
        return checkpoint(torch.tanh, x, use_reentrant=True)


class Gelu(Net):
    def between(self, x):
        return F.gelu(x)


class Norm(Net):
    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            nn.utils.weight_norm(self.first)


class InPlace(Net):
    def between(self, x):
        return torch.relu_(x)


def problem(kind, n=120):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    X[:, 0] = np.where(np.arange(n) % 40 == 7, 3.0, np.clip(X[:, 0], -1, 1))
    return kind(), X, rng.integers(0, 3, n), np.arange(n) % 2


def dense(module, X, y):
    """Hessian of the mean loss from finite differences of the gradient in float64."""
    module = deep_copy(module).double().eval()
    parameters = [p for p in module.parameters() if p.requires_grad]

    def gradient():
        loss = F.cross_entropy(module(torch.as_tensor(X).double()), torch.as_tensor(y))
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])

    rows = []
    for p in parameters:
        flat = p.data.view(-1)
        for i in range(len(flat)):
            value, ends = float(flat[i]), []
            for step in (1e-6, -1e-6):
                flat[i] = value + step
                ends.append(gradient())
            flat[i] = value
            rows.append((ends[0] - ends[1]) / 2e-6)
    matrix = torch.stack(rows)
    return np.linalg.eigvalsh((matrix + matrix.T).numpy() / 2)


@pytest.mark.parametrize("kind", [OnCtx, ByData, Detached, Branch])
@pytest.mark.parametrize("function", [group_hessian_eigenvalues, group_hessian_trace])
def test_a_wrong_second_derivative_is_an_error(kind, function):
    with pytest.raises(DoubleBackwardError, match=rf"products of {kind.__name__} are off by \d+\.\d%"):
        function(*problem(kind))


@pytest.mark.parametrize("function", [group_hessian_eigenvalues, group_hessian_trace])
def test_a_random_forward_is_an_error(function):
    with pytest.raises(DoubleBackwardError, match=r"through Random differ in eval mode.*training=self"):
        function(*problem(Random))


@pytest.mark.parametrize("kind", [Net, Gelu, Norm, InPlace])
def test_right_or_refused(kind):
    module, X, y, groups = problem(kind)
    try:
        largest = group_hessian_eigenvalues(module, X, y, groups, tol=1e-5)[:, 0]
        trace = group_hessian_trace(module, X, y, groups)
    except DoubleBackwardError:
        assert kind is Norm
        return
    for g in (0, 1):
        eigenvalues = dense(module, X[groups == g], y[groups == g])
        assert largest[g] == pytest.approx(eigenvalues[-1], rel=1e-3)
        assert trace[g] == pytest.approx(eigenvalues.sum(), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("zeros", ["weights", "samples", "biases"])
def test_a_kink_at_zero_is_no_error(zeros):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    _, X, y, groups = problem(Net)
    with torch.no_grad():
        if zeros == "samples":
            X[::3] = 0
        for layer in module[::2]:
            layer.bias.zero_()
            if zeros == "weights":
                layer.weight.zero_()
    assert np.isfinite(group_hessian_eigenvalues(module, X, y, groups)).all()
    assert np.isfinite(group_hessian_trace(module, X, y, groups)).all()


def test_compiled_modules_are_those_that_were_compiled():
    module, X, y, groups = problem(Net)
    expected = group_hessian_eigenvalues(module, X, y, groups)
    part = copy.deepcopy(module)
    part.first = torch.compile(part.first, backend="aot_eager")
    in_place = copy.deepcopy(module)
    in_place.compile(backend="aot_eager")
    for compiled in (torch.compile(copy.deepcopy(module), backend="aot_eager"), part, in_place):
        found = group_hessian_eigenvalues(compiled, X, y, groups)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        traces = group_hessian_trace(compiled, X, y, groups)
        np.testing.assert_allclose(traces, group_hessian_trace(module, X, y, groups), rtol=1e-5)


def test_the_exact_trace_asks_every_group():
    """A branch that few samples take is not piecewise linear."""

    class Rare(Net):
        def between(self, x):
            return torch.where(self.taken[:, None], torch.tanh(x), torch.relu(x))

        def forward(self, x):
            self.taken = x[:, 0] > 2.0
            return super().forward(x)

    module, X, y, groups = problem(Rare, 160)
    traces, method = group_hessian_trace(module, X, y, groups, return_method=True)
    assert method == "stochastic"
    for g in (0, 1):
        expected = dense(module, X[groups == g], y[groups == g]).sum()
        assert traces[g] == pytest.approx(expected, rel=1e-3)


def test_errors_of_the_trace():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 30), nn.Tanh(), nn.Linear(30, 3))
    _, X, y, groups = problem(Net)
    traces, method, errors = group_hessian_trace(
        module, X, y, groups, return_method=True, return_error=True
    )
    assert method == "stochastic"
    for g in (0, 1):
        expected = dense(module, X[groups == g], y[groups == g]).sum()
        assert 0 < abs(traces[g] - expected) < 2.2 * errors[g]
    small = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))
    traces, errors = group_hessian_trace(small, X, y, groups, return_error=True)
    assert (errors == 0).all()
    assert traces[0] == pytest.approx(dense(small, X[groups == 0], y[groups == 0]).sum(), rel=1e-3)


@pytest.mark.filterwarnings(
    "ignore:the outputs of last cannot be told apart", "ignore:None of the inputs have requires_grad"
)
@pytest.mark.parametrize(
    ("kind", "reason", "gradients"),
    [
        (OnCtx, "products of OnCtx are off by", True),
        (Detached, "products of Detached are off by", True),
        (Random, "two passes of the same samples", True),
        (Reentrant, "use_reentrant", False),
    ],
)
def test_reports_have_nan_and_say_why(kind, reason, gradients):
    module, X, y, groups = problem(kind, 200)
    net = make_classifier(module, max_epochs=1).fit(X, y)
    with pytest.warns(NoCurvatureWarning, match=reason):
        diagnostics = QuantizationDiagnostics(FrozenEstimator(net), weight_bits=4, random_state=0).fit(
            X, y, sensitive_features=groups
        )
    report = diagnostics.group_report_
    curvature = [column for column in report if column.startswith("hessian_")]
    assert report[curvature].isna().all(axis=None)
    assert report.loc[4, "excess_loss_second_order"].isna().all()
    assert report["gradient_norm"].notna().all() == gradients
    assert report[["accuracy", "loss", "excess_loss"]].notna().all(axis=None)


def test_gradients_need_no_second_derivative():
    module, X, y, _ = problem(OnCtx)
    assert np.isfinite(per_sample_gradient_norms(module, X, y)).all()


class KinkCloseBy(Net):
    """A ReLU whose kink is 5e-8 away and hardly matters."""

    def __init__(self, slope):
        super().__init__()
        self.slope, self.threshold = slope, nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return super().forward(x) + self.slope * F.relu(self.threshold - 5e-8) * torch.eye(3)[0]


@pytest.mark.parametrize("slope", [1e-8, 3e-8])
def test_a_slight_kink_close_by_is_no_fault(slope):
    torch.manual_seed(0)
    net, X = KinkCloseBy(slope), torch.randn(60, 4)
    y, groups = torch.arange(60) % 3, np.arange(60) % 2
    assert np.isfinite(group_hessian_eigenvalues(net, X, y, groups)).all()
