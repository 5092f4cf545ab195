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
    if bag.mode not in ("sum", "mean") or bag.max_norm is not None or bag.scale_grad_by_freq:
        return nn.EmbeddingBag.forward(bag, ids, offsets, per_sample_weights)
    if ids.ndim == 2:
        n_bags, of = len(ids), torch.arange(len(ids), device=ids.device).repeat_interleave(ids.shape[1])
    else:
        n_bags = len(offsets) - bool(bag.include_last_offset)
        places = torch.arange(len(ids), device=ids.device)
        of = torch.searchsorted(offsets[:n_bags].contiguous(), places, right=True) - 1
    ids, weights = ids.reshape(-1), bag.weight.new_ones(ids.numel())
    if per_sample_weights is not None:
        weights = per_sample_weights.reshape(-1)
    if bag.padding_idx is not None:
        weights = weights * (ids != bag.padding_idx)
    found = F.embedding(ids, bag.weight, bag.padding_idx) * weights[:, None]
    total = bag.weight.new_zeros(n_bags, found.shape[1]).index_add(0, of, found)
    if bag.mode == "sum":
        return total
    counts = bag.weight.new_zeros(n_bags).index_add(0, of, weights.detach())
    return total / counts.clamp_min(1)[:, None]
