"""Tables: accuracy by group, and several models side by side."""

from skqfair.metrics._comparison import compare_models
from skqfair.metrics._intervals import check_confidence
from skqfair.metrics._measures import find_measures
from skqfair.metrics._samples import draw_seed, encode
from skqfair.metrics._tables import group_table

__all__ = ["group_report", "model_report"]


def group_report(
    y_true,
    y_pred,
    *,
    sensitive_features,
    sample_weight=None,
    metrics=(),
    confidence=0.95,
    random_state=None,
):
    r"""Return count and accuracy by group, with simultaneous intervals.

    The intervals are exact (Clopper and Pearson's) at level :math:`1 - (1 - \mathrm{confidence}) / G`,
    so that all hold together. With weights the sample size in them is Kish's,
    :math:`(\sum w)^2 / \sum w^2`.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True labels, of any type.
    y_pred : array-like of shape (n,) or (n, C)
        Predicted labels, or probabilities of the sorted labels.
    sensitive_features : array-like of shape (n,) or (n, k), Series or frame
        Group of each sample; several columns mean their intersections.
    sample_weight : array-like of shape (n,), optional
        Weights.
    metrics : names or callables, default=()
        What else to measure: "selection_rate", "true_positive_rate" and "false_positive_rate" (of the
        second of two labels; exact intervals), "log_loss", "calibration_error" (of the
        predicted label, in 15 bins), names of functions of scikit-learn or fairlearn, or any
        ``metric(y_true, y_pred)``, whose intervals come from a jackknife over 20 blocks and are
        approximate; a dict gives them names. None: those that fit the data.
    confidence : float, default=0.95
        Simultaneous confidence level.
    random_state : int, RandomState or None, default=None
        Seed of the 1,000 draws behind ``fvo_chance`` and ``equal_accuracy_p``.

    Returns
    -------
    DataFrame
        Index: the groups, sorted. Columns: ``count``, ``accuracy``, ``accuracy_low``,
        ``accuracy_high``, and the same in each row: ``fvo``; ``fvo_low``, ``fvo_high``, from the
        intervals of the groups: a gap is established where they exclude 0; ``fvo_chance``, the quantile
        of FVO if every group had the overall accuracy; ``equal_accuracy_p``, the p-value of that
        hypothesis by a simulated chi-square test, which sees gaps between large groups that a maximum
        loses in the noise of a small one. Each metric has ``<metric>`` with ``_low``, ``_high`` and
        ``_count`` (the samples it is of), and ``<metric>_difference``, the largest between two groups,
        with bounds. ``.attrs`` has ``fvo``, ``fvo_interval``, ``fvo_chance`` (mean, quantile),
        ``equal_accuracy_p`` and ``confidence``.

    Raises
    ------
    ValueError
        For arrays of different lengths, missing group values, or a confidence outside (0, 1).

    Warns
    -----
    UndefinedMetricWarning
        If a metric is undefined in a group, and NaN there.

    Examples
    --------
    >>> from skqfair.metrics import group_report
    >>> report = group_report([0, 1, 1, 0], [0, 1, 0, 0], sensitive_features=["a", "a", "b", "b"],
    ...                       random_state=0)
    >>> report[["count", "accuracy", "accuracy_low", "accuracy_high", "fvo", "fvo_low"]].round(2)
                         count  accuracy  accuracy_low  accuracy_high  fvo  fvo_low
    sensitive_feature_0
    a                        2       1.0          0.11           1.00  0.5      0.0
    b                        2       0.5          0.01           0.99  0.5      0.0
    """
    check_confidence(confidence)
    seed = draw_seed(random_state)
    samples, (outcome,) = encode(
        y_true, {"y_pred": y_pred}, sensitive_features, sample_weight, seed=seed
    )
    measures = find_measures(metrics, samples, (outcome,))
    return group_table(samples, outcome, measures, confidence, random_state)


def model_report(
    y_true,
    predictions,
    *,
    sensitive_features,
    sample_weight=None,
    metrics=(),
    reference=None,
    confidence=0.95,
    random_state=None,
):
    """Return accuracy and FVO of several models on the same samples, one row each.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True labels.
    predictions : dict of name to array-like of shape (n,) or (n, C)
        Predicted labels or probabilities of each model, e.g. by bit width; rows come in this order.
    sensitive_features : array-like of shape (n,) or (n, k), Series or frame
        Group of each sample.
    sample_weight : array-like of shape (n,), optional
        Weights.
    metrics : names or callables, default=()
        As in :func:`group_report`.
    reference : key of ``predictions``, default=None
        The model that the others are compared with, e.g. the float net; None takes the first.
    confidence : float, default=0.95
        Confidence level of the intervals.
    random_state : int, RandomState or None, default=None
        Seed of the draws behind ``fvo_chance``, the same for every model.

    Returns
    -------
    DataFrame
        Columns: ``accuracy`` with its exact bounds ``accuracy_low`` and ``accuracy_high``; ``fvo``
        with ``fvo_low``, ``fvo_high``, ``fvo_chance`` (its quantile at the confidence level if all
        groups were served alike) and ``equal_accuracy_p`` (the test of that), see
        :func:`group_report`; ``worst_group`` and ``worst_accuracy``; against the reference
        ``flip_rate``, ``accuracy_change``, ``excess_accuracy_gap`` and ``fvo_change``, each with bounds
        ``_low`` and ``_high``, and ``excess_group``, whose gap that is; each metric with its largest
        difference between groups and the change of that. For intervals of the changes by group see
        :func:`change_report`.

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
    return compare_models(
        y_true,
        predictions,
        sensitive_features=sensitive_features,
        sample_weight=sample_weight,
        metrics=metrics,
        reference=reference,
        confidence=confidence,
        random_state=random_state,
    ).models
