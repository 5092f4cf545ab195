"""Moments of the inputs of layers, as rounding collects them."""

from contextlib import ExitStack

from skqfair.quantization._layer_inputs import moments_at, watched
from skqfair.quantization._passes import Passes, items_of, record


def moments_of(module, names, run, original=None, items=None):
    """Return the moments of the inputs of weights by name, beside those of a float network."""
    find = watched(names, items)
    samples = record(original or module, [(1.0, run)], find)
    with ExitStack() as passes:
        own = passes.enter_context(Passes(module, samples, find))
        beside = passes.enter_context(Passes(original, samples, find)) if original else None
        return {name: moments_at(name, own, beside) for name in items_of(samples)}
