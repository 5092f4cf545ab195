"""Layers that are fast to differentiate twice against torch's own, in float64."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from skqfair.curvature import Hessian, Problem, evaluating
from skqfair.curvature._twice import fast_twice


def conv(kind, *args, **options):
    return kind(*args, dtype=torch.float64, **options)


LAYERS = {
    "conv1d": (lambda: conv(nn.Conv1d, 4, 6, 3, padding=1), (4, 9)),
    "conv2d": (lambda: conv(nn.Conv2d, 4, 6, 3), (4, 7, 8)),
    "conv2d, stride, dilated": (
        lambda: conv(nn.Conv2d, 4, 6, (3, 2), stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
        (4, 9, 8),
    ),
    "conv2d, groups, no bias": (lambda: conv(nn.Conv2d, 4, 6, 3, groups=2, bias=False), (4, 7, 8)),
    "conv3d": (lambda: conv(nn.Conv3d, 2, 3, 2, stride=2), (2, 5, 4, 4)),
    "batchnorm1d": (lambda: conv(nn.BatchNorm1d, 4), (4,)),
    "batchnorm1d, sequence": (lambda: conv(nn.BatchNorm1d, 4), (4, 9)),
    "batchnorm2d": (lambda: conv(nn.BatchNorm2d, 4, eps=0.1), (4, 5, 6)),
    "batchnorm3d": (lambda: conv(nn.BatchNorm3d, 2), (2, 3, 4, 3)),
    "linear": (lambda: conv(nn.Linear, 4, 6), (4,)),
    "linear, tokens, no bias": (lambda: conv(nn.Linear, 4, 6, bias=False), (3, 4)),
    "linear, tokens of tokens": (lambda: conv(nn.Linear, 4, 6), (2, 3, 4)),
}
PLAIN = {
    "circular": (lambda: conv(nn.Conv2d, 4, 6, 3, padding=1, padding_mode="circular"), (4, 7, 8)),
    "same": (lambda: conv(nn.Conv2d, 4, 6, 3, padding="same"), (4, 7, 8)),
    "not affine": (lambda: conv(nn.BatchNorm2d, 4, affine=False), (4, 5, 6)),
    "no statistics": (lambda: conv(nn.BatchNorm2d, 4, track_running_stats=False), (4, 5, 6)),
    "transposed": (lambda: conv(nn.ConvTranspose2d, 4, 6, 3), (4, 5, 6)),
}


def second_derivatives(layer, x, directions, frozen=()):
    """Outputs, and first and second derivatives of a function of them by input and weights."""
    leaves = [x, *layer.parameters()]
    for i, leaf in enumerate(leaves):
        leaf.requires_grad_(i not in frozen)
    used = [leaf for leaf in leaves if leaf.requires_grad]
    outputs = layer(x)
    first = torch.autograd.grad(torch.tanh(outputs).square().sum(), used, create_graph=True)
    along = sum(torch.vdot(a.flatten(), d.flatten()) for a, d in zip(first, directions, strict=False))
    return [outputs, *first, *torch.autograd.grad(along, used)]


@pytest.mark.parametrize("frozen", [(), (0,), (1,), (0, 2)])
@pytest.mark.parametrize("name", {**LAYERS, **PLAIN})
def test_second_derivatives_are_those_of_torch(name, frozen):
    make, shape = {**LAYERS, **PLAIN}[name]
    torch.manual_seed(0)
    layer, x = make(), torch.randn(5, *shape, dtype=torch.float64)
    layer(x * 2 + 1)  # statistics of BatchNorm
    layer.eval()
    leaves = [x, *layer.parameters()]
    frozen = [i for i in frozen if i < len(leaves)] if len(leaves) > 1 else []
    kept = [leaf for i, leaf in enumerate(leaves) if i not in frozen]
    directions = [torch.randn_like(leaf) for leaf in kept]
    expected = second_derivatives(layer, x, directions, frozen)
    with fast_twice(layer):
        assert ("forward" in vars(layer)) == (name in LAYERS)
        found = second_derivatives(layer, x, directions, frozen)
    assert "forward" not in vars(layer)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


ONE = {"conv2d": (nn.Conv2d(2, 3, 3), (2, 6, 6)), "linear": (nn.Linear(2, 3), (2,))}


@pytest.mark.parametrize(("layer", "shape"), ONE.values(), ids=ONE)
def test_one_sample_without_a_dimension_for_it(layer, shape):
    x = torch.randn(shape)
    expected = layer(x)
    with fast_twice(layer):
        torch.testing.assert_close(layer(input=x), expected)


def test_what_the_user_changed_stays():
    class Own(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    own, patched, training = Own(2, 2, 1), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
    patched.forward = forward = SimpleNamespace()
    with fast_twice(nn.ModuleList([own, patched, training])):
        assert "forward" not in vars(own)
        assert patched.forward is forward
        assert "forward" not in vars(training)
    assert patched.forward is forward


def test_an_error_leaves_the_module_as_it_was():
    module = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)).eval()
    with pytest.raises(RuntimeError), fast_twice(module):
        module(torch.zeros(1, 5, 2, 2))
    assert not any("forward" in vars(m) for m in module.modules())


@pytest.mark.parametrize("batch_size", [None, 3])
def test_products_of_a_whole_network(batch_size):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 3, 3, stride=2),
        nn.Flatten(),
        nn.BatchNorm1d(12),
        nn.Unflatten(1, (3, 4)),
        nn.Linear(4, 4),
        nn.ReLU(inplace=True),
        nn.Linear(4, 3, bias=False),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(9, 3),
    ).double()
    X, y = torch.randn(7, 2, 7, 7, dtype=torch.float64), torch.randint(3, (7,))
    module(X * 3 + 5)
    problem = Problem(module, X, y, batch_size=batch_size)
    with evaluating(module):
        vector = torch.randn(problem.n_weights, dtype=torch.float64)
        gradient = problem.gradient(slice(None), create_graph=True)
        along = sum(
            torch.vdot(g.flatten(), d.flatten())
            for g, d in zip(gradient, problem.split(vector), strict=True)
        )
        plain = torch.autograd.grad(along, problem.parameters)
        found = Hessian(problem, torch.arange(7).numpy())(vector)
    expected = torch.cat([part.flatten() for part in plain]) / 7
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
