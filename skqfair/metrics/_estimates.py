"""Figures by group with their intervals: proportions, means, and anything else by a jackknife."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from skqfair.metrics._intervals import wilson_interval
from skqfair.metrics._samples import N_BLOCKS

__all__ = [
    "Estimate",
    "jackknife",
    "mean",
    "paired_interval",
    "proportion",
    "proportion_change",
    "range_change_interval",
    "weigh",
]


@dataclass(frozen=True)
class Estimate:
    """A figure of each group.

    Attributes
    ----------
    value : ndarray of shape (G,)
        NaN where a group has none.
    count : ndarray of int, shape (G,)
        Samples behind it.
    interval : callable
        Level to bounds, each of shape (G,).
    """

    value: np.ndarray
    count: np.ndarray
    interval: Callable


def weigh(samples, rows=None):
    """Return count, total weight and effective sample size (Kish's) of each group, over some rows."""
    codes, n_groups = samples.groups.codes, samples.n_groups
    codes = codes if rows is None else codes[rows]
    count = np.bincount(codes, minlength=n_groups)
    if samples.weights is None:
        return count, count.astype(float), count.astype(float)
    weights = samples.weights if rows is None else samples.weights[rows]
    total = np.bincount(codes, weights, n_groups)
    squares = np.bincount(codes, weights**2, n_groups)
    return count, total, _ratio(total**2, squares)


def _sums(samples, rows, values):
    """Return the weighted sum over each group of values, given for the rows."""
    codes, weights = samples.groups.codes, samples.weights
    if rows is not None:
        codes, weights = codes[rows], None if weights is None else weights[rows]
    return np.bincount(codes, values if weights is None else values * weights, samples.n_groups)


def _ratio(a, b):
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)


def proportion(samples, event, rows=None):
    """Return the share of an event among some rows, with Wilson's interval."""
    count, total, effective = weigh(samples, rows)
    value = _ratio(_sums(samples, rows, event if rows is None else event[rows]), total)
    n = np.where(count > 0, effective, np.nan)
    return Estimate(value, count, lambda level: wilson_interval(value, n, level))


def paired_interval(gained, lost, n, level):
    """Return Bonett and Price's interval of (gained - lost) / n, which always holds the estimate."""
    z = norm.ppf(0.5 + level / 2)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = z * np.sqrt((up + down - (up - down) ** 2) / (n + 2))
    change = (gained - lost) / n
    low, high = np.clip(up - down - half, -1, 1), np.clip(up - down + half, -1, 1)
    return np.minimum(low, change), np.maximum(high, change)


def proportion_change(samples, before, after, rows=None):
    """Return how the share of an event changed, paired, with Bonett and Price's interval."""
    count, total, effective = weigh(samples, rows)
    if rows is not None:
        before, after = before[rows], after[rows]
    gained = _ratio(_sums(samples, rows, after & ~before), total)
    lost = _ratio(_sums(samples, rows, before & ~after), total)
    n = np.where(count > 0, effective, np.nan)
    return Estimate(gained - lost, count, lambda level: paired_interval(gained * n, lost * n, n, level))


def mean(samples, values):
    """Return the mean of values, with Student's interval."""
    count, total, effective = weigh(samples)
    value = _ratio(_sums(samples, None, values), total)
    residual = np.square(values - value[samples.groups.codes])
    variance = _ratio(_sums(samples, None, residual), total)
    error = np.sqrt(_ratio(variance, np.where(effective > 1, effective - 1, 0)))
    return Estimate(value, count, _student(value, error, effective - 1))


def jackknife(count, value, replicates):
    """Return a figure with Student's interval from values that each lack one block, shape (20, G)."""
    blocks = np.minimum(count, N_BLOCKS)
    used = np.arange(N_BLOCKS)[:, None] < blocks
    if (used & ~np.isfinite(replicates)).any():
        replicates = np.where(used & ~np.isfinite(replicates), np.nan, replicates)
    replicates = np.where(used, replicates, 0)
    centre = _ratio(replicates.sum(axis=0), blocks)
    squares = np.where(used, np.square(replicates - centre), 0).sum(axis=0)
    error = np.where(blocks > 1, np.sqrt(_ratio((blocks - 1) * squares, blocks)), np.nan)
    return Estimate(value, count, _student(value, error, blocks - 1))


def _student(value, error, freedom):
    freedom = np.where(freedom > 0, freedom, np.nan)

    def interval(level):
        half = t.ppf(0.5 + level / 2, freedom) * error
        return value - half, value + half

    return interval


def range_change_interval(before, change, after):
    r"""Return bounds of how a largest difference between groups changed, from bounds of its parts.

    The upper bound is the largest :math:`\mathrm{range}(q) - \mathrm{range}(p)` over :math:`p_a`,
    :math:`q_a` and :math:`q_a - p_a` within their bounds; the lower bound is the same with before and
    after exchanged. Where the bounds hold together at a confidence level, so does the interval, for any
    number of groups.

    Parameters
    ----------
    before, change, after : pair of ndarray of shape (G,)
        Bounds of p, q - p and q.

    Returns
    -------
    low, high : float
        NaN if any bound is.
    """
    if len(change[0]) < 2:
        return 0.0, 0.0
    if not all(np.isfinite(bound).all() for pair in (before, change, after) for bound in pair):
        return np.nan, np.nan
    back = (-change[1], -change[0])
    return -_largest_growth(after, back, before), _largest_growth(before, change, after)


def _largest_growth(before, change, after):
    """Maximise q_i - q_j - (max p - min p) over groups i, j and all that the bounds allow.

    With max p = M and min p = m, group i reaches min(its largest q, M + its largest change), so that
    each part falls with M and rises with m: the best M is the largest lower bound of p, the best m the
    smallest upper bound. Where these cross, M = m, at an end or where one of the parts bends.
    """
    (low, high), (least, most) = before, change
    low, high = np.maximum(low, after[0] - most), np.minimum(high, after[1] - least)
    reach = np.minimum(after[1], high + most)  # the largest q of each group
    depth = np.maximum(after[0], low + least)  # the smallest
    top, bottom = low.max(), high.min()
    if top < bottom:
        bends = np.concatenate([reach - most, depth - least, [top, bottom]])
        top = bottom = np.clip(bends, top, bottom)
    up = np.minimum(reach - np.atleast_1d(top)[:, None], most)
    down = np.minimum(np.atleast_1d(bottom)[:, None] - depth, -least)
    i, j = (np.argsort(-part, axis=1)[:, :2] for part in (up, down))  # the two best: i and j differ
    pairs = np.take_along_axis(up, i, 1)[:, :, None] + np.take_along_axis(down, j, 1)[:, None, :]
    return float(np.where(i[:, :, None] != j[:, None, :], pairs, -np.inf).max())
