"""Inputs of layers as rows: their moments give the sums and squares of the outputs."""

import copy

import pytest
import torch
from moments import moments_of
from torch import nn

from skqfair.quantization._layer_inputs import as_matrices, from_matrices

LAYERS = {
    "linear": (nn.Linear(7, 5), (3, 4, 7), {}),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=2, dilation=2, groups=2, stride=2), (3, 4, 17), {}),
    "conv2d": (nn.Conv2d(4, 8, (3, 2), padding="same", dilation=2, groups=4), (3, 4, 11, 9), {}),
    "circular": (nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular"), (3, 4, 12, 9), {}),
    "depthwise": (nn.Conv2d(6, 6, 3, groups=6, bias=False), (2, 6, 8, 8), {}),
    "conv3d": (nn.Conv3d(2, 4, 3, padding=1, stride=2, groups=2), (3, 2, 7, 9, 5), {}),
    "transposed1d": (
        nn.ConvTranspose1d(4, 6, 3, padding=1, stride=2, groups=2, output_padding=1),
        (3, 4, 9),
        {},
    ),
    "transposed2d": (
        nn.ConvTranspose2d(4, 6, (3, 2), padding=2, stride=3, groups=2, dilation=2),
        (3, 4, 5, 4),
        {},
    ),
    "output size": (nn.ConvTranspose2d(4, 6, 3, stride=2), (3, 4, 5, 4), {"output_size": [12, 9]}),
    "transposed3d": (nn.ConvTranspose3d(2, 4, 2, stride=2, bias=False), (3, 2, 2, 3, 2), {}),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_moments_give_those_of_the_outputs(kind):
    torch.manual_seed(0)
    layer, shape, options = LAYERS[kind]
    outputs = []
    batches = [torch.randn(shape) for _ in range(2)]
    seen = moments_of(layer, ["weight"], lambda m: outputs.extend(m(b, **options) for b in batches))
    moments, weight = seen["weight"], as_matrices(layer, "weight", layer.weight.detach()).double()
    bias = 0 if layer.bias is None else layer.bias.detach().double()
    axis = -1 if isinstance(layer, nn.Linear) else 1
    rows = torch.cat([o.detach().double().movedim(axis, -1).flatten(0, -2) for o in outputs]) - bias
    assert moments.count == len(rows)
    sums = (weight @ moments.total[..., None]).flatten()
    squares = torch.einsum("brc,bcd,brd->br", weight, moments.products, weight).flatten()
    torch.testing.assert_close(sums, rows.sum(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(squares, rows.square().sum(0), rtol=1e-4, atol=1e-4)
    assert not layer._forward_pre_hooks


@pytest.mark.parametrize("kind", LAYERS)
def test_cross_products_give_those_of_both_outputs(kind):
    torch.manual_seed(0)
    layer, shape, options = LAYERS[kind]

    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.start, self.layer = nn.Conv1d(shape[1], shape[1], 1), copy.deepcopy(layer)

        def forward(self, x):
            return self.layer(self.start(x.flatten(2)).view_as(x), **options)

    original, quantized, batches = Chain(), Chain(), [torch.randn(shape) for _ in range(2)]
    seen = moments_of(quantized, ["layer.weight"], lambda m: [m(b) for b in batches], original)
    axis = -1 if isinstance(layer, nn.Linear) else 1
    rows = []
    for module in (original, quantized):
        with torch.no_grad():
            out = torch.cat([module(batch) for batch in batches]).double()
        bias = 0 if layer.bias is None else layer.bias.detach().double()
        rows.append(out.movedim(axis, -1).flatten(0, -2) - bias)
    weight = as_matrices(layer, "weight", layer.weight.detach()).double()
    found = torch.einsum("brc,bcd,brd->br", weight, seen["layer.weight"].cross, weight).flatten()
    torch.testing.assert_close(found, (rows[0] * rows[1]).sum(0), rtol=1e-4, atol=1e-4)
    assert not any(m._forward_pre_hooks for net in (original, quantized) for m in net.modules())


def test_inputs_changed_afterwards_are_those_of_the_call():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            x = x * 1
            out = self.layer(x)
            return x.zero_() + out

    net, X = Net(), torch.randn(9, 3)
    seen = moments_of(net, ["layer.weight"], lambda m: m(X), net)
    torch.testing.assert_close(seen["layer.weight"].cross[0], (X.T @ X).double())


@pytest.mark.parametrize("kind", LAYERS)
def test_matrices_and_back(kind):
    layer = LAYERS[kind][0]
    matrices = as_matrices(layer, "weight", layer.weight)
    assert torch.equal(from_matrices(layer, "weight", matrices), layer.weight)


@pytest.mark.parametrize("one_kind", [True, False])
def test_attention(one_kind):
    torch.manual_seed(0)
    options = {} if one_kind else {"kdim": 5, "vdim": 4}
    layer = nn.MultiheadAttention(6, 2, batch_first=True, **options).eval()
    query = torch.randn(3, 4, 6)
    key, value = (query, query) if one_kind else (torch.randn(3, 7, 5), torch.randn(3, 7, 4))
    projections = [f"{part}_proj_weight" for part in "qkv"]
    names = ["in_proj_weight"] if one_kind else projections
    out = layer(query, key, value)[0].detach()
    seen = moments_of(layer, [*names, "out_proj.weight"], lambda m: m(query, key, value))
    rows = [t.flatten(0, 1).double() for t in (query, key, value)]
    expected = [r.T @ r for r in rows]
    found = list(seen["in_proj_weight"].products) if one_kind else [seen[n].products[0] for n in names]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    out_weight = layer.out_proj.weight.detach().double()
    outputs = out.double().flatten(0, 1) - layer.out_proj.bias.detach().double()
    squares = out_weight @ seen["out_proj.weight"].products[0] @ out_weight.T
    torch.testing.assert_close(squares, outputs.T @ outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "places"), [(2, 256), (64, 114)])
def test_of_large_images_some_places_for_all(channels, places):
    """Of 64 channels, 2^26 numbers in patches of 576 make 116,508 rows of 1,024 images."""
    torch.manual_seed(0)
    layer, X = nn.Conv2d(channels, 3, 3, padding=1), torch.randn(64, channels, 24, 24)
    (moments,) = moments_of(layer, ["weight"], lambda m: m(X), items={"weight": 1024}).values()
    assert moments.count == 64 * places
    first = moments.products[0, :9, :9] / moments.count
    torch.testing.assert_close(first, torch.eye(9).double(), rtol=0, atol=0.1)


def test_sums_in_float32_are_those_of_float64():
    torch.manual_seed(0)
    layer, X = nn.Conv2d(8, 4, 3), torch.randn(64, 8, 18, 18).abs() + 10
    single = moments_of(layer, ["weight"], lambda m: m(X))
    double = moments_of(layer.double(), ["weight"], lambda m: m(X.double()))
    torch.testing.assert_close(single["weight"].products, double["weight"].products, rtol=1e-5, atol=0)
