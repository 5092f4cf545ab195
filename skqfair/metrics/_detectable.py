"""The smallest gaps and losses that groups of these sizes can show."""

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import binom, chi2, ncx2, norm

from skqfair.metrics._estimates import proportion

__all__ = ["detectable_table"]


def detectable_table(samples, before, after, confidence, power=0.8):
    """Return the smallest gap and loss of each group that would be established with some power.

    ``gap``: of one group against all others, at equal accuracy of these, by the test of equal accuracy
    (noncentral chi-square). ``loss``: of accuracy against the reference, where the share of gained
    samples is as observed, by the paired interval of the group (exact binomial sums).
    """
    count, n = samples.part().count, samples.part().effective
    accuracy = float(np.average(after.correct, weights=samples.weights))
    gained = proportion(samples, after.correct & ~before.correct).value
    level = 1 - (1 - confidence) / len(n)
    gap = [_gap(size, n.sum(), len(n), accuracy, confidence, power) for size in n]
    loss = [_loss(int(size), share, level, power) for size, share in zip(n, gained, strict=True)]
    return pd.DataFrame({"count": count, "gap": gap, "loss": loss}, index=samples.groups.index)


def _gap(n, total, n_groups, accuracy, confidence, power):
    """Solve the power of the chi-square test for the gap of one group; NaN where none is that large."""
    spread = accuracy * (1 - accuracy)
    if n_groups < 2 or spread <= 0:
        return np.nan
    critical = chi2.ppf(confidence, n_groups - 1)
    needed = brentq(lambda c: ncx2.sf(critical, n_groups - 1, c) - power, 1e-6, 1e4)
    gap = np.sqrt(needed * spread / (n * (1 - n / total)))
    return gap if gap <= max(accuracy, 1 - accuracy) else np.nan


def _loss(n, gained, level, power):
    """Solve the power of the paired interval for the net loss; NaN where none can be shown."""
    largest = 1 - gained

    def short(loss):
        return _power(n, gained, min(gained + loss, largest), level) - power

    if short(largest - gained) < 0:
        return np.nan
    return brentq(short, 1e-12, largest - gained, xtol=1e-6)


def _power(n, gained, lost, level):
    """Return the probability that the upper bound of the change of accuracy is below 0."""
    z2 = norm.ppf(0.5 + level / 2) ** 2
    first, last = binom.ppf([1e-9, 1 - 1e-9], n, gained)
    g = np.unique(np.linspace(first, last, 400).round())
    # (lost - gained)^2 (1 + z2 / (n + 2)) > z2 (lost + gained + 2), solved for lost - gained
    a = 1 + z2 / (n + 2)
    least = g + np.floor((z2 + np.sqrt(z2**2 + 8 * a * z2 * (g + 1))) / (2 * a)) + 1
    each = binom.pmf(g, n, gained)
    rate = min(lost / (1 - gained), 1.0) if gained < 1 else 0.0
    return float(each @ binom.sf(least - 1, n - g, rate) / each.sum())
