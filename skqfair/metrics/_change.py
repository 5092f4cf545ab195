"""What quantization changed, sample by sample against the float network."""

import numpy as np
import pandas as pd

from skqfair._validation import encode_groups
from skqfair.metrics._counts import correct_predictions, count_groups

__all__ = ["excess_accuracy_gap", "prediction_flip_rate"]


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

    Examples
    --------
    >>> from skqfair.metrics import excess_accuracy_gap
    >>> excess_accuracy_gap([0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 0],
    ...                     sensitive_features=["a", "a", "b", "b"])
    0.25
    """
    before = count_groups(y_true, y_pred_float, sensitive_features)
    after = count_groups(y_true, y_pred_quantized, sensitive_features)
    drop = (before.correct - after.correct) / before.total
    overall = (before.correct - after.correct).sum() / before.total.sum()
    return float((drop - overall).max())


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
    names = ("y_pred_float", "y_pred_quantized")
    flipped = ~correct_predictions(y_pred_float, y_pred_quantized, names)
    if sensitive_features is None:
        return float(flipped.mean())
    groups = encode_groups(sensitive_features, len(flipped))
    rates = np.bincount(groups.codes, flipped) / np.bincount(groups.codes)
    return pd.Series(rates, index=groups.index, name="flip_rate")
