"""Copies of modules in plain operations, which have second derivatives and dense gradients."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from skqfair._copies import deep_copy

__all__ = ["differentiable_copy"]


def differentiable_copy(module):
    """Return a copy that computes the same, in operations that can be differentiated twice.

    Embeddings have dense gradients; Hardsigmoid and EmbeddingBag are written out. Parts that are
    called as functions stay as they are.

    Parameters
    ----------
    module : torch.nn.Module
        Not changed.

    Returns
    -------
    torch.nn.Module
        With the same parameters, by name and value.
    """
    copied = deep_copy(module)
    for part in copied.modules():
        if getattr(part, "sparse", None) is True:
            part.sparse = False
        if type(part) is nn.Hardsigmoid:
            part.forward = _hardsigmoid
        if type(part) is nn.EmbeddingBag:
            part.forward = partial(_bag, part)
    return copied


def _hardsigmoid(x):
    return F.relu6(x + 3) / 6


def _bag(bag, ids, offsets=None, per_sample_weights=None):
    plain = bag.mode in ("sum", "mean") and bag.padding_idx is None and bag.max_norm is None
    if ids.ndim != 2 or offsets is not None or bag.scale_grad_by_freq or not plain:
        return nn.EmbeddingBag.forward(bag, ids, offsets, per_sample_weights)
    found = F.embedding(ids, bag.weight)
    if per_sample_weights is not None:
        found = found * per_sample_weights[:, :, None]
    return torch.sum(found, 1) if bag.mode == "sum" else torch.mean(found, 1)
