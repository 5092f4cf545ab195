"""Fairness violation observed: the largest accuracy gap between two groups."""

from skqfair.metrics._counts import count_groups

__all__ = ["fairness_violation_observed"]


def fairness_violation_observed(y_true, y_pred, *, sensitive_features, sample_weight=None):
    r"""Return the largest accuracy gap between any two groups (FVO).

    .. math:: \mathrm{FVO} = \max_{a, a'} |\mathrm{acc}_a - \mathrm{acc}_{a'}|

    It equals :func:`fairlearn.metrics.accuracy_score_difference` (to 1e-12 with weights). On finite
    data it is positive even when all groups are served alike, the more so the smaller the groups:
    :func:`group_report` puts an interval and the band of chance beside it.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
        True and predicted labels, of any type.
    sensitive_features : array-like of shape (n,) or (n, k), Series or frame
        Group of each sample; several columns mean their intersections.
    sample_weight : array-like of shape (n,), optional
        Weights; group accuracies are then weighted.

    Returns
    -------
    float
        In [0, 1]; 0 for fewer than two groups.

    Raises
    ------
    ValueError
        For arrays of different lengths or missing group values.

    Warns
    -----
    EmptyGroupWarning
        If a declared group (a category of a categorical column) has no sample; it is left out.

    See Also
    --------
    group_report : Accuracy by group, with intervals.

    References
    ----------
    Bellam, A. & Kim, J.-E. (2025). Explaining how quantization disparately skews a model.
    arXiv:2509.07222.

    Examples
    --------
    >>> from skqfair import fairness_violation_observed
    >>> fairness_violation_observed(
    ...     [0, 1, 1, 0], [0, 1, 0, 0], sensitive_features=["a", "a", "b", "b"])
    0.5
    """
    return count_groups(y_true, y_pred, sensitive_features, sample_weight).fvo
