"""What quantization changed, sample by sample against the float network."""

import numpy as np
import pandas as pd

from skqfair._groups import encode_groups
from skqfair._validation import check_rows
from skqfair.metrics._counts import equal_labels
from skqfair.metrics._intervals import check_confidence
from skqfair.metrics._measures import find_measures
from skqfair.metrics._samples import draw_seed, encode
from skqfair.metrics._tables import change_table

__all__ = ["change_report", "excess_accuracy_gap", "prediction_flip_rate"]


def change_report(
    y_true,
    y_pred_float,
    y_pred_quantized,
    *,
    sensitive_features,
    sample_weight=None,
    metrics=(),
    confidence=0.95,
    random_state=0,
):
    r"""Return by group what quantization changed, paired, with simultaneous intervals.

    Of :math:`n_a` samples :math:`l_a` were right and became wrong, :math:`g_a` the reverse; the accuracy
    changed by :math:`(g_a - l_a) / n_a`. The intervals are Bonett and Price's adjusted Wald intervals
    for paired proportions, :math:`\tilde g - \tilde l \pm z \sqrt{(\tilde g + \tilde l - (\tilde g -
    \tilde l)^2) / (n_a + 2)}` with :math:`\tilde g = (g_a + 1) / (n_a + 2)`, at level
    :math:`1 - (1 - \mathrm{confidence}) / G`, so that all hold together. With weights
    shares are weighted and :math:`n_a` is Kish's effective sample size.

    FVO of the quantized less that of the float model has an interval too: the extremes over accuracies
    before, after, and changes, each within simultaneous bounds, which together hold at the confidence
    level (half of the error goes to the changes). It covers at that level or more for any number of
    groups, as no bootstrap of a maximum does.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True labels.
    y_pred_float, y_pred_quantized : array-like of shape (n,) or (n, C)
        Predictions of the float and of the quantized model for the same samples; labels, or
        probabilities of the sorted labels.
    sensitive_features : array-like of shape (n,) or (n, k), Series or frame
        Group of each sample.
    sample_weight : array-like of shape (n,), optional
        Weights.
    metrics : names or callables, default=()
        What else changed, as in :func:`group_report`.
    confidence : float, default=0.95
        Simultaneous confidence level.
    random_state : int, RandomState or None, default=0
        Seed of the blocks of the jackknife behind some ``metrics``.

    Returns
    -------
    DataFrame
        Index: the groups, sorted. Columns: ``count``, ``lost``, ``gained`` (samples, or their weights),
        ``change`` of the accuracy, ``change_low``, ``change_high``; ``fvo_change``, ``fvo_change_low``,
        ``fvo_change_high``, the same in each row; for each metric ``<metric>_change`` and the change of
        its largest difference between groups, ``<metric>_difference_change``, with bounds.
        ``.attrs["change"]``: the change over all.

    Raises
    ------
    ValueError
        For arrays of different lengths, missing group values, or a confidence outside (0, 1).

    References
    ----------
    Bonett, D. G. & Price, R. M. (2012). Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data. J. Educational and Behavioral Statistics 37(4).

    Examples
    --------
    >>> from skqfair.metrics import change_report
    >>> change_report([0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 0],
    ...               sensitive_features=["a", "a", "b", "b"])[["count", "lost", "gained", "change"]]
                         count  lost  gained  change
    sensitive_feature_0
    a                        2     0       0     0.0
    b                        2     1       0    -0.5
    """
    check_confidence(confidence)
    samples, (before, after) = encode(
        y_true,
        {"y_pred_float": y_pred_float, "y_pred_quantized": y_pred_quantized},
        sensitive_features,
        sample_weight,
        seed=draw_seed(random_state),
    )
    measures = find_measures(metrics, samples, (before, after))
    return change_table(samples, before, after, measures, confidence)


def excess_accuracy_gap(y_true, y_pred_float, y_pred_quantized, *, sensitive_features):
    r"""Return how much more accuracy the hardest hit group lost than the whole.

    .. math:: \max_a \left[ (\mathrm{acc}_a^{float} - \mathrm{acc}_a^{quantized})
              - (\mathrm{acc}^{float} - \mathrm{acc}^{quantized}) \right]

    Unlike a difference of two FVOs it cannot hide a loss of one group behind a gap that was there
    before. At least one group always loses at least as much as the whole, so it is never negative.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True labels.
    y_pred_float, y_pred_quantized : array-like of shape (n,)
        Predictions of the float and of the quantized model for the same samples.
    sensitive_features : array-like of shape (n,) or (n, k), Series or frame
        Group of each sample.

    Returns
    -------
    float
        In [0, 2].

    Raises
    ------
    ValueError
        For arrays of different lengths or missing group values.

    See Also
    --------
    change_report : The changes of all groups, with intervals. In a small group one sample is much.

    Examples
    --------
    >>> from skqfair.metrics import excess_accuracy_gap
    >>> excess_accuracy_gap([0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 0],
    ...                     sensitive_features=["a", "a", "b", "b"])
    0.25
    """
    report = change_report(y_true, y_pred_float, y_pred_quantized, sensitive_features=sensitive_features)
    return float(max(0.0, (report.attrs["change"] - report["change"]).max()))


def prediction_flip_rate(y_pred_float, y_pred_quantized, *, sensitive_features=None):
    """Return the share of samples whose prediction quantization changed.

    Parameters
    ----------
    y_pred_float, y_pred_quantized : array-like of shape (n,)
        Predictions of both models for the same samples.
    sensitive_features : array-like of shape (n,) or (n, k), Series or frame, optional
        Group of each sample.

    Returns
    -------
    float, or Series by group if ``sensitive_features`` are given
        In [0, 1].

    Raises
    ------
    ValueError
        For arrays of different lengths or missing group values.

    Examples
    --------
    >>> from skqfair.metrics import prediction_flip_rate
    >>> prediction_flip_rate([0, 1, 1, 0], [0, 1, 0, 0])
    0.25
    """
    check_rows(
        y_pred_float=y_pred_float,
        y_pred_quantized=y_pred_quantized,
        sensitive_features=sensitive_features,
    )
    names = ("y_pred_float", "y_pred_quantized")
    flipped = ~equal_labels(y_pred_float, y_pred_quantized, names)
    if sensitive_features is None:
        return float(flipped.mean())
    groups = encode_groups(sensitive_features, len(flipped))
    rates = np.bincount(groups.codes, flipped) / np.bincount(groups.codes)
    return pd.Series(rates, index=groups.index, name="flip_rate")
