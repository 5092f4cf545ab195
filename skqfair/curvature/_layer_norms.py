r"""Norms of per-sample gradients in closed form, layer by layer.

The gradient of sample i by the weight of a linear layer is :math:`\sum_t g_{it} a_{it}^\top`, with
the inputs a and the gradients g of its outputs at the positions t (one for plain features, pixels for
a convolution, tokens for a sequence; several calls of one layer only add positions). Its norm needs no
weight gradient: for one position it is :math:`\|g_i\| \|a_i\|`, for few ones
:math:`\sum_{ts} (a_{it}^\top a_{is}) (g_{it}^\top g_{is})` takes less than the gradient.

References
----------
Goodfellow, I. (2015). Efficient per-example gradient computations. arXiv:1510.01799.
"""

import functools
import itertools

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["square_norms", "supported"]

_BYTES = 2**27  # that gradients of single samples may take
_THIN = 8  # channels of a convolution below which patches are 1.3 to 5 times faster than vmap


def supported(module):
    """Whether the norms of a layer's per-sample gradients have a closed form here."""
    if isinstance(module, nn.Embedding):
        return not (module.scale_grad_by_freq or module.sparse or module.max_norm is not None)
    if isinstance(module, _BatchNorm):
        return module.track_running_stats
    if isinstance(module, _CONVOLUTIONS):
        return module.padding_mode == "zeros" and not _is_lopsided(module)
    return type(module) in _RULES


def square_norms(module, inputs, grads, *, weight, bias):
    """Return squared norms of the gradients of each sample by the parameters of a layer.

    Parameters
    ----------
    module : torch.nn.Module
        A supported layer.
    inputs : list of Tensor, each (n, ...)
        Of its calls.
    grads : list of Tensor, each (n, ...)
        Of the outputs of these calls.
    weight, bias : bool
        Which of its parameters count.

    Returns
    -------
    Tensor of shape (n,)
    """
    if isinstance(module, nn.Linear) and len(inputs) == 1 and inputs[0].ndim == 2:
        return _square(grads[0]) * (_square(inputs[0]) * weight + bias)
    total = inputs[0].new_zeros(len(inputs[0]), dtype=grads[0].dtype)
    if weight:
        rule = next(r for kind, r in _RULES.items() if isinstance(module, kind))
        total = total + rule(module, inputs, grads)
    if bias:
        total = total + _square(_sum(_over_positions(module, g) for g in grads))
    return total


def _over_positions(module, values):
    """Sum the values of each sample over all positions at which a parameter acts."""
    first, last = 2, values.ndim
    if isinstance(module, nn.Linear):
        first, last = 1, values.ndim - 1
    elif isinstance(module, nn.LayerNorm):
        first, last = 1, values.ndim - len(module.normalized_shape)
    return values.sum(tuple(range(first, last))) if last > first else values


def _square(values):
    return torch.linalg.vector_norm(values.flatten(1), dim=1).square()  # no copy in between


def _sum(calls):
    return functools.reduce(torch.add, calls)  # sum() begins with 0, which copies what is added


def _linear(module, inputs, grads):
    a = _joined([x.flatten(1, -2) if x.ndim > 2 else x[:, None] for x in inputs])
    g = _joined([x.flatten(1, -2) if x.ndim > 2 else x[:, None] for x in grads])
    if _share(a.shape[1], a.shape[2], g.shape[2]) < 1:
        return _inner(a @ a.mT, g @ g.mT)
    return _square(g.mT @ a)


def _joined(calls):
    return calls[0] if len(calls) == 1 else torch.cat(calls, 1)  # torch copies a single one


def _share(positions, d, e):
    """Return what products of all pairs of positions take, in gradients of shape (e, d)."""
    return positions * (d + e) / (d * e)


def _inner(a, g):
    """Return sums of products over positions, from those of inputs and those of gradients."""
    return torch.linalg.vecdot(a.flatten(1), g.flatten(1)).clamp_min(0)  # rounding may leave less


