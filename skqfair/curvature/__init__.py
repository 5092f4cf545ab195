"""Gradients and curvature of the losses of groups, in torch."""

from skqfair.curvature._differentiable import differentiable_copy
from skqfair.curvature._eigenvalues import MAX_ITER, extreme_eigenvalues, group_hessian_eigenvalues
from skqfair.curvature._gradients import group_gradient_norms, mean_gradient
from skqfair.curvature._group_losses import Problem, evaluating, on_a_copy
from skqfair.curvature._hessian import Hessian
from skqfair.curvature._hessian_trace import group_hessian_trace, group_trace, trace_method
from skqfair.curvature._per_sample import (
    closed_form_holds,
    per_sample_gradient_norms,
    sample_square_norms,
)
from skqfair.curvature._second_derivative import check_second_derivative

__all__ = [
    "MAX_ITER",
    "Hessian",
    "Problem",
    "check_second_derivative",
    "closed_form_holds",
    "differentiable_copy",
    "evaluating",
    "extreme_eigenvalues",
    "group_gradient_norms",
    "group_hessian_eigenvalues",
    "group_hessian_trace",
    "group_trace",
    "mean_gradient",
    "on_a_copy",
    "per_sample_gradient_norms",
    "sample_square_norms",
    "trace_method",
]
