"""Why quantization costs some groups more than others: reports by group and by layer."""

from skqfair.curvature import (
    group_gradient_norms,
    group_hessian_eigenvalues,
    group_hessian_trace,
    per_sample_gradient_norms,
)
from skqfair.diagnostics._transformer import QuantizationDiagnostics

__all__ = [
    "QuantizationDiagnostics",
    "group_gradient_norms",
    "group_hessian_eigenvalues",
    "group_hessian_trace",
    "per_sample_gradient_norms",
]
