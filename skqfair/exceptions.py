"""Errors and warnings of the package, all subclasses of scikit-learn's or Python's own.

Those of scikit-learn's are loaded when they are first used: the command line does without it.
"""

from typing import TYPE_CHECKING

from skqfair._lazy import lazily

if TYPE_CHECKING:
    from skqfair._sklearn_exceptions import (
        EmptyGroupWarning,
        UnclearSamplesWarning,
        UnknownLabelWarning,
        UntrainedNetworkError,
    )

__all__ = [
    "AccuracyBoundWarning",
    "AuditFailure",
    "CacheBypassWarning",
    "CompoundedMitigationWarning",
    "DivergedTrainingError",
    "DoubleBackwardError",
    "EmptyGroupWarning",
    "ExportError",
    "LimitedOffsetsWarning",
    "ManyGroupsWarning",
    "ModuleOutputError",
    "NearestRoundingWarning",
    "NoCurvatureWarning",
    "NoModelWithinLimitsWarning",
    "ParityError",
    "ParityWarning",
    "SmallCellWarning",
    "SmallGroupWarning",
    "TrainingSamplesWarning",
    "UnclearSamplesWarning",
    "UnknownLabelWarning",
    "UnquantizedWeightsWarning",
    "UntrainedNetworkError",
]

_OF_SKLEARN = (
    "EmptyGroupWarning",
    "UnclearSamplesWarning",
    "UnknownLabelWarning",
    "UntrainedNetworkError",
)

__getattr__, __dir__ = lazily(
    __name__, __all__, dict.fromkeys(_OF_SKLEARN, "skqfair._sklearn_exceptions")
)


class ModuleOutputError(ValueError):
    """The outputs of a module do not fit its criterion."""


class ManyGroupsWarning(UserWarning):
    """So many groups that they are probably values of a continuous feature."""


class UnquantizedWeightsWarning(UserWarning):
    """Weights stay in float because no module of a known kind holds them."""


class NearestRoundingWarning(UserWarning):
    """Weights are rounded to nearest where error feedback was asked for."""


class CacheBypassWarning(UserWarning):
    """``memory`` was given but this fit can be neither stored nor looked up."""


class NoModelWithinLimitsWarning(UserWarning):
    """No candidate of a search is within the limits that were asked for."""


class DivergedTrainingError(ValueError):
    """The loss or a weight became NaN or infinite."""


class CompoundedMitigationWarning(UserWarning):
    """Two mitigations balance the same cells, so that small ones count more than equally."""


class SmallCellWarning(UserWarning):
    """A cell that is to be balanced has a single sample, which is then repeated or all there is."""


class AccuracyBoundWarning(UserWarning):
    """A group has lost more accuracy than the bound allows, at the end of the training."""


class LimitedOffsetsWarning(UserWarning):
    """Offsets of the classes can do little about the gap between these groups."""


class TrainingSamplesWarning(UserWarning):
    """What a frozen estimator is given to fit something else to are samples it was trained on."""


class SmallGroupWarning(UserWarning):
    """A group is too small for its gradients and curvature to say much."""


class NoCurvatureWarning(UserWarning):
    """Curvature could not be computed; its columns are NaN."""


class DoubleBackwardError(RuntimeError):
    """An operation of a module has no second derivative, so that curvature cannot be computed."""


class ExportError(RuntimeError):
    """A module cannot be expressed in ONNX, or its ONNX graph computes something else."""


class ParityError(AssertionError):
    """An exported model and the estimator it comes from differ by more than was allowed."""


class AuditFailure(AssertionError):
    """A compressed model is beyond a limit of an audit.

    Parameters
    ----------
    message : str
        Each limit, the figure and its interval.
    failures : list of dict
        The same as data: ``model``, ``limit``, ``allowed``, ``figure``, ``low``, ``high``.
    """

    def __init__(self, message, failures=()):
        super().__init__(message)
        self.failures = list(failures)


class ParityWarning(UserWarning):
    """An exported model and the estimator it comes from differ by more than was allowed."""
