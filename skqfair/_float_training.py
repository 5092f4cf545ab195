"""Fits that end with their float training, or just before it: what a warm-up of a search runs."""

from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["FitEnded", "end_fit_at", "fit_reaches"]

_END = ContextVar("end of fits", default=None)


class FitEnded(BaseException):
    """Raised by a fit that has reached the point at which it was to end.

    Parameters
    ----------
    **facts
        What is known at that point.
    """

    def __init__(self, **facts):
        super().__init__(facts)
        self.facts = facts


@contextmanager
def end_fit_at(point):
    """End the fits of classifiers inside with :class:`FitEnded`, at "key" or at "trained"."""
    token = _END.set(point)
    try:
        yield
    finally:
        _END.reset(token)


def fit_reaches(point, **facts):
    """End the fit if it was to end at this point; a fact that is callable is asked only then."""
    if _END.get() == point:
        raise FitEnded(**{name: fact() if callable(fact) else fact for name, fact in facts.items()})
