"""Tables: accuracy by group, and several models side by side."""

from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from skqfair.metrics._change import change_report, prediction_flip_rate
from skqfair.metrics._counts import count_groups
from skqfair.metrics._intervals import (
    check_confidence,
    equal_accuracy_draws,
    equal_accuracy_p,
    fvo_chance,
    fvo_interval,
    wilson_interval,
)

__all__ = ["group_report", "model_report"]


def group_report(
    y_true, y_pred, *, sensitive_features, sample_weight=None, confidence=0.95, random_state=None
):
    r"""Return count and accuracy by group, with simultaneous intervals.

    The intervals are Wilson's at level :math:`1 - (1 - \mathrm{confidence}) / G`, so that all hold
    together. With weights the sample size in them is Kish's, :math:`(\sum w)^2 / \sum w^2`.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
        True and predicted labels, of any type.
    sensitive_features : array-like of shape (n,) or (n, k), Series or frame
        Group of each sample; several columns mean their intersections.
    sample_weight : array-like of shape (n,), optional
        Weights.
    confidence : float, default=0.95
        Simultaneous confidence level.
    random_state : int, RandomState or None, default=None
        Seed of the 1,000 draws behind ``fvo_chance`` and ``equal_accuracy_p``.

    Returns
    -------
    DataFrame
        Index: the groups, sorted. Columns: ``count``, ``accuracy``, ``accuracy_low``,
        ``accuracy_high``. In ``.attrs``: ``fvo``; ``fvo_interval``, a pair, from the intervals of
        the groups: a gap is established where it excludes 0; ``fvo_chance``, (mean, quantile) of FVO
        if every group had the overall accuracy; ``equal_accuracy_p``, the p-value of that hypothesis
        by a simulated chi-square test, which sees gaps between large groups that a maximum loses in
        the noise of a small one; ``confidence``.

    Raises
    ------
    ValueError
        For arrays of different lengths, missing group values, or a confidence outside (0, 1).

    Examples
    --------
    >>> from skqfair.metrics import group_report
    >>> report = group_report([0, 1, 1, 0], [0, 1, 0, 0], sensitive_features=["a", "a", "b", "b"],
    ...                       random_state=0)
    >>> report.round(2)
                         count  accuracy  accuracy_low  accuracy_high
    sensitive_feature_0
    a                        2       1.0          0.28           1.00
    b                        2       0.5          0.08           0.92
    >>> report.attrs["fvo"]
    0.5
    """
    check_confidence(confidence)
    counts = count_groups(y_true, y_pred, sensitive_features, sample_weight)
    level = 1 - (1 - confidence) / len(counts.count)
    low, high = wilson_interval(counts.accuracy, counts.effective, level)
    columns = {
        "count": counts.count,
        "accuracy": counts.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
    }
    report = pd.DataFrame(columns, index=counts.index)
    draws = equal_accuracy_draws(counts, random_state=random_state)
    report.attrs.update(
        fvo=counts.fvo,
        fvo_interval=fvo_interval(low, high),
        fvo_chance=fvo_chance(draws, confidence=confidence),
        equal_accuracy_p=equal_accuracy_p(counts, draws),
        confidence=confidence,
    )
    return report


def model_report(
    y_true, predictions, *, sensitive_features, reference=None, confidence=0.95, random_state=None
):
    """Return accuracy and FVO of several models on the same samples, one row each.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True labels.
    predictions : dict of name to array-like of shape (n,)
        Predicted labels of each model, e.g. by bit width; rows come in this order.
    sensitive_features : array-like of shape (n,) or (n, k), Series or frame
        Group of each sample.
    reference : key of ``predictions``, default=None
        The model that the others are compared with, e.g. the float net; None takes the first.
    confidence : float, default=0.95
        Confidence level of the intervals.
    random_state : int, RandomState or None, default=None
        Seed of the draws behind ``fvo_chance``, the same for every model.

    Returns
    -------
    DataFrame
        Columns: ``accuracy`` with its Wilson bounds ``accuracy_low`` and ``accuracy_high``; ``fvo``
        with ``fvo_low``, ``fvo_high``, ``fvo_chance`` (its quantile at the confidence level if all
        groups were served alike) and ``equal_accuracy_p`` (the test of that), see
        :func:`group_report`; ``worst_group`` and ``worst_accuracy``; against the reference
        ``flip_rate``, ``excess_accuracy_gap``, and ``excess_group``, whose gap that is. For intervals
        of the changes by group see :func:`change_report`.

    Raises
    ------
    ValueError
        If ``predictions`` is empty or ``reference`` is not among them, and as
        :func:`group_report`.

    Examples
    --------
    >>> from skqfair.metrics import model_report
    >>> table = model_report([0, 1, 1, 0], {32: [0, 1, 1, 0], 2: [0, 1, 0, 0]},
    ...                      sensitive_features=["a", "a", "b", "b"], random_state=0)
    >>> table[["accuracy", "fvo", "worst_group", "flip_rate"]]
        accuracy  fvo worst_group  flip_rate
    32      1.00  0.0           a       0.00
    2       0.75  0.5           b       0.25
    """
    if not predictions:
        raise ValueError("predictions is empty; pass a dict of model names to predicted labels.")
    reference = next(iter(predictions)) if reference is None else reference
    if reference not in predictions:
        raise ValueError(f"reference {reference!r} is none of {list(predictions)}.")
    base = predictions[reference]
    if not isinstance(random_state, Integral):  # the same draws for every model
        random_state = check_random_state(random_state).randint(2**31 - 1)
    rows = {}
    for name, y_pred in predictions.items():
        report = group_report(
            y_true,
            y_pred,
            sensitive_features=sensitive_features,
            confidence=confidence,
            random_state=random_state,
        )
        n = int(report["count"].sum())
        accuracy = float(report["accuracy"] @ report["count"] / n)
        low, high = wilson_interval(np.array(accuracy), n, confidence)
        changes = change_report(y_true, base, y_pred, sensitive_features=sensitive_features)
        excess = (changes.attrs["change"] - changes["change"]).clip(lower=0)
        rows[name] = {
            "accuracy": accuracy,
            "accuracy_low": float(low),
            "accuracy_high": float(high),
            "fvo": report.attrs["fvo"],
            "fvo_low": report.attrs["fvo_interval"][0],
            "fvo_high": report.attrs["fvo_interval"][1],
            "fvo_chance": report.attrs["fvo_chance"].quantile,
            "equal_accuracy_p": report.attrs["equal_accuracy_p"],
            "worst_group": _name(report["accuracy"].idxmin()),
            "worst_accuracy": float(report["accuracy"].min()),
            "flip_rate": prediction_flip_rate(base, y_pred),
            "excess_accuracy_gap": float(excess.max()),
            "excess_group": _names(excess.index[excess >= excess.max() - 1e-12]) if excess.any() else "",
        }
    table = pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), dtype=object))
    table.attrs.update(reference=reference, confidence=confidence)
    return table


def _names(groups):
    """Return the name of the group, of several at the same value all of them."""
    return _name(groups[0]) if len(groups) == 1 else " and ".join(str(_name(g)) for g in groups)


def _name(group):
    """Return the name of a group, the parts of an intersection joined by commas."""
    return ", ".join(map(str, group)) if isinstance(group, tuple) else group
