"""Counts of folds added up: accuracy and gaps between groups of all out-of-fold predictions."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from skqfair.metrics._counts import GroupCounts
from skqfair.metrics._intervals import (
    check_confidence,
    equal_accuracy_draws,
    exact_interval,
    fvo_chance,
    fvo_interval,
)

__all__ = [
    "CORRECT",
    "DIFFERENCES",
    "FOUND",
    "POSITIVE",
    "SAMPLES",
    "SELECTED",
    "has_counts",
    "pooled_report",
]

SAMPLES, CORRECT = "n_samples[{}]".format, "n_correct[{}]".format
"""Names of the counts of a group among the scores."""

POSITIVE = "n_positive[{}]".format
SELECTED, FOUND = "n_predicted_positive[{}]".format, "n_true_positive[{}]".format
"""With two classes, those of the second one: samples, predictions, and predictions that are right."""

DIFFERENCES = [
    "selection_rate_difference",
    "true_positive_rate_difference",
    "false_positive_rate_difference",
]
"""Largest differences between groups that the counts of two classes give."""


def pooled_report(cv_results, *, confidence=0.95, random_state=0):
    r"""Return FVO and accuracy by group of all out-of-fold predictions, one row for each candidate.

    The counts of the folds are added; each prediction counts as one sample in the intervals, so that
    these are too narrow where the splits repeat samples.

    Parameters
    ----------
    cv_results : dict
        ``cv_results_`` of a search, or what ``cross_validate`` returns, with
        :func:`fairness_counts_scorer` as ``scoring``.
    confidence : float, default=0.95
        Confidence level of the interval and of the range of chance.
    random_state : int, RandomState or None, default=0
        Seed of the draws behind ``fvo_chance``.

    Returns
    -------
    DataFrame
        What a search varied, its ``param_*``; ``accuracy`` of all predictions; ``fvo``, ``fvo_low``,
        ``fvo_high``, ``fvo_chance`` and ``worst_accuracy`` as in :func:`model_report`; and
        ``accuracy[a]`` for each group a, nan where it has no sample. With two classes also
        ``selection_rate_difference``, ``true_positive_rate_difference`` and
        ``false_positive_rate_difference``, the largest between two groups that have such samples, of
        the second class, sorted: the first is fairlearn's ``demographic_parity_difference``, the larger
        of the others its ``equalized_odds_difference``. A row is nan where a fit failed.

    Raises
    ------
    ValueError
        If the results have no counts.

    Examples
    --------
    >>> from skqfair.metrics import pooled_report
    >>> report = pooled_report({
    ...     "test_n_samples[f]": [2, 6], "test_n_correct[f]": [2, 5],
    ...     "test_n_samples[m]": [10, 10], "test_n_correct[m]": [9, 9]})
    >>> report[["fvo", "accuracy[f]", "accuracy[m]"]]
         fvo  accuracy[f]  accuracy[m]
    0  0.025        0.875          0.9
    """
    check_confidence(confidence)
    samples, correct = (_sums(cv_results, key) for key in (SAMPLES, CORRECT))
    if not samples:
        raise ValueError(
            "cv_results has no counts by group; give the search (or cross_validate) scoring="
            f"skqfair.metrics.fairness_counts_scorer(...). It has {sorted(map(str, cv_results))[:12]}."
        )
    groups = sorted(samples)
    n, right = (np.stack([sums[group] for group in groups], 1) for sums in (samples, correct))
    accuracy = _share(right, n)
    figures = [_figures(*counts, confidence, random_state) for counts in zip(n, right, strict=True)]
    names = ["fvo", "fvo_low", "fvo_high", "fvo_chance", "worst_accuracy"]
    report = pd.DataFrame(figures, columns=names)
    searched = [name for name in cv_results if name.startswith("param_")]
    for place, name in enumerate(searched):
        report.insert(place, name, np.ma.filled(np.ma.asarray(cv_results[name], dtype=object), np.nan))
    report.insert(len(searched), "accuracy", _share(right.sum(1), n.sum(1)))
    report[[f"accuracy[{group}]" for group in groups]] = accuracy
    positive, selected, found = (_sums(cv_results, key) for key in (POSITIVE, SELECTED, FOUND))
    if positive:
        p, s, f = (np.stack([t[group] for group in groups], 1) for t in (positive, selected, found))
        for name, part, whole in zip(DIFFERENCES, (s, f, s - f), (n, p, n - p), strict=True):
            report[name] = _largest_difference(part, whole)
    report.attrs["confidence"] = confidence
    return report


def _share(part, whole):
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _largest_difference(part, whole):
    rates = _share(part, whole)
    known = np.isfinite(rates)
    highest = np.where(known, rates, -np.inf).max(1)
    spread = highest - np.where(known, rates, np.inf).min(1)
    return np.where(known.any(1), spread, np.nan)


def _figures(n, right, confidence, random_state):
    if not n.any() or np.isnan(n).any() or np.isnan(right).any():
        return [np.nan] * 5
    n, right = n[n > 0].astype(np.int64), right[n > 0].astype(np.int64)
    counts = GroupCounts(pd.RangeIndex(len(n)), n, n, right, n.astype(float))
    interval = fvo_interval(*exact_interval(counts.accuracy, n, 1 - (1 - confidence) / len(n)))
    chance = fvo_chance(equal_accuracy_draws(counts, random_state=random_state), confidence=confidence)
    return [counts.fvo, *interval, chance.quantile, counts.accuracy.min()]


def has_counts(cv_results):
    """Tell whether results hold the counts of :func:`fairness_counts_scorer`.

    Parameters
    ----------
    cv_results : dict
        As in :func:`pooled_report`.

    Returns
    -------
    bool
        True if :func:`pooled_report` has something to add up.
    """
    return bool(_sums(cv_results, SAMPLES))


def _sums(cv_results, key):
    """Return the sums over folds of the counts of each group, one for each candidate."""
    if not isinstance(cv_results, Mapping):
        raise TypeError(
            f"cv_results must be a dict, cv_results_ of a search or what cross_validate returns; got "
            f"{type(cv_results).__name__}."
        )
    before, after = key("\0").split("\0")
    sums = {}
    for name, values in cv_results.items():
        fold, found, rest = str(name).partition(f"test_{before}")
        if not found or not rest.endswith(after):
            continue
        values, group = np.asarray(values, dtype=float), rest.removesuffix(after)
        if fold.startswith("split"):  # a search: one array for each fold
            sums[group] = sums.get(group, 0) + values
        elif not fold:  # cross_validate: one array of all folds
            sums[group] = values.sum(keepdims=True)
    return sums
