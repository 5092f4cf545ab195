"""Copies of modules whose hooks compute weights, and of what is around a module."""

import copy

import torch

__all__ = ["copies_of", "copy_attributes", "deep_copy", "keep_padding", "sharing_copy"]


def deep_copy(module):
    """Return a deep copy of a module.

    What older norms and pruning compute in a hook is part of a graph, of which there is no copy: the
    values are copied.
    """
    return copy.deepcopy(module, _computed(module))


def sharing_copy(module):
    """Return a copy of a module with the same parameters and buffers, which are not copied."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, _computed(module) | shared)


def copy_attributes(attributes, known):
    """Return deep copies of attributes; what has no copy, e.g. a callback with a lock, is shared.

    Parameters
    ----------
    attributes : dict
        By name.
    known : dict
        Copies that are there already, by the identity of what they are of.
    """
    try:
        return copy.deepcopy(attributes, dict(known))  # a failure leaves half a copy there
    except Exception:  # what an object of another's making raises is unknown
        copies = {}
        for name, value in attributes.items():
            try:
                copies[name] = copy.deepcopy(value, dict(known))
            except Exception:
                copies[name] = value
        return copies


def copies_of(module):
    """Return the copies of a module and all in it, by the identity of what they are of."""
    known = _computed(module)
    copy.deepcopy(module, known)
    return known


def keep_padding(module):
    """Let the encoders in a module of ours compute padded positions in prediction as in training.

    Torch's fast path leaves them out, in nested tensors, which nothing that looks into a network can
    read, and makes them 0, but only for a batch whose samples are all padded at the end.
    """
    for part in module.modules():
        if isinstance(part, torch.nn.TransformerEncoder):
            part.use_nested_tensor = False


def _computed(module):
    """Return copies of what hooks have computed, by identity."""
    attributes = [value for part in module.modules() for value in vars(part).values()]
    computed = [v for v in attributes if isinstance(v, torch.Tensor) and v.grad_fn is not None]
    return {id(tensor): tensor.detach().clone() for tensor in computed}
