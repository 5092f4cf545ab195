"""Per-sample norms against BackPACK; eigenvalues, products and traces against curvlinops."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from skqfair.curvature import (
    Hessian,
    Problem,
    evaluating,
    group_hessian_eigenvalues,
    group_hessian_trace,
    per_sample_gradient_norms,
)
from skqfair.networks import MLP, ConvNet

for peer in ("backpack", "curvlinops"):
    pytest.importorskip(peer)
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)  # of linear_operator
    from backpack import backpack, extend
    from backpack.extensions import BatchGrad, BatchL2Grad
    from curvlinops import HessianLinearOperator

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script:DeprecationWarning",  # torch's own, when curvlinops differentiates
    "ignore:Full backward hook is firing:UserWarning",  # BackPACK's hooks
)
N = 30


def plain_conv(dimensions, **options):
    """A network of what BackPACK knows."""
    conv, pool = ((nn.Conv1d, nn.MaxPool1d), (nn.Conv2d, nn.MaxPool2d))[dimensions - 1]
    return nn.Sequential(
        conv(2, 4, 3, padding=1, **options),
        nn.ReLU(),
        pool(2),
        conv(4, 6, 3, stride=2, **options),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


NETWORKS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), (6,)),
    "mlp, sigmoid": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 3)), (6,)),
    "no bias": (lambda: nn.Sequential(nn.Linear(6, 8, bias=False), nn.ELU(), nn.Linear(8, 3)), (6,)),
    "conv1d": (lambda: plain_conv(1), (2, 12)),
    "conv2d": (lambda: plain_conv(2), (2, 10, 10)),
    "conv2d in groups": (lambda: plain_conv(2, groups=2), (2, 10, 10)),
    "conv2d, large": (lambda: plain_conv(2), (2, 24, 24)),
    "conv2d, dilated": (lambda: plain_conv(2, dilation=2, bias=False), (2, 14, 14)),
}


def made(make, shape, dtype=torch.float64):
    torch.manual_seed(0)
    X, y = torch.randn(N, *shape, dtype=dtype), torch.randint(3, (N,))
    module = make().to(dtype)
    module(X)  # lazy layers, statistics of BatchNorm
    return module.eval(), X, y


@pytest.mark.parametrize("name", NETWORKS)
def test_per_sample_norms_are_those_of_backpack(name):
    module, X, y = made(*NETWORKS[name])
    found = per_sample_gradient_norms(module, X, y)
    extended, loss = extend(module), extend(nn.CrossEntropyLoss(reduction="sum"))
    with backpack(BatchGrad(), BatchL2Grad()):
        loss(extended(X), y).backward()
    rows = torch.cat([p.grad_batch.flatten(1) for p in module.parameters()], 1)
    squares = sum(p.batch_l2 for p in module.parameters())
    np.testing.assert_allclose(found, rows.norm(dim=1), rtol=1e-9)
    if "groups" not in name:  # whose BatchL2Grad is not the norm of its own BatchGrad
        np.testing.assert_allclose(found, squares.sqrt(), rtol=1e-9)


CURVED = {
    "mlp": (lambda: MLP(6, 3, hidden_sizes=(8, 7)), (6,)),
    "gelu": (lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)), (6,)),
    "convnet": (lambda: ConvNet(3, 3, widths=(2, 4)), (3, 8, 8)),
    "conv in groups": (lambda: plain_conv(2, groups=2), (2, 10, 10)),
}


def hessian_operator(module, X, y):
    weights = [p for p in module.parameters() if p.requires_grad]
    return HessianLinearOperator(module, nn.CrossEntropyLoss(), weights, [(X, y)])


@pytest.fixture(params=CURVED)
def curved(request):
    """Module, X, y, unequal groups, and curvlinops' Hessian of each group."""
    module, X, y = made(*CURVED[request.param])
    groups = np.repeat(["a", "b", "c"], [5, 9, N - 14])
    members = [torch.as_tensor(groups == g) for g in "abc"]
    return module, X, y, groups, [hessian_operator(module, X[rows], y[rows]) for rows in members]


def test_products_are_those_of_curvlinops(curved):
    module, X, y, groups, operators = curved
    problem = Problem(module, X, y, groups)
    with evaluating(module):
        for rows, operator in zip(problem.members(), operators, strict=True):
            vectors = torch.randn(problem.n_weights, 3, dtype=X.dtype)
            hessian = Hessian(problem, rows)
            found = torch.stack([hessian(v) for v in vectors.T], 1)
            torch.testing.assert_close(found, operator @ vectors, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("which", ["LA", "SA"])
def test_eigenvalues_are_those_of_curvlinops(curved, which):
    module, X, y, groups, operators = curved
    k = 3
    found = group_hessian_eigenvalues(module, X, y, groups, k=k, which=which, tol=1e-6, max_iter=2000)
    for values, operator in zip(found, operators, strict=True):
        dense = operator @ torch.eye(operator.shape[1], dtype=X.dtype)
        expected = torch.linalg.eigvalsh((dense + dense.T) / 2).numpy()
        expected = expected[-k:] if which == "LA" else expected[:k]
        np.testing.assert_allclose(np.sort(values), expected, rtol=1e-5, atol=1e-8)


def test_traces_are_those_of_curvlinops(curved):
    module, X, y, groups, operators = curved
    found, method = group_hessian_trace(module, X, y, groups, return_method=True)
    for value, operator in zip(found, operators, strict=True):
        dense = operator @ torch.eye(operator.shape[1], dtype=X.dtype)
        spread = float(dense.norm()) * np.sqrt(2 / 32)  # of as many random probes
        expected = float(dense.trace())
        assert value == pytest.approx(expected, abs=1e-9 if method == "exact" else 3 * spread)
