"""Passes that end at a layer: what comes after it does not change what the layer gets."""

from collections.abc import Iterable
from contextlib import ExitStack
from copy import copy

from torch import nn

__all__ = ["recorded", "up_to"]


def recorded(
    module: nn.Module, layers: dict[str, list[nn.Module]]
) -> tuple[nn.Module, list[tuple[dict[str, int], object]]]:
    """Return a view of a module that keeps what comes out of it and how often layers are called.

    Parameters
    ----------
    module : torch.nn.Module
        Not changed.
    layers : dict of str to list of torch.nn.Module
        Those whose calls are counted, together where they share a name.

    Returns
    -------
    view : torch.nn.Module
        The module with another ``forward``.
    passes : list of (dict of str to int, object)
        The calls of each layer in each pass so far, and its outputs.
    """
    passes = []

    def forward(*args, **kwargs):
        counts = dict.fromkeys(layers, 0)

        def count(name):
            def hook(*_):
                counts[name] += 1

            return hook

        with ExitStack() as hooks:
            for name, together in layers.items():
                _watch(hooks, together, count(name))
            outputs = module.forward(*args, **kwargs)
        passes.append((counts, outputs))
        return outputs

    return _view(module, forward), passes


def up_to(
    module: nn.Module,
    layers: list[nn.Module],
    name: str,
    passes: Iterable[tuple[dict[str, int], object]],
) -> nn.Module:
    """Return a view of a module whose passes end at the last call of a layer.

    Parameters
    ----------
    module : torch.nn.Module
        Not changed.
    layers : list of torch.nn.Module
        The layer in it; several where they share a weight.
    name : str
        Its name in ``passes``.
    passes : iterable of (dict of str to int, object)
        From :func:`recorded`, of the same passes in the same order; their outputs are returned. A pass
        beyond them, or one in which the layer was not called, is not cut short.

    Returns
    -------
    torch.nn.Module
        The module with another ``forward``.
    """
    left = iter(passes)

    def forward(*args, **kwargs):
        counts, outputs = next(left, ({}, None))
        calls, made = counts.get(name, 0), 0

        def count(*_):
            nonlocal made
            made += 1
            if made == calls:
                raise _Reached

        with ExitStack() as hooks:
            _watch(hooks, layers, count)
            try:
                return module.forward(*args, **kwargs)
            except _Reached:
                return outputs

    return _view(module, forward)


class _Reached(BaseException):
    """No error, which a module might handle."""


def _view(module, forward):
    view = copy(module)  # the same parameters, submodules and hooks
    view.forward = forward
    return view


def _watch(hooks, layers, hook):
    """Register a hook for the calls of layers, behind those that are there already."""
    for layer in layers:
        hooks.callback(layer.register_forward_pre_hook(hook).remove)
