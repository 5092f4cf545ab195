"""Subclasses of scikit-learn's errors and warnings; they are found in ``skqfair.exceptions``."""

from sklearn.exceptions import NotFittedError, UndefinedMetricWarning

__all__ = ["EmptyGroupWarning", "UnclearSamplesWarning", "UnknownLabelWarning", "UntrainedNetworkError"]


class UntrainedNetworkError(NotFittedError):
    """A network was handed over as trained, but has never been trained."""


class EmptyGroupWarning(UndefinedMetricWarning):
    """A group has no sample, hence no accuracy, and is left out of a metric."""


class UnknownLabelWarning(UndefinedMetricWarning):
    """Predictions have labels that the true ones lack."""


class UnclearSamplesWarning(UndefinedMetricWarning):
    """What belongs to which sample inside a layer is unclear; its figures by group are NaN."""


for _class in (UntrainedNetworkError, EmptyGroupWarning, UnknownLabelWarning, UnclearSamplesWarning):
    _class.__module__ = "skqfair.exceptions"
