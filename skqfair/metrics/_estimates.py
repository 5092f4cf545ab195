"""Figures by group with their intervals: proportions, means, and anything else by a jackknife."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from skqfair.metrics._intervals import exact_interval
from skqfair.metrics._samples import N_BLOCKS, ratio

__all__ = [
    "Estimate",
    "guard",
    "guarded",
    "guarded_mean",
    "jackknife",
    "paired_interval",
    "proportion",
    "proportion_change",
    "range_change_interval",
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


def proportion(samples, event, true=None):
    """Return the share of an event among all rows, or those of a true label, with its exact interval."""
    part = samples.part(true)
    value, n = part.share(part.pick(event)), np.where(part.count > 0, part.effective, np.nan)
    return Estimate(value, part.count, lambda level: exact_interval(value, n, level))


def paired_interval(gained, lost, n, level):
    """Return Bonett and Price's interval of (gained - lost) / n, which always holds the estimate."""
    z = ndtri(0.5 + level / 2)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = z * np.sqrt((up + down - (up - down) ** 2) / (n + 2))
    change = (gained - lost) / n
    low, high = np.clip(up - down - half, -1, 1), np.clip(up - down + half, -1, 1)
    return np.minimum(low, change), np.maximum(high, change)


def proportion_change(samples, before, after, true=None):
    """Return how the share of an event changed, paired, with Bonett and Price's interval."""
    part = samples.part(true)
    before, after = part.pick(before), part.pick(after)
    gained, lost = part.share(after & ~before), part.share(before & ~after)
    n = np.where(part.count > 0, part.effective, np.nan)
    return Estimate(
        gained - lost, part.count, lambda level: paired_interval(gained * n, lost * n, n, level)
    )


def guarded_mean(samples, losses, others, least=-np.inf):
    """Return the mean of losses, with an interval that reckons with large ones which were not seen.

    ``others`` are the losses had each label been another one. As Agresti and Coull do with
    proportions, which the mean of losses of 0 and 1 is, z^2 / 2 samples are added as they are, and as
    many with other labels; Student's interval of these always holds the observed mean.
    """
    part = samples.part()
    own, other = part.mean(losses), part.mean(others)
    squares = part.mean(np.square(losses)), part.mean(np.square(others))

    def interval(level):
        extra, half = guard(part.effective, level, *squares, (own, other))
        centre = (1 - extra) * own + extra * other
        return np.clip(centre - half, least, own), np.maximum(centre + half, own)

    return Estimate(own, part.count, interval)


def guard(n, level, own, other, means=None):
    """Return the share of samples with other labels, and half the length of Student's interval.

    ``own`` and ``other`` are mean squares; the ``means`` are taken off where they are given.
    """
    added, extra = _others(n, level)
    variance = (1 - extra) * own + extra * other
    if means is not None:
        variance = np.maximum(variance - ((1 - extra) * means[0] + extra * means[1]) ** 2, 0)
    freedom = np.where(n > 1, n - 1, np.nan)
    return extra, stdtrit(freedom, 0.5 + level / 2) * np.sqrt(variance / (n + 2 * added))


def _others(n, level):
    """Return how many samples with other labels are added, and their share of all."""
    added = ndtri(0.5 + level / 2) ** 2 / 2
    return added, added / (n + 2 * added)


def guarded(estimate, other, n):
    """Return a figure whose interval reckons with the ``other`` one that other labels would give.

    Its centre is moved, and its variance increased, as :func:`guarded_mean` does for means.
    """
    other = np.where(np.isfinite(other), other, estimate.value)

    def interval(level):
        low, high = estimate.interval(level)
        added, extra = _others(n, level)
        centre = (1 - extra) * estimate.value + extra * other
        between = np.abs(other - estimate.value) * np.sqrt(extra * (1 - extra) / (n + 2 * added))
        half = np.hypot((high - low) / 2, stdtrit(np.maximum(n - 1, 1), 0.5 + level / 2) * between)
        return np.minimum(centre - half, estimate.value), np.maximum(centre + half, estimate.value)

    return Estimate(estimate.value, estimate.count, interval)


def jackknife(count, value, replicates):
    """Return a figure with Student's interval from values that each lack one block, shape (20, G)."""
    blocks = np.minimum(count, N_BLOCKS)
    used = np.arange(N_BLOCKS)[:, None] < blocks
    if (used & ~np.isfinite(replicates)).any():
        replicates = np.where(used & ~np.isfinite(replicates), np.nan, replicates)
    replicates = np.where(used, replicates, 0)
    centre = ratio(replicates.sum(axis=0), blocks)
    squares = np.where(used, np.square(replicates - centre), 0).sum(axis=0)
    error = np.where(blocks > 1, np.sqrt(ratio((blocks - 1) * squares, blocks)), np.nan)
    return Estimate(value, count, _student(value, error, blocks - 1))


def _student(value, error, freedom):
    freedom = np.where(freedom > 0, freedom, np.nan)

    def interval(level):
        half = stdtrit(freedom, 0.5 + level / 2) * error
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