def _convolution(module, inputs, grads):
    shape = module.weight.shape
    # 2, as the gradients of single samples are slow where there are few positions
    few = _share(grads[0][0, 0].numel(), shape[1:].numel(), shape[0]) < 2
    if few and isinstance(module, nn.Conv2d) and module.groups == 1 and len(inputs) == 1:
        g = grads[0].flatten(2)
        return _inner(_patch_products(module, inputs[0], grads[0].shape[2:]), g.mT @ g)
    thin = shape[1] < _THIN and module.groups == 1 and not module.transposed
    gradients = _gradients_of_patches if thin else _gradients_by_vmap
    # each sample has a gradient as large as the weight, or patches: not those of all samples at once
    each = max(shape.numel(), grads[0][0, 0].numel() * shape[1:].numel() if thin else 0)
    at_once = max(1, _BYTES // (each * grads[0].element_size()))
    parts = zip(*(x.split(at_once) for x in (*inputs, *grads)), strict=True)
    found = []
    for part in parts:
        calls = zip(part[: len(inputs)], part[len(inputs) :], strict=True)
        found.append(_square(_sum(gradients(module, a, g) for a, g in calls)))
    return torch.cat(found)


def _gradients_by_vmap(module, inputs, grads):
    """Return the gradients of single samples by the weight of a convolution."""
    options = (
        list(module.stride),
        _padding(module),
        list(module.dilation),
        module.transposed,
        list(module.output_padding),
        module.groups,
    )

    def gradient(a, g):
        backward = torch.ops.aten.convolution_backward
        weight = module.weight.detach()
        return backward(g[None], a[None], weight, None, *options, [False, True, False])[1]

    return torch.vmap(gradient)(inputs, grads)


def _gradients_of_patches(module, inputs, grads):
    """Return the same from the patches at all positions, which are few numbers for few channels."""
    patches = functional.pad(inputs, [p for p in reversed(_padding(module)) for _ in range(2)])
    n_dims = len(module.kernel_size)
    sizes = zip(module.kernel_size, module.dilation, module.stride, strict=True)
    for dim, (kernel, d, stride) in enumerate(sizes, start=2):
        patches = patches.unfold(dim, d * (kernel - 1) + 1, stride)[..., ::d]
    last = range(2 + n_dims, 2 + 2 * n_dims)
    patches = patches.movedim(tuple(last), tuple(range(2, 2 + n_dims)))
    return grads.flatten(2) @ patches.flatten(1, 1 + n_dims).flatten(2).mT


def _patch_products(module, inputs, size):
    """Return the products of the patches at all positions, (n, t, t): a sum over offsets in them."""
    top, left = _padding(module)
    padded = functional.pad(inputs, (left, left, top, top))
    total = padded.new_zeros(len(padded), size.numel(), size.numel())
    places = zip(module.kernel_size, module.dilation, module.stride, size, strict=True)
    rows, columns = (
        [slice(k * d, k * d + s * (n - 1) + 1, s) for k in range(kernel)] for kernel, d, s, n in places
    )
    for row, column in itertools.product(rows, columns):
        part = padded[:, :, row, column].flatten(2)
        total.baddbmm_(part.mT, part)
    return total


def _is_lopsided(module):
    """Whether a convolution pads more at one end: "same" for a kernel of even length."""
    sizes = zip(module.kernel_size, module.dilation, strict=True)
    return module.padding == "same" and any(d * (k - 1) % 2 for k, d in sizes)


def _padding(module):
    if isinstance(module.padding, str):
        if module.padding == "valid":
            return [0] * len(module.kernel_size)
        return [d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return list(module.padding)


def _batchnorm(module, inputs, grads):
    shape = (1, -1) + (1,) * (inputs[0].ndim - 2)
    mean, std = module.running_mean.view(shape), (module.running_var + module.eps).sqrt()
    calls = zip(inputs, grads, strict=True)  # in place: each copy of the inputs counts
    return _square(_sum(_over_positions(module, (a - mean).mul_(g)) for a, g in calls) / std)


def _layernorm(module, inputs, grads):
    shape, eps = module.normalized_shape, module.eps
    return _by_normalised(module, [functional.layer_norm(a, shape, eps=eps) for a in inputs], grads)


def _groupnorm(module, inputs, grads):
    groups, eps = module.num_groups, module.eps
    return _by_normalised(module, [functional.group_norm(a, groups, eps=eps) for a in inputs], grads)


def _by_normalised(module, inputs, grads):
    """Return the squared norms for a weight that multiplies these inputs elementwise."""
    each = (_over_positions(module, g * a) for a, g in zip(inputs, grads, strict=True))
    return _square(_sum(each))


def _embedding(module, inputs, grads):
    tokens = _joined([x.reshape(len(x), -1) for x in inputs])
    g = _joined([x.reshape(len(x), -1, x.shape[-1]) for x in grads])
    if module.padding_idx is not None:
        g = g * (tokens != module.padding_idx)[..., None]
    same = (tokens[:, :, None] == tokens[:, None, :]).to(g.dtype)
    return _inner(g @ g.mT, same)


_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_RULES = {
    nn.Linear: _linear,
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    _BatchNorm: _batchnorm,
    nn.LayerNorm: _layernorm,
    nn.GroupNorm: _groupnorm,
    nn.Embedding: _embedding,
}
