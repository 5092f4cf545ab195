r"""What needs gradients: norms and curvature at matched sizes, and the expansion of the excess loss.

With :math:`\Delta = \hat w - w`, to second order,

.. math:: J_a(\hat w) - J_a(w) \approx g_a^\top \Delta + \tfrac 12 \Delta^\top H_a \Delta
          = \sum_l \left( g_{a,l}^\top \Delta_l + \tfrac 12 \Delta_l^\top (H_a \Delta)_l \right),

one Hessian-vector product for each group and width. The norm of an empirical gradient is inflated by
sampling noise, :math:`\mathbb E \|\hat g\|^2 = \|g\|^2 + \mathrm{tr}(\Sigma) / n`; with the sample
covariance of the per-sample gradients that part is taken off (``gradient_norm_debiased``).
"""

import numpy as np
import torch

from skqfair.curvature import (
    MAX_ITER,
    Hessian,
    extreme_eigenvalues,
    group_trace,
    mean_gradient,
    on_a_copy,
    sample_square_norms,
)
from skqfair.exceptions import DoubleBackwardError

__all__ = ["MEASURES", "expand", "measure", "reason"]

MEASURES = [
    "gradient_norm",
    "gradient_norm_debiased",
    "hessian_max_eigenvalue",
    "hessian_min_eigenvalue",
    "hessian_trace",
]
_SMALL = 10_000  # weights up to which residuals are at most 0.1 %
_LOOSE = {"tol": 1e-2, "tol_smallest": 0.1}  # beyond: a third of the products; see the tests for errors


def measure(problems, n_eigenvalues):
    """Return the measures of one draw of one group, for every version.

    Parameters
    ----------
    problems : dict
        Version name to the Problem of the draw, with its ``trace_method``.
    n_eigenvalues : int
        Of the largest; 0 leaves curvature out.

    Returns
    -------
    dict
        Version name to (measures of shape (6,), with the square of the debiased norm and at last the
        standard error of the trace, largest eigenvalues of shape (k,), the reason why some are NaN or
        None, whether the eigenvalues converged).
    """
    found, start = {}, None
    for name, problem in problems.items():
        with on_a_copy(problem) as own:
            *result, vectors = _measure(own, n_eigenvalues, start)
        found[name] = result
        start = vectors if vectors is not None else start
    return found


def _measure(problem, n_eigenvalues, start):
    """Return the measures, the largest eigenvalues, an error or None, whether these converged, vectors.

    What a module of another's making raises is unknown: its columns are NaN, with the reason.
    """
    values, largest = np.full(len(MEASURES) + 1, np.nan), np.full(n_eigenvalues, np.nan)
    rows, converged, vectors = np.arange(len(problem.X)), True, None
    n = len(rows)
    try:
        hessian = Hessian(problem, rows) if n_eigenvalues and not problem.no_curvature else None
        gradient = hessian.gradient if hessian else mean_gradient(problem, rows)
        norm = float(torch.linalg.vector_norm(gradient.double()))
        squares = sample_square_norms(problem, rows)
        variance = (squares.sum() - n * norm**2) / max(n - 1, 1)
        values[:2] = norm, norm**2 - variance / n  # of a single draw it may be below 0
        if not hessian:
            return values, largest, problem.no_curvature, converged, vectors
        k = min(n_eigenvalues, problem.n_weights)
        tolerances = _LOOSE if problem.n_weights > _SMALL else {}
        options = {"largest": k, "smallest": 1, "max_iter": MAX_ITER, **tolerances}
        pairs = extreme_eigenvalues(hessian, start, **options)
        largest[:k], vectors, converged = pairs.values[:k], pairs.vectors, pairs.converged
        values[2:4] = largest[0], pairs.values[-1]
        values[4:] = group_trace(problem, rows, problem.trace_method, hessian)
    except ValueError:
        raise
    except Exception as error:
        return values, largest, reason(error), converged, vectors
    return values, largest, None, converged, vectors


def reason(error):
    """Return why something could not be computed, in a sentence."""
    return str(error) if isinstance(error, DoubleBackwardError) else f"{type(error).__name__}: {error}."


def expand(problem, changes):
    """Return the terms of the expansion of one group's loss, for some changes of the weights.

    Parameters
    ----------
    problem : Problem
        The group's samples, and the module before the change.
    changes : list of dict
        Parameter name to its change.

    Returns
    -------
    first, second : list of dict
        For each change, parameter name to its term of first order, and of second order (g'd + d'Hd / 2);
        NaN without a second derivative.
    error : str or None
    """
    directions = [
        torch.cat([change[name].reshape(-1) for name in problem.names]).to(problem.parameters[0])
        for change in changes
    ]
    products = [torch.zeros_like(d) for d in directions]
    gradient, error, n = torch.zeros_like(directions[0]), None, len(problem.X)
    with on_a_copy(problem) as own:
        try:
            for rows in own.batches(np.arange(n), double=True):
                part = Hessian(own, rows.numpy(), batches=[rows])
                gradient += part.gradient * (len(rows) / n)
                if own.no_curvature:
                    continue
                for product, direction in zip(products, directions, strict=True):
                    product += part(direction) * (len(rows) / n)
        except ValueError:
            raise
        except Exception as missing:  # as in _measure
            error = reason(missing)
            gradient = torch.full_like(gradient, torch.nan)
    if error or problem.no_curvature:
        products = [torch.full_like(d, torch.nan) for d in directions]
    first, second = [], []
    for direction, product in zip(directions, products, strict=True):
        linear, quadratic = gradient * direction, direction * product / 2
        first.append(_by_layer(problem, linear))
        second.append(_by_layer(problem, linear + quadratic))
    return first, second, error


def _by_layer(problem, terms):
    parts = zip(problem.names, problem.split(terms), strict=True)
    return {name: float(part.double().sum()) for name, part in parts}
