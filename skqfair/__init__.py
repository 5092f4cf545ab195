"""Fairness of quantized neural classifiers, with scikit-learn's interface.

Submodules and names are imported when they are first used: metrics and displays never wait for torch.
"""

import importlib
from typing import TYPE_CHECKING

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
    "CompressionAudit": "audit",
    "FairOffsetClassifier": "classifiers",
    "FairQATClassifier": "classifiers",
    "PrunedClassifier": "classifiers",
    "QuantizationDiagnostics": "diagnostics",
    "QuantizedClassifier": "classifiers",
    "fairness_violation_observed": "metrics",
    "make_fairness_scorer": "metrics",
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


def __dir__():
    return sorted({*__all__, *_SUBMODULES})


def __getattr__(name):
    if name in _SUBMODULES:
        return importlib.import_module(f"skqfair.{name}")
    if name in _HOME:
        value = getattr(importlib.import_module(f"skqfair.{_HOME[name]}"), name)
        globals()[name] = value  # found without this function from now on
        return value
    raise AttributeError(f"module 'skqfair' has no attribute {name!r}; it has {', '.join(__all__)}")
