"""Intervals of group accuracies and of FVO, and the FVO that chance alone would show."""

import itertools
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.utils import check_random_state

__all__ = ["ChanceBand", "fvo_chance", "fvo_interval", "wilson_interval"]


class ChanceBand(NamedTuple):
    """FVO when every group has the same true accuracy.

    Parameters
    ----------
    mean : float
        Mean over the draws.
    quantile : float
        Quantile at the confidence level: an FVO up to here is not distinguishable from equal accuracy.
    """

    mean: float
    quantile: float


def wilson_interval(accuracy, n, level):
    """Return the Wilson score interval of proportions.

    Parameters
    ----------
    accuracy : ndarray
        Observed proportions.
    n : ndarray
        Sample sizes (effective ones with weights).
    level : float
        Confidence level of each interval.

    Returns
    -------
    low, high : ndarray
        Bounds in [0, 1].

    References
    ----------
    Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. JASA.
    """
    z2 = norm.ppf(0.5 + level / 2) ** 2
    centre = (accuracy + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (accuracy * (1 - accuracy) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def fvo_interval(low, high):
    """Return the interval of FVO from simultaneous intervals of the group accuracies.

    The lower bound is the largest lower bound less the smallest upper bound (at least 0), the upper
    bound the largest upper bound less the smallest lower bound.
    """
    if len(low) < 2:
        return 0.0, 0.0
    return max(0.0, float(low.max() - high.min())), float(high.max() - low.min())


def fvo_chance(counts, *, confidence=0.95, n_draws=1000, random_state=None):
    """Return mean and quantile of FVO when correctness is drawn at the overall accuracy.

    Parameters
    ----------
    counts : GroupCounts
        Group sizes and the overall accuracy. With weights correctness is drawn for each sample; the
        samples of equal group and weight are drawn together, as one binomial.
    confidence : float
        The quantile.
    n_draws : int
        Number of draws.
    random_state : int, RandomState or None
        Seed of the draws.

    Returns
    -------
    ChanceBand
    """
    rng = np.random.default_rng(check_random_state(random_state).randint(2**31 - 1))
    n_groups, overall = len(counts.count), float(np.clip(counts.overall_accuracy, 0, 1))
    if n_groups < 2:
        return ChanceBand(0.0, 0.0)
    if counts.samples is None:
        accuracy = rng.binomial(counts.count, overall, (n_draws, n_groups)) / counts.count
        gaps = np.ptp(accuracy, axis=1)
    else:
        cells = pd.DataFrame(dict(zip(("group", "weight"), counts.samples, strict=True)))
        cells = cells.groupby(["group", "weight"]).size().reset_index(name="size")
        size, weight = cells["size"].to_numpy(), cells["weight"].to_numpy(np.float32)
        # the cells are sorted by group: each group is one stretch
        bounds = np.searchsorted(cells["group"], np.arange(n_groups + 1))
        gaps = np.empty(n_draws)
        for i in range(n_draws):
            drawn = _draw_correct(rng, size, overall) * weight
            right = [drawn[a:b].sum(dtype=np.float64) for a, b in itertools.pairwise(bounds)]
            gaps[i] = np.ptp(right / counts.total)
    return ChanceBand(float(gaps.mean()), float(np.quantile(gaps, confidence)))


def _draw_correct(rng, size, probability):
    """Draw how many of ``size`` samples are correct; one uniform each where all sizes are 1."""
    if size.max() > 1:
        return rng.binomial(size, probability)
    return rng.random(len(size), dtype=np.float32) < probability
