"""Accuracy and FVO along a path of models, from counts."""

import numpy as np
import pandas as pd

from skqfair.metrics._intervals import check_confidence, exact_interval

__all__ = ["accuracy_frontier"]


def accuracy_frontier(strengths, correct, total, *, groups, effective=None, confidence=0.95):
    r"""Return accuracy, FVO and the worst group of models along a path, with intervals.

    The interval of the accuracy is exact; those of FVO and of the worst group come from intervals of
    all groups at level :math:`1 - (1 - \mathrm{confidence}) / G`, as in :func:`group_report`. They hold
    for each model by itself, not for the one that looks best on these samples.

    Parameters
    ----------
    strengths : array of shape (T,)
        What tells the models apart.
    correct : array of shape (T, G)
        Samples of each group that each model predicts right, or the sum of their weights.
    total : array of shape (G,)
        Samples of each group, or the sum of their weights.
    groups : pandas.Index of length G
        Names of the groups.
    effective : array of shape (G,), optional
        Kish's effective sizes, with weights; None is ``total``.
    confidence : float, default=0.95
        Confidence level.

    Returns
    -------
    DataFrame
        Columns ``strength``, and each with ``_low`` and ``_high``: ``accuracy``, ``fvo``,
        ``worst_accuracy``; and ``worst_group``.

    Raises
    ------
    ValueError
        For a confidence outside (0, 1), shapes that do not fit, and counts that are none.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqfair.metrics import accuracy_frontier
    >>> table = accuracy_frontier([0, 1], [[9, 5], [8, 7]], [10, 10], groups=pd.Index(["a", "b"]))
    >>> table[["strength", "accuracy", "fvo", "worst_group"]].round(2)
       strength  accuracy  fvo worst_group
    0         0      0.70  0.4           b
    1         1      0.75  0.1           b
    """
    check_confidence(confidence)
    strengths, groups = _listed(strengths, "strengths"), _listed(groups, "groups")
    correct = _counts(correct, "correct", (len(strengths), len(groups)))
    total = _counts(total, "total", (len(groups),), positive=True)
    effective = (
        total if effective is None else _counts(effective, "effective", total.shape, positive=True)
    )
    if (correct > total * (1 + 1e-9)).any():
        raise ValueError("correct must be at most total in each group; are rows models, columns groups?")
    each, overall = correct / total, correct.sum(1) / total.sum()
    size = total.sum() ** 2 / (total**2 / effective).sum()
    low, high = exact_interval(overall, size, confidence)
    lows, highs = exact_interval(each, effective, 1 - (1 - confidence) / len(total))
    worst, rows = each.argmin(1), np.arange(len(each))
    names = [", ".join(map(str, name)) if isinstance(name, tuple) else name for name in groups]
    table = pd.DataFrame(
        {
            "strength": strengths,
            "accuracy": overall,
            "accuracy_low": low,
            "accuracy_high": high,
            "fvo": np.ptp(each, axis=1),
            "fvo_low": np.maximum(0, lows.max(1) - highs.min(1)),
            "fvo_high": highs.max(1) - lows.min(1),
            "worst_group": [names[i] for i in worst],
            "worst_accuracy": each[rows, worst],
            "worst_accuracy_low": lows.min(1),
            "worst_accuracy_high": highs.min(1),
        }
    )
    table.attrs["confidence"] = confidence
    return table


def _listed(values, name):
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__") or not len(list(values)):
        raise ValueError(f"{name} must be a sequence of at least one entry, got {values!r:.60}.")
    return values if isinstance(values, pd.Index) else list(values)


def _counts(values, name, shape, positive=False):
    """Return counts as floats; NaN, infinities and negatives are none."""
    try:
        if np.iscomplexobj(values):
            raise TypeError("they are complex")
        counts = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers: {error}") from error
    if counts.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, of models and groups; got {counts.shape}.")
    if not np.isfinite(counts).all() or (counts < 0).any() or (positive and not counts.all()):
        raise ValueError(
            f"{name} must be finite and {'> 0' if positive else '>= 0'}; got {counts.tolist()}."
        )
    return counts
