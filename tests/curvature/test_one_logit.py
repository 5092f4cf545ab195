"""Derivatives of modules of one logit against dense ones of the binary cross-entropy."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, hessian

from skqfair.diagnostics import (
    group_gradient_norms,
    group_hessian_eigenvalues,
    group_hessian_trace,
    per_sample_gradient_norms,
)


class OneLogit(nn.Sequential):
    def __init__(self, activation=nn.ReLU, flat=False):
        super().__init__(nn.Linear(3, 5), activation(), nn.Linear(5, 1))
        self.add_module("last", nn.Flatten(0) if flat else nn.Identity())


pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch.func


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    return X, y, np.where(np.arange(40) % 3 == 0, "a", "b")


def dense(module, X, y, criterion):
    """Flat gradient and Hessian of the mean loss, by torch.func on all weights at once."""
    names = [name for name, _ in module.named_parameters()]
    shapes = [p.shape for p in module.parameters()]
    start = torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    def loss(flat):
        parts = flat.split([shape.numel() for shape in shapes])
        weights = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        outputs = functional_call(module, weights, (torch.as_tensor(X),))
        return criterion(outputs.reshape(-1), torch.as_tensor(y, dtype=torch.float64))

    return grad(loss)(start).numpy(), hessian(loss)(start).numpy()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("weight", [None, 3.0])
def test_all_four_functions(activation, flat, weight, data):
    X, y, groups = data
    torch.manual_seed(0)
    module = OneLogit(activation, flat).double()
    weight = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    criterion = nn.BCEWithLogitsLoss(pos_weight=weight)
    found = {
        "norms": group_gradient_norms(module, X, y, groups, criterion=criterion),
        "eigenvalues": group_hessian_eigenvalues(module, X, y, groups, criterion=criterion)[:, 0],
        "trace": group_hessian_trace(module, X, y, groups, criterion=criterion),
    }
    for i, group in enumerate("ab"):
        of = groups == group
        gradient, matrix = dense(module, X[of], y[of], criterion)
        assert found["norms"][i] == pytest.approx(np.linalg.norm(gradient), rel=1e-6)
        assert found["eigenvalues"][i] == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-3)
        assert found["trace"][i] == pytest.approx(np.trace(matrix), rel=1e-6)
    each = per_sample_gradient_norms(module, X, y, criterion=criterion)
    wanted = [np.linalg.norm(dense(module, X[[i]], y[[i]], criterion)[0]) for i in range(5)]
    np.testing.assert_allclose(each[:5], wanted, rtol=1e-6)


def test_the_exact_trace_holds(data):
    X, y, groups = data
    module, criterion = OneLogit().double(), nn.BCEWithLogitsLoss()
    for targets in (y, y[:, None], y.astype(float), y.astype(bool)):
        options = {"criterion": criterion, "method": "exact"}
        traces = group_hessian_trace(module, X, targets, groups, **options)
        assert traces[0] == pytest.approx(
            np.trace(dense(module, X[groups == "a"], y[groups == "a"], criterion)[1]), rel=1e-6
        )


def test_targets_between_the_classes(data):
    X, y, groups = data
    module, criterion = OneLogit().double(), nn.BCEWithLogitsLoss()
    soft = 0.8 * y + 0.1
    norms = group_gradient_norms(module, X, soft, groups, criterion=criterion)
    gradient, _ = dense(module, X[groups == "a"], soft[groups == "a"], criterion)
    assert norms[0] == pytest.approx(np.linalg.norm(gradient), rel=1e-6)


def test_more_logits_than_one(data):
    X, y, groups = data
    with pytest.raises(ValueError, match=r"one logit, shape \(n,\) or \(n, 1\); the module returns"):
        group_gradient_norms(nn.Linear(3, 2), X, y, groups, criterion=nn.BCEWithLogitsLoss())
