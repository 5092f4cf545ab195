"""Which samples gradients and curvature are computed on, and the computation, in parallel."""

from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from tqdm.auto import tqdm

from skqfair._warnings import warn
from skqfair.curvature import (
    MAX_ITER,
    check_second_derivative,
    closed_form_holds,
    evaluating,
    trace_method,
)
from skqfair.diagnostics._derivatives import expand, measure, reason
from skqfair.diagnostics._layers import weight_changes
from skqfair.exceptions import NoCurvatureWarning, SmallGroupWarning

__all__ = ["Derivatives", "derive"]

N_DRAWS = 5
_ENOUGH = 64  # samples from which on gradients and curvature of a group say something


@dataclass
class Derivatives:
    """What was computed, for every version and group.

    Attributes
    ----------
    n_matched : ndarray of shape (G,)
        Samples of each draw.
    measured : dict of list of ndarray
        Version name to the measures of each group, shape (draws, 6).
    eigenvalues : dict of list of ndarray
        Version name to the largest eigenvalues of each group, shape (draws, k).
    expansions : dict of list of tuple
        Version name to the terms of each group, of first and of second order: parameter name to value.
    """

    n_matched: np.ndarray
    measured: dict
    eigenvalues: dict
    expansions: dict


def derive(
    versions, problems, groups, *, n_eigenvalues, match, max_samples, seed, n_jobs=None, verbose=0
):
    """Compute what needs gradients, in parallel over draws and groups.

    Each draw of a group goes through all versions, so that one's eigenvectors start the next.
    """
    rng = np.random.default_rng(seed)
    drawn = draw_rows(groups, N_DRAWS, match=match, max_samples=max_samples, rng=rng)
    n_matched = np.array([len(rows[0]) for rows in drawn])
    _warn_of_small(groups, n_matched, match, max_samples)
    first, *others = problems.values()
    with evaluating(first.module):  # asked once, the draws remember
        try:
            closed_form_holds(first)
            check_second_derivative(first)
            if n_eigenvalues:
                trace_method(first)
        except ValueError:
            raise
        except Exception as error:  # what a module of another's making raises is unknown
            first.no_curvature = reason(error)
    for problem in others:  # the same network with other weights
        problem.closed_form, problem.trace_method = first.closed_form, first.trace_method
        problem.no_curvature = first.no_curvature
    tasks, keys = [], []
    for g, draws in enumerate(drawn):
        for rows in draws:
            some = {name: problem.subset(rows) for name, problem in problems.items()}
            tasks.append(delayed(measure)(some, n_eigenvalues))
            keys.append((g, None))
    rest = draw_rows(groups, 1, match=False, max_samples=max_samples, rng=rng)
    for origin in {version.origin for version in versions} - {None}:
        names = [version.name for version in versions if version.origin == origin]
        changes = [weight_changes(problems[origin].module, problems[name].module) for name in names]
        whole = problems[origin].by_all_weights()  # frozen weights are rounded too
        for g, (rows,) in enumerate(rest):
            tasks.append(delayed(expand)(whole.subset(rows), changes))
            keys.append((g, names))

    # nothing was rounded in the float net; what made the latent weights is not rounding
    weights = [name for name, _ in first.module.named_parameters()]
    nothing = {name: dict.fromkeys(weights, np.nan) for name in problems}
    nothing["float"] = dict.fromkeys(weights, 0.0)
    measured = {name: [[] for _ in drawn] for name in problems}
    eigenvalues = {name: [[] for _ in drawn] for name in problems}
    expansions = {name: [(nothing[name], nothing[name])] * len(drawn) for name in problems}
    errors, unconverged = {first.no_curvature}, set()
    run = Parallel(n_jobs=n_jobs, return_as="generator")
    results = tqdm(run(tasks), total=len(tasks), desc="diagnostics", disable=not verbose)
    for (g, names), result in zip(keys, results, strict=True):
        if names is None:
            for name, (values, largest, error, converged) in result.items():
                measured[name][g].append(values)
                eigenvalues[name][g].append(largest)
                errors.add(error)
                if not converged:
                    unconverged.add(f"{groups.index[g]!r} at {name}")
        else:
            *terms, error = result
            errors.add(error)
            for name, *own in zip(names, *terms, strict=True):
                expansions[name][g] = tuple(own)
    for error in errors - {None}:
        warn(f"{error} What needs it is NaN.", NoCurvatureWarning)
    if unconverged:
        warn(
            f"{MAX_ITER} products were not enough for the eigenvalues of {sorted(unconverged)}; they "
            "are bounds: the largest is larger, the smallest smaller.",
            ConvergenceWarning,
        )
    return Derivatives(n_matched, _stacked(measured), _stacked(eigenvalues), expansions)


def draw_rows(groups, n_draws, *, match, max_samples, rng):
    """Draw the samples of each group: as many as the smallest group has, or up to ``max_samples``.

    Returns
    -------
    list of list of ndarray
        For each group its draws. A group that has no more samples than needed has one draw, all of it.
    """
    sizes = groups.counts
    limit = min(sizes) if match else max(sizes)
    limit = limit if max_samples is None else min(limit, max_samples)
    drawn = []
    for g, size in enumerate(sizes):
        rows = np.flatnonzero(groups.codes == g)
        if size <= limit:
            drawn.append([rows])
            continue
        n = n_draws if match else 1
        drawn.append([np.sort(rng.choice(rows, limit, replace=False)) for _ in range(n)])
    return drawn


def _stacked(found):
    return {name: [np.stack(draws) for draws in by_groups] for name, by_groups in found.items()}


def _warn_of_small(groups, n_matched, match, max_samples):
    sizes = zip(groups.index, groups.counts, strict=True)
    small = [f"{name!r} ({n})" for name, n in sizes if n < _ENOUGH]
    if max_samples is not None and max_samples < min(_ENOUGH, *groups.counts.tolist()):
        text = f"max_samples is {max_samples}; gradients and curvature of so few are noisy. Raise it."
    elif small and len(n_matched) > 1:
        what = f"all groups are compared on {min(n_matched)} samples; " if match else ""
        text = (
            f"groups with fewer than {_ENOUGH} samples: {', '.join(small)}; {what}gradients and "
            "curvature of so few are noisy. Merge or drop these groups."
        )
    else:
        return
    warn(text, SmallGroupWarning)
