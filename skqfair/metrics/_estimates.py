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

    With :math:`p \in [L, U]` before, :math:`q \in [L', U']` after and :math:`d = q - p \in [l, u]`, all
    at once, :math:`\mathrm{range}(q) - \mathrm{range}(p) \le \max_{i \ne j} [u_i - l_j - (\max L -
    U_i)^+ - (L_j - \min U)^+]`: group i can be the highest before only as far as its bounds reach, j the
    lowest.
    The lower bound is the same with before and after exchanged.

    Parameters
    ----------
    before, change, after : pair of ndarray of shape (G,)
        Bounds that hold together at the wanted level.

    Returns
    -------
    low, high : float
        NaN if any bound is.
    """
    if len(change[0]) < 2:
        return 0.0, 0.0
    down = (-change[1], -change[0])
    return -_largest_growth(after, down), _largest_growth(before, change)


def _largest_growth(box, change):
    (low, high), (least, most) = box, change
    top = most - np.maximum(low.max() - high, 0)
    bottom = least + np.maximum(low - high.min(), 0)
    growth = top[:, None] - bottom
    np.fill_diagonal(growth, -np.inf)
    return float(growth.max())
