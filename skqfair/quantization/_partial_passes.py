"""Passes that end at a layer: what comes after it does not change what the layer gets."""

from contextlib import ExitStack

from torch import nn

from skqfair.quantization._layer_inputs import holders

__all__ = ["Recorded", "UpTo"]


class Recorded(nn.Module):
    """Passes what it gets through a module, and keeps what comes out and how often layers are called.

    Parameters
    ----------
    module : torch.nn.Module
        Called in full.
    names : list of str
        Weights by name, whose layers are counted.

    Attributes
    ----------
    passes : list of (dict of str to int, object)
        The calls of each layer in each pass, and its outputs.
    """

    def __init__(self, module, names):
        super().__init__()
        self.module, self.names, self.passes = module, names, []

    def forward(self, *args, **kwargs):
        """Return the outputs of the module."""
        counts = dict.fromkeys(self.names, 0)

        def count(name):
            def hook(*_):
                counts[name] += 1

            return hook

        with ExitStack() as hooks:
            for name in self.names:
                _watch(hooks, self.module, name, count(name))
            outputs = self.module(*args, **kwargs)
        self.passes.append((counts, outputs))
        return outputs


class UpTo(nn.Module):
    """Passes what it gets through modules one after the other, each to the last call of one layer.

    Parameters
    ----------
    modules : list of torch.nn.Module
        Of the same architecture.
    name : str
        A weight of the layer.
    passes : list of (dict of str to int, object)
        From :class:`Recorded`, of the same passes in the same order; their outputs are returned. A pass
        beyond them, or one in which the layer was not called, is not cut short.
    """

    def __init__(self, modules, name, passes):
        super().__init__()
        self.parts, self.name = nn.ModuleList(modules), name
        self.left = list(reversed(passes))

    def forward(self, *args, **kwargs):
        """Return the recorded outputs."""
        counts, outputs = self.left.pop() if self.left else ({}, None)
        for part in self.parts:
            found = self._pass(part, counts.get(self.name, 0), args, kwargs)
        return outputs if counts else found

    def _pass(self, part, calls, args, kwargs):
        made = 0

        def count(*_):
            nonlocal made
            made += 1
            if made == calls:
                raise _Reached

        with ExitStack() as hooks:
            _watch(hooks, part, self.name, count)
            try:
                return part(*args, **kwargs)
            except _Reached:
                return None


class _Reached(BaseException):
    """No error, which a module might handle."""


def _watch(hooks: ExitStack, module: nn.Module, name: str, hook) -> None:
    """Register a hook behind those that are there already, before the calls of a layer."""
    for holder in holders(module, name):
        hooks.callback(holder.register_forward_pre_hook(hook).remove)
