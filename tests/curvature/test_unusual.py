"""Layers in unusual use, against plain derivatives in float64."""

import numpy as np
import pytest
import torch
from curvature_zoo import single_gradients
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from skqfair.curvature import (
    group_hessian_eigenvalues,
    group_hessian_trace,
    per_sample_gradient_norms,
)


class Two(nn.Module):
    """Two linear layers, the first one square."""

    def __init__(self):
        super().__init__()
        self.one, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.one(x)))


class Keywords(Two):
    def forward(self, x):
        return self.out(input=torch.tanh(self.one(input=x)))


class Tied(Two):
    def __init__(self):
        super().__init__()
        self.two = nn.Linear(6, 6)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.out(torch.tanh(self.two(torch.tanh(self.one(x)))))


class Checkpointed(Two):
    """Goes forward once more in each backward."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.norm.running_mean.normal_()

    def inner(self, x):
        return self.norm(self.one(x))

    def forward(self, x):
        return self.out(torch.tanh(checkpoint(self.inner, torch.tanh(x), use_reentrant=False)))


class Backbone(Two):
    """Layers that run without gradients."""

    def __init__(self):
        super().__init__()
        self.one.requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            h = torch.tanh(self.one(x))
        return self.out(h)


class Vmapped(Two):
    def forward(self, x):
        return self.out(torch.tanh(torch.vmap(self.one)(x)))


class Kept(Two):
    """Returns what a hook has kept of the last layer."""

    def __init__(self):
        super().__init__()
        self.kept = {}
        self.out.register_forward_hook(lambda m, args, output: self.kept.update(output=output))

    def forward(self, x):
        super().forward(x)
        return self.kept["output"]


class InPlace(Two):
    """Changes the first output, which is used twice."""

    def forward(self, x):
        h = self.one(x)
        return self.out(torch.tanh(functional.relu_(h) + h))


OLD_TORCH = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7)
KINDS = (
    *(Keywords, Tied, Checkpointed, Backbone, Kept, InPlace),
    pytest.param(
        Vmapped, marks=pytest.mark.skipif(OLD_TORCH, reason="no vmap in hooks of saved tensors")
    ),
)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def given(request):
    """A module in float64 with samples and labels."""
    torch.manual_seed(0)
    module = request.param().double().eval()
    return module, torch.randn(20, 6, dtype=torch.float64), torch.randint(3, (20,))


def hessian(module, X, y):
    """Row by row, by double backward: checkpoints and vmap are beyond torch.func."""
    weights = [p for p in module.parameters() if p.requires_grad]
    loss = functional.cross_entropy(module(X), y)
    flat = torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, create_graph=True)])
    rows = [torch.autograd.grad(g, weights, retain_graph=True) for g in flat]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def test_norms(given):
    module, X, y = given
    expected = single_gradients(module, X, y).norm(dim=1)
    np.testing.assert_allclose(per_sample_gradient_norms(module, X, y), expected, rtol=1e-8)


@pytest.mark.parametrize("batch_size", [None, 7])
def test_eigenvalues(given, batch_size):
    module, X, y = given
    expected = torch.linalg.eigvalsh(hessian(module, X, y)).flip(0)[:2]
    options = {"k": 2, "tol": 1e-6, "batch_size": batch_size}
    found = group_hessian_eigenvalues(module, X, y, ["a"] * 20, **options)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_traces(given):
    module, X, y = given
    found, method = group_hessian_trace(module, X, y, ["a"] * 20, return_method=True)
    expected = float(hessian(module, X, y).trace())
    assert found[0] == pytest.approx(expected, rel=1e-8 if method == "exact" else 0.3)


def test_layers_within_autocast():
    """Where the second derivatives of torch itself are taken; in bfloat16 they are rough."""

    class Autocast(Two):
        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x).float()

    torch.manual_seed(0)
    module, X, y = Autocast().eval(), torch.randn(20, 6), torch.randint(3, (20,))
    found = group_hessian_eigenvalues(module, X, y, ["a"] * 20)
    plain = Two().eval()
    plain.load_state_dict(module.state_dict())
    expected = torch.linalg.eigvalsh(hessian(plain, X, y))[-1]
    assert found[0, 0] == pytest.approx(float(expected), rel=0.05)
