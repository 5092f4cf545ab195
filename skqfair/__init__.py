"""Fairness of quantized neural classifiers, with scikit-learn's interface."""

from skqfair._version import __version__
from skqfair.classifiers import FairQATClassifier, PrunedClassifier, QuantizedClassifier
from skqfair.diagnostics import QuantizationDiagnostics
from skqfair.metrics import fairness_violation_observed, make_fairness_scorer

__all__ = [
    "FairQATClassifier",
    "PrunedClassifier",
    "QuantizationDiagnostics",
    "QuantizedClassifier",
    "__version__",
    "fairness_violation_observed",
    "make_fairness_scorer",
]
