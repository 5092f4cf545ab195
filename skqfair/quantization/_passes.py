"""Passes of samples through a module, which wait before a layer until it has been changed."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from copy import copy, deepcopy
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import nn

from skqfair._copies import sharing_copy

__all__ = ["Passes", "Sample", "items_of", "record"]

_WAITING = 16  # passes at a time, each in a thread of its own
_MEMORY = 2**30  # bytes of what they hold

Watched = Callable[[nn.Module], Iterable[tuple[nn.Module, str, object]]]
"""Finds the layers in a module: each with its name, and what goes with it."""


@dataclass
class Sample:
    """What one call of a module got.

    Attributes
    ----------
    args, kwargs : tuple, dict
        The arguments.
    weight : float
        Of these samples beside others.
    counts : dict of str to int
        How often each layer was called; by name, in the order of the first call.
    items : dict of str to int
        The lengths of what each layer got, in all calls together.
    largest : int
        Bytes of the largest input of a layer.
    autocasts : list of dict
        Arguments of the ``torch.autocast`` of each kind of device around the call.
    """

    args: tuple
    kwargs: dict
    weight: float
    counts: dict[str, int]
    items: dict[str, int]
    largest: int
    autocasts: list[dict]


def record(
    module: nn.Module,
    runs: Iterable[tuple[float, Callable[[nn.Module], object]]],
    watched: Watched,
) -> list[Sample]:
    """Run samples through a module, and keep what it was called with.

    Parameters
    ----------
    module : torch.nn.Module
        Not changed.
    runs : iterable of (float, callable)
        A weight, and a function that passes samples through a module.
    watched : callable
        Finds the layers whose calls are counted.

    Returns
    -------
    list of Sample
        One for each call of the module.
    """
    samples = []
    for weight, run in runs:

        def forward(*args, weight=weight, **kwargs):
            sample = _sample(module, args, kwargs, weight)
            samples.append(sample)
            with ExitStack() as hooks:
                for child, name, _ in watched(module):
                    hook = child.register_forward_pre_hook(_counting(sample, name), with_kwargs=True)
                    hooks.callback(hook.remove)
                return module(*args, **kwargs)

        view = copy(module)  # the same parameters and submodules
        for name, value in vars(view).items():
            if "hooks" in name and isinstance(value, dict):
                setattr(view, name, type(value)())  # those of the module run when it is called
        view.forward = forward
        with torch.no_grad():
            run(view)
    if not samples:
        raise ValueError("run must call the module that it is given; it did not.")
    return samples


def items_of(samples: list[Sample]) -> dict[str, int]:
    """Return how many inputs each layer got in all samples, in the order of execution.

    Parameters
    ----------
    samples : list of Sample
        From :func:`record`.

    Returns
    -------
    dict of str to int
        Of the layers that were called.
    """
    items = Counter()
    for sample in samples:
        items.update(sample.items)
    return items


def _sample(module, args, kwargs, weight):
    kinds = sorted({"cpu", *(p.device.type for p in module.parameters())})
    autocasts = [
        {"device_type": kind, "dtype": torch.get_autocast_dtype(kind)}
        for kind in kinds
        if torch.is_autocast_enabled(kind)
    ]
    kept = deepcopy((args, kwargs))  # a module may work in place
    return Sample(*kept, weight, {}, {}, 0, autocasts)


def _counting(sample, name):
    def hook(child, args, kwargs):
        sample.counts[name] = sample.counts.get(name, 0) + 1
        given = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor) and v.ndim]
        sample.items[name] = sample.items.get(name, 0) + (len(given[0]) if given else 1)
        sample.largest = max([sample.largest, *(v.nbytes for v in given)])

    return hook


class Passes:
    """Passes of samples through a module, layer after layer.

    A pass waits where a layer is called, and goes on with what the layer has become by then. One that
    went by a layer already, or through an earlier call of a layer that was changed at its last one, is
    made anew. Each has a copy of the module, with the same parameters and buffers, so that what a module
    keeps of a batch does not meet another. Used in a ``with`` block.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode. Its parameters and buffers may be changed in place.
    samples : list of Sample
        From :func:`record`.
    watched : callable
        Finds the layers at which passes can wait.
    """

    def __init__(self, module: nn.Module, samples: list[Sample], watched: Watched):
        self.module, self.samples, self.watched = module, samples, watched
        self._running = {}
        held = accumulate(3 * sample.largest for sample in samples)  # input, output, one beside
        self._waiting = sum(total <= _MEMORY for total in list(held)[:_WAITING])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for running in self._running.values():
            running.end()
        self._running.clear()

    def at(self, name: str) -> Iterator[list[tuple]]:
        """Yield what a layer gets in each pass: for each call (what goes with it, child, args, kwargs).

        The inputs hold until the next one is asked for.
        """
        for i, sample in enumerate(self.samples):
            calls = sample.counts.get(name, 0)
            if not calls:
                yield []
                continue
            running = self._running.pop(i, None)
            if running is not None and (running.over or name in running.seen):
                running.end()
                running = None
            running = self._running[i] = running or _Pass(self.module, sample, self.watched)
            try:
                yield running.up_to(name, calls)
            finally:
                if i >= self._waiting or calls > 1:
                    self._running.pop(i).end()


class _Pass:
    """One pass, in a thread that runs only while it is waited for."""

    def __init__(self, module, sample, watched):
        self.seen, self._found, self._error = {}, [], None
        self._name, self._calls = None, 0
        self.over, self._ended = False, False
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        module = sharing_copy(module)
        for child, name, beside in watched(module):
            child.register_forward_pre_hook(self._hook(name, beside), with_kwargs=True)
        self._thread = threading.Thread(target=self._run, args=(module, sample), daemon=True)
        self._thread.start()

    def up_to(self, name, calls):
        """Go on to so many calls of a layer, and return them."""
        self._name, self._calls, self._found = name, calls, []
        self._go.release()
        self._back.acquire()
        if self._error is not None:
            raise self._error
        return self._found

    def end(self):
        """End the pass where it is."""
        self._ended = True
        self._go.release()
        self._thread.join()

    def _run(self, module, sample):
        self._go.acquire()
        try:
            args, kwargs = deepcopy((sample.args, sample.kwargs))
            with ExitStack() as contexts:
                for context in (torch.no_grad(), *(torch.autocast(**a) for a in sample.autocasts)):
                    contexts.enter_context(context)
                self._check()
                module(*args, **kwargs)
        except _Ended:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self.over = True
            self._back.release()

    def _hook(self, name, beside):
        def hook(child, args, kwargs):
            self._check()
            self.seen[name] = self.seen.get(name, 0) + 1
            if name != self._name:
                return
            last = self.seen[name] == self._calls
            kept = (args, kwargs) if last else deepcopy((args, kwargs))
            self._found.append((beside, child, *kept))
            if last:
                self._back.release()
                self._go.acquire()
                self._check()

        return hook

    def _check(self):
        if self._ended:
            raise _Ended


class _Ended(BaseException):
    """No error, which a module might handle."""
