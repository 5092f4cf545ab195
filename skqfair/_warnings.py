"""Warnings that point at the line outside the package that led to them."""

import sys
import warnings

__all__ = ["warn"]

_BETWEEN = {"contextlib", "joblib", "skqfair", "sklearn", "skorch"}


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the nearest line that is not the package's own, nor of what it is built on.

    Parameters
    ----------
    message : str
        What is said.
    category : type
        The kind of warning.
    """
    frame, level = sys._getframe(1), 2
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level if frame is not None else 2)
