"""Errors and warnings of the package, all subclasses of scikit-learn's or Python's own."""

from sklearn.exceptions import NotFittedError, UndefinedMetricWarning

__all__ = [
    "CacheBypassWarning",
    "EmptyGroupWarning",
    "ModuleOutputError",
    "NoModelWithinLimitsWarning",
    "UntrainedNetworkError",
]


class UntrainedNetworkError(NotFittedError):
    """A network was handed over as trained, but has never been trained."""


class ModuleOutputError(ValueError):
    """The outputs of a module do not fit its criterion."""


class EmptyGroupWarning(UndefinedMetricWarning):
    """A group has no sample, hence no accuracy, and is left out of a metric."""


class CacheBypassWarning(UserWarning):
    """``memory`` was given but this fit can be neither stored nor looked up."""


class NoModelWithinLimitsWarning(UserWarning):
    """No candidate of a search is within the limits that were asked for."""
