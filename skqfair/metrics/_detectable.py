"""The smallest gaps and losses that groups of these sizes can show."""

import numpy as np
import pandas as pd
from scipy.special import betainc, chdtri, gammaln, ndtr, ndtri, xlog1py, xlogy

from skqfair.metrics._estimates import proportion

__all__ = ["detectable_table"]

_POINTS = 101  # that a power is summed over


def detectable_table(samples, before, after, confidence, power=0.8):
    """Return the smallest gap and loss of each group that would be established with some power.

    ``gap``: how much worse than all others, who are equally accurate, one group is where the test of
    equal accuracy rejects. ``loss``: of accuracy against the reference, where the share of gained
    samples is as observed, by the paired interval of the group (binomial sums).
    """
    count, n = samples.part().count, samples.part().effective
    accuracy = float(np.average(after.correct, weights=samples.weights))
    gained = proportion(samples, after.correct & ~before.correct).value
    level = 1 - (1 - confidence) / len(n)
    gap = _gap(n, accuracy, confidence, power)
    loss = _loss(np.floor(n), gained, level, power)
    return pd.DataFrame({"count": count, "gap": gap, "loss": loss}, index=samples.groups.index)


def _gap(n, accuracy, confidence, power):
    """Solve the power of the chi-square test for how much worse one group is; NaN where none shows.

    The statistic is the square of the group's standardised difference from the others, of another
    variance than without a gap, plus what the others scatter, a chi-square.
    """
    rest = n.sum() - n
    if len(n) < 2 or not 0 < accuracy < 1:
        return np.full(len(n), np.nan)
    critical = chdtri(len(n) - 1, 1 - confidence)
    parts = (np.arange(_POINTS) + 0.5) / _POINTS
    scatter = chdtri(len(n) - 2, parts) if len(n) > 2 else np.zeros(1)

    def missing(gap):
        """Return by how much the probability that the test rejects falls short."""
        own, others = (p * (1 - p) for p in (accuracy - gap, accuracy))
        whole = accuracy - gap * n / n.sum()
        expected = whole * (1 - whole)
        error = np.sqrt(expected * (1 / n + 1 / rest))
        ratio = np.sqrt(own / n + others / rest) / error
        least = np.sqrt(np.maximum(critical - scatter * (others / expected)[:, None], 0))
        shown = ndtr(((gap / error)[:, None] - least) / ratio[:, None])
        return power - shown.mean(axis=1)

    largest = np.full(len(n), accuracy)
    gap = _bisect(missing, np.zeros(len(n)), largest, steps=30)
    return np.where(missing(largest) <= 0, gap, np.nan)


def _loss(n, gained, level, power):
    """Solve the power of the paired interval for the net loss; NaN where none can be shown."""
    largest = np.maximum(1 - 2 * gained, 0)
    g, weights = _binomial(n, gained)
    # (lost - gained)^2 (1 + z2 / (n + 2)) > z2 (lost + gained + 2), solved for lost - gained
    z2, size = ndtri(0.5 + level / 2) ** 2, n[:, None]
    a = 1 + z2 / (size + 2)
    least = g + np.floor((z2 + np.sqrt(z2**2 + 8 * a * z2 * (g + 1))) / (2 * a)) + 1

    def missing(loss):
        """Return by how much the probability that the upper bound is below 0 falls short."""
        lost = np.minimum(gained + loss, 1 - gained)
        rate = np.divide(lost, 1 - gained, out=np.zeros_like(lost), where=gained < 1)
        shown = _at_least(least, size - g, np.minimum(rate, 1)[:, None])
        return power - (weights * shown).sum(axis=1)

    loss = _bisect(missing, np.zeros(len(n)), largest, steps=22)
    return np.where(missing(largest) <= 0, loss, np.nan)


def _binomial(n, share):
    """Return counts that a binomial has, shape (G, points), and their probabilities, summing to 1."""
    mean, spread = n * share, np.sqrt(n * share * (1 - share))
    reach = 7 * spread + 12
    ends = np.clip([mean - reach, mean + reach], 0, n)
    counts = np.linspace(*ends, _POINTS, axis=1).round()
    size, p = n[:, None], share[:, None]
    logs = xlogy(counts, p) + xlog1py(size - counts, -p)
    logs += gammaln(size + 1) - gammaln(counts + 1) - gammaln(size - counts + 1)
    first = np.diff(counts, axis=1, prepend=-1) > 0  # each count once
    weights = np.where(first, np.exp(logs), 0)
    return counts, weights / weights.sum(axis=1, keepdims=True)


def _at_least(least, n, rate):
    """Return the probability that a binomial is at least so large."""
    possible = least <= n
    found = betainc(np.where(possible, least, 1), np.where(possible, n - least + 1, 1), rate)
    return np.where(possible, found, 0.0)


def _bisect(function, low, high, steps):
    """Return where a falling function is 0."""
    for _ in range(steps):
        middle = (low + high) / 2
        above = function(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return high
