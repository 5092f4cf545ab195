"""Fairness of quantized neural classifiers, with scikit-learn's interface."""

from skqfair.classifiers import FairQATClassifier, PrunedClassifier, QuantizedClassifier
from skqfair.diagnostics import QuantizationDiagnostics
from skqfair.metrics import fairness_violation_observed, make_fairness_scorer

__version__ = "0.1.0"

__all__ = [
    "FairQATClassifier",
    "PrunedClassifier",
    "QuantizationDiagnostics",
    "QuantizedClassifier",
    "__version__",
    "fairness_violation_observed",
    "make_fairness_scorer",
]
