"""What quantization changed, sample by sample against the float network."""

import numpy as np
import pandas as pd
from scipy.stats import norm

from skqfair._groups import encode_groups
from skqfair._validation import check_rows
from skqfair.metrics._counts import correct_predictions, equal_labels
from skqfair.metrics._intervals import check_confidence

__all__ = ["change_report", "excess_accuracy_gap", "prediction_flip_rate"]


def change_report(y_true, y_pred_float, y_pred_quantized, *, sensitive_features, confidence=0.95):
    r"""Return by group what quantization changed, paired, with simultaneous intervals.

    Of :math:`n_a` samples :math:`l_a` were right and became wrong, :math:`g_a` the reverse; the accuracy
    changed by :math:`(g_a - l_a) / n_a`. The intervals are Bonett and Price's adjusted Wald intervals
    for paired proportions, :math:`\tilde g - \tilde l \pm z \sqrt{(\tilde g + \tilde l - (\tilde g -
    \tilde l)^2) / (n_a + 2)}` with :math:`\tilde g = (g_a + 1) / (n_a + 2)`, at level
    :math:`1 - (1 - \mathrm{confidence}) / G`, so that all hold together.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True labels.
    y_pred_float, y_pred_quantized : array-like of shape (n,)
        Predictions of the float and of the quantized model for the same samples.
    sensitive_features : array-like of shape (n,) or (n, k), Series or frame
        Group of each sample.
    confidence : float, default=0.95
        Simultaneous confidence level.

    Returns
    -------
    DataFrame
        Index: the groups, sorted. Columns: ``count``, ``lost``, ``gained`` (samples), ``change`` of the
        accuracy, ``change_low``, ``change_high``. ``.attrs["change"]``: the change over all.

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
    check_rows(
        y_true=y_true,
        y_pred_float=y_pred_float,
        y_pred_quantized=y_pred_quantized,
        sensitive_features=sensitive_features,
    )
    before = correct_predictions(y_true, y_pred_float, "y_pred_float")
    after = correct_predictions(y_true, y_pred_quantized, "y_pred_quantized")
    groups = encode_groups(sensitive_features, len(before))
    n_groups = len(groups.index)
    count = np.bincount(groups.codes, minlength=n_groups)
    lost = np.bincount(groups.codes[before & ~after], minlength=n_groups)
    gained = np.bincount(groups.codes[after & ~before], minlength=n_groups)
    z = norm.ppf(1 - (1 - confidence) / n_groups / 2)
    up, down = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    change = (gained - lost) / count
    half = z * np.sqrt((up + down - (up - down) ** 2) / (count + 2))
    columns = {
        "count": count,
        "lost": lost,
        "gained": gained,
        "change": change,
        "change_low": np.minimum(np.clip(up - down - half, -1, 1), change),
        "change_high": np.maximum(np.clip(up - down + half, -1, 1), change),
    }
    report = pd.DataFrame(columns, index=groups.index)
    report.attrs.update(change=float((gained - lost).sum() / count.sum()), confidence=confidence)
    return report


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
