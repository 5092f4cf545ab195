"""Copies of modules whose hooks compute weights."""

import copy

import torch
from torch import nn

__all__ = ["deep_copy"]


def deep_copy(value, modules=()):
    """Return a deep copy of a module, or of what holds the given modules.

    What older norms and pruning compute in a hook is part of a graph, of which there is no copy: the
    values are copied.
    """
    modules = [value] if isinstance(value, nn.Module) else modules
    attributes = [v for module in modules for m in module.modules() for v in vars(m).values()]
    computed = [v for v in attributes if isinstance(v, torch.Tensor) and v.grad_fn is not None]
    return copy.deepcopy(value, {id(tensor): tensor.detach().clone() for tensor in computed})
