"""Fairness of quantized neural classifiers, with scikit-learn's interface.

Submodules and names are imported when they are first used: metrics and displays never wait for torch.
"""

from typing import TYPE_CHECKING

from skqfair._lazy import lazily
from skqfair._version import __version__

if TYPE_CHECKING:  # what editors and type checkers read; _HOME below says the same to Python
    from skqfair.audit import CompressionAudit
    from skqfair.classifiers import (
        FairOffsetClassifier,
        FairQATClassifier,
        PrunedClassifier,
        QuantizedClassifier,
    )
    from skqfair.diagnostics import QuantizationDiagnostics
    from skqfair.metrics import fairness_violation_observed, make_fairness_scorer

__all__ = [
    "CompressionAudit",
    "FairOffsetClassifier",
    "FairQATClassifier",
    "PrunedClassifier",
    "QuantizationDiagnostics",
    "QuantizedClassifier",
    "__version__",
    "fairness_violation_observed",
    "make_fairness_scorer",
]

_HOME = {
    "CompressionAudit": "skqfair.audit",
    "FairOffsetClassifier": "skqfair.classifiers",
    "FairQATClassifier": "skqfair.classifiers",
    "PrunedClassifier": "skqfair.classifiers",
    "QuantizationDiagnostics": "skqfair.diagnostics",
    "QuantizedClassifier": "skqfair.classifiers",
    "fairness_violation_observed": "skqfair.metrics",
    "make_fairness_scorer": "skqfair.metrics",
}
_SUBMODULES = {
    "audit",
    "classifiers",
    "curvature",
    "datasets",
    "diagnostics",
    "displays",
    "exceptions",
    "export",
    "metrics",
    "mitigation",
    "networks",
    "parallel",
    "quantization",
    "storage",
}

__getattr__, __dir__ = lazily(__name__, __all__, _HOME, _SUBMODULES)
