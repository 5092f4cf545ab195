"""Copies of modules whose hooks compute weights."""

import copy

import torch
from torch import nn

__all__ = ["copy_attributes", "deep_copy"]


def deep_copy(value, modules=()):
    """Return a deep copy of a module, or of what holds the given modules.

    What older norms and pruning compute in a hook is part of a graph, of which there is no copy: the
    values are copied.
    """
    modules = [value] if isinstance(value, nn.Module) else modules
    return copy.deepcopy(value, _computed(modules))


def copy_attributes(owner, modules):
    """Return copies of the attributes of an object; what has no copy, e.g. a callback, is shared."""
    try:
        return deep_copy(vars(owner), modules)
    except Exception:  # what an object of another's making raises is unknown
        memo, copies = _computed(modules), {}
        for name, value in vars(owner).items():
            try:
                copies[name] = copy.deepcopy(value, memo)
            except Exception:
                copies[name] = value
        return copies


def _computed(modules):
    """Return copies of what hooks have computed, by identity."""
    attributes = [v for module in modules for m in module.modules() for v in vars(m).values()]
    computed = [v for v in attributes if isinstance(v, torch.Tensor) and v.grad_fn is not None]
    return {id(tensor): tensor.detach().clone() for tensor in computed}
