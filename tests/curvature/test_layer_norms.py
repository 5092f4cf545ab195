"""Closed forms of single layers, against unfolded patches and plain gradients."""

import numpy as np
import pytest
import torch
from curvature_zoo import single_gradients
from torch import nn
from torch.nn import functional

from skqfair.curvature import Problem, evaluating, per_sample_gradient_norms
from skqfair.curvature._layer_norms import _gradients_of_patches, _patch_products
from skqfair.curvature._per_sample import closed_form_holds

KERNELS = {
    "plain": {"kernel_size": 3},
    "padded": {"kernel_size": 3, "padding": 1},
    "same": {"kernel_size": 3, "padding": "same", "dilation": 2},
    "valid": {"kernel_size": 2, "padding": "valid"},
    "strided": {"kernel_size": 3, "padding": 1, "stride": 2},
    "dilated": {"kernel_size": 3, "padding": 2, "stride": 2, "dilation": 2},
    "oblong": {"kernel_size": (3, 2), "padding": (1, 0), "stride": (2, 1), "dilation": (1, 3)},
    "one pixel": {"kernel_size": 1, "stride": 3},
}


@pytest.mark.parametrize("name", KERNELS)
def test_products_of_patches(name):
    torch.manual_seed(0)
    conv, X = nn.Conv2d(3, 4, **KERNELS[name]).double(), torch.randn(5, 3, 9, 8, dtype=torch.float64)
    size = conv(X).shape[2:]
    options = {key: KERNELS[name].get(key, 1) for key in ("kernel_size", "stride", "dilation")}
    padding = {"same": 2, "valid": 0}.get(conv.padding, conv.padding)
    patches = functional.unfold(X, **options, padding=padding)
    torch.testing.assert_close(_patch_products(conv, X, size), patches.mT @ patches)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", KERNELS)
def test_gradients_of_patches(name, dims):
    torch.manual_seed(0)
    kind, options = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1], dict(KERNELS[name])
    if dims != 2:
        options = {key: v[0] if isinstance(v, tuple) else v for key, v in options.items()}
    conv = kind(3, 4, **options).double()
    X = torch.randn(5, 3, *(9, 8, 7)[:dims], dtype=torch.float64)
    outputs = conv(X)
    grads = torch.randn_like(outputs)
    found = _gradients_of_patches(conv, X, grads).unflatten(2, conv.weight.shape[1:])
    for one, x, g in zip(found, X, grads, strict=True):
        expected = torch.autograd.grad(conv(x[None]), conv.weight, g[None])[0]
        torch.testing.assert_close(one, expected)


def network(**options):
    """Two convolutions of many channels, so that positions are few beside weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 48, **options), nn.Tanh(), nn.Conv2d(48, 40, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(160, 3),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KERNELS)
def test_convolutions_at_few_positions(name, dtype):
    module = network(**KERNELS[name]).to(dtype)
    X, y = torch.randn(6, 3, 8, 8, dtype=dtype), torch.randint(3, (6,))
    problem = Problem(module, X, y)
    with evaluating(module):
        assert closed_form_holds(problem)
    found = per_sample_gradient_norms(module, X, y)
    rtol = {torch.float32: 1e-4, torch.float64: 1e-9}[dtype]
    np.testing.assert_allclose(found, single_gradients(module, X, y).norm(dim=1), rtol=rtol)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("kernel", [2, 4, (3, 2)])
def test_padding_more_at_one_end(kernel):
    module = network(kernel_size=kernel, padding="same")
    X, y = torch.randn(6, 3, 8, 8), torch.randint(3, (6,))
    found = per_sample_gradient_norms(module, X, y)
    np.testing.assert_allclose(found, single_gradients(module, X, y).norm(dim=1), rtol=1e-4)


def test_gradients_that_cancel():
    # the same patch everywhere, the gradients of the positions add up to nothing
    class Difference(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 3)

        def forward(self, X):
            h = self.conv(X)
            return torch.stack([h[:, 0, 0, 0] - h[:, 0, 1, 1], h.new_zeros(len(X))], 1)

    torch.manual_seed(0)
    patch = torch.randn(4, 16, 1, 1).expand(4, 16, 4, 4).clone()
    found = per_sample_gradient_norms(Difference(), patch, torch.zeros(4, dtype=torch.long))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, 0, atol=1e-2)
