"""Why quantization costs some groups more than others: reports by group and by layer."""

from skqfair.curvature import (
    group_gradient_norms,
    group_hessian_eigenvalues,
    group_hessian_trace,
    per_sample_gradient_norms,
)
from skqfair.diagnostics._transformer import QuantizationDiagnostics
from skqfair.diagnostics._versions import Version

__all__ = [
    "QuantizationDiagnostics",
    "group_gradient_norms",
    "group_hessian_eigenvalues",
    "group_hessian_trace",
    "per_sample_gradient_norms",
]

QuantizationDiagnostics.__module__ = "skqfair"  # the names in saved files, which no move changes
Version.__module__ = "skqfair.diagnostics"
