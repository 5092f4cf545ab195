"""Networks of several inputs: their names, and batches of them."""

import inspect

import torch

from skqfair._rows import Inputs

__all__ = ["as_tensors", "call", "moved", "named_for"]

_OURS = {"sample_weight", "group", "teacher"}  # travel beside X in a batch


def as_tensors(batch):
    """Return a batch that was read as a tensor, or as a dict of them."""
    if isinstance(batch, dict):
        return {name: torch.from_numpy(values) for name, values in batch.items()}
    return batch if isinstance(batch, torch.Tensor) else torch.from_numpy(batch)


def moved(batch, device, *, copy):
    """Return a batch on a device, as a copy if that is asked for."""
    if isinstance(batch, dict):
        return {name: values.to(device, copy=copy) for name, values in batch.items()}
    return batch.to(device, copy=copy)


def call(module, batch):
    """Return the outputs of a module for a batch; several inputs go by name."""
    return module(**batch) if isinstance(batch, dict) else module(batch)


def named_for(X, module):
    """Return several inputs under the names that ``forward`` takes; others as they are.

    Parameters
    ----------
    X : array, Rows or Inputs
        Inputs of a tuple get the names of the first parameters.
    module : torch.nn.Module, or its class
        Whose ``forward`` is to take them.

    Raises
    ------
    ValueError
        If ``forward`` does not take these inputs, or requires others.
    """
    forward = getattr(module, "forward", None)
    if not isinstance(X, Inputs) or forward is None:
        return X
    parameters = list(inspect.signature(forward).parameters.values())[isinstance(module, type) :]
    if all(isinstance(name, int) for name in X.sample_shape) and len(X.sample_shape) <= len(parameters):
        X = X.named({position: parameters[position].name for position in X.sample_shape})
    given, kinds = list(X.sample_shape), {p.kind for p in parameters}
    taken = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p.name for p in parameters if p.name in taken and p.default is p.empty]
    unknown = [name for name in given if name not in taken]
    name = module.__name__ if isinstance(module, type) else type(module).__name__
    if own := _OURS & set(given):
        raise ValueError(
            f"X has an input {own.pop()!r}, a name that batches have in use; rename that parameter of "
            f"forward of {name}, and the input."
        )
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise ValueError(
            f"X has the inputs {given}, but forward of {name} takes {taken}; give each input the name "
            "of its parameter, and leave others out."
        )
    if absent := [name for name in required if name not in given]:
        raise ValueError(
            f"X has the inputs {given}, but forward of {name} requires {absent} too; add them to X."
        )
    return X
