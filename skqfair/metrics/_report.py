"""Tables: accuracy by group, and several models side by side."""

import numbers

import numpy as np
import pandas as pd

from skqfair.metrics._change import excess_accuracy_gap, prediction_flip_rate
from skqfair.metrics._counts import count_groups
from skqfair.metrics._intervals import fvo_chance, fvo_interval, wilson_interval

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
        Seed of the 1,000 draws behind ``fvo_chance``.

    Returns
    -------
    DataFrame
        Index: the groups, sorted. Columns: ``count``, ``accuracy``, ``accuracy_low``,
        ``accuracy_high``. In ``.attrs``: ``fvo``; ``fvo_interval``, a pair, from the intervals of
        the groups; ``fvo_chance``, (mean, quantile) of FVO if every group had the overall accuracy:
        an FVO within it is not distinguishable from equal accuracy; ``confidence``.

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
    if not isinstance(confidence, numbers.Real) or not 0 < confidence < 1:
        raise ValueError(f"confidence must be a number between 0 and 1, got {confidence!r}.")
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
    report.attrs.update(
        fvo=counts.fvo,
        fvo_interval=fvo_interval(low, high),
        fvo_chance=fvo_chance(counts, confidence=confidence, random_state=random_state),
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
        Seed of the draws behind ``fvo_chance``; an int draws the same for every model.

    Returns
    -------
    DataFrame
        Columns: ``accuracy`` with its Wilson bounds ``accuracy_low`` and ``accuracy_high``; ``fvo``
        with ``fvo_low``, ``fvo_high`` and ``fvo_chance`` (the quantile at the confidence level of
        what chance alone shows); ``worst_group`` and ``worst_accuracy``; against the reference
        ``flip_rate`` and ``excess_accuracy_gap``.

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
        worst = report["accuracy"].idxmin()
        rows[name] = {
            "accuracy": accuracy,
            "accuracy_low": float(low),
            "accuracy_high": float(high),
            "fvo": report.attrs["fvo"],
            "fvo_low": report.attrs["fvo_interval"][0],
            "fvo_high": report.attrs["fvo_interval"][1],
            "fvo_chance": report.attrs["fvo_chance"].quantile,
            "worst_group": ", ".join(map(str, worst)) if isinstance(worst, tuple) else worst,
            "worst_accuracy": float(report["accuracy"].min()),
            "flip_rate": prediction_flip_rate(base, y_pred),
            "excess_accuracy_gap": excess_accuracy_gap(
                y_true, base, y_pred, sensitive_features=sensitive_features
            ),
        }
    table = pd.DataFrame(list(rows.values()), index=list(rows))
    table.attrs.update(reference=reference, confidence=confidence)
    return table
