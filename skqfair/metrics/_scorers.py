"""Scorers for ``GridSearchCV`` and ``cross_validate``: fairness and bytes."""

import functools

import numpy as np
import pandas as pd
from sklearn.metrics import make_scorer
from sklearn.utils.validation import check_is_fitted

from skqfair._labelled import labels_of
from skqfair.metrics._fvo import fairness_violation_observed
from skqfair.metrics._scored_groups import NOT_ROUTED, GroupLookup, Requests, check_routing

__all__ = ["make_fairness_scorer", "model_size_scorer"]


def make_fairness_scorer(
    metric=fairness_violation_observed,
    *,
    sensitive_features=None,
    greater_is_better=False,
    response_method="predict",
    pos_label=None,
):
    """Make a scorer of a fairness metric.

    Parameters
    ----------
    metric : callable, default=fairness_violation_observed
        ``metric(y_true, y_pred, *, sensitive_features)``, e.g. any fairlearn metric.
    sensitive_features : str, list of str, Series, frame or None, default=None
        Where the groups come from:

        - a column name or list of names: these columns of the frame ``X`` that is scored. The
          estimator gets them too; put it in a pipeline that drops them if it must not;
        - a pandas Series or frame whose unique index covers that of every ``X`` (do not reset the index
          of ``X``: its rows would be taken for others). For a Dataset of torch, or skorch's
          ``SliceDataset`` of one, a Series of index 0, 1, ..., one entry for each item;
        - None: metadata routed by scikit-learn. Needs
          ``sklearn.set_config(enable_metadata_routing=True)``; the request is set.
    greater_is_better : bool, default=False
        False negates the metric: the score is minus FVO, so that a search minimises it.
    response_method : str, default="predict"
        Method of the estimator that gives ``y_pred``.
    pos_label : object, default=None
        With a label, the metric gets 1 where ``y_true`` and ``y_pred`` have it and 0 elsewhere:
        fairlearn's metrics of rates (``demographic_parity_difference`` ...) count the label 1.

    Returns
    -------
    callable
        A scorer ``(estimator, X, y) -> float``.

    Raises
    ------
    RuntimeError
        If ``sensitive_features`` is None and metadata routing is disabled: inside a search the
        groups would never arrive, and every score would be nan.
    ValueError
        For a Series or frame whose index has duplicates; when scoring, for a missing column or an
        index that does not cover ``X``. In a search an error in a scorer becomes a nan score, so
        also pass ``error_score="raise"``.

    Warns
    -----
    EmptyGroupWarning
        When scoring, if a group of the Series or of a categorical column has no sample in the fold.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.dummy import DummyClassifier
    >>> from skqfair import make_fairness_scorer
    >>> X = pd.DataFrame({"sex": ["f", "f", "m", "m"]})
    >>> score = make_fairness_scorer(sensitive_features="sex")
    >>> model = DummyClassifier(strategy="constant", constant=1).fit(X, [1, 1, 0, 1])
    >>> score(model, X, [1, 1, 0, 1])
    -0.5
    """
    if not callable(metric):
        raise ValueError(f"metric must be callable, got {metric!r}.")
    options = {"greater_is_better": greater_is_better, "response_method": response_method}
    metric = _GroupMetric(metric, pos_label)
    if sensitive_features is not None:
        return _GroupScorer(metric, sensitive_features, options)
    check_routing("make_fairness_scorer")
    return make_scorer(metric, **options).set_score_request(sensitive_features=True)


class _GroupMetric:
    """A metric with checks of what it gets, and labels as 0 and 1 if asked for."""

    def __init__(self, metric, pos_label):
        self.metric, self.pos_label = metric, pos_label
        self.__name__ = getattr(metric, "__name__", repr(metric))

    def __call__(self, y_true, y_pred, *, sensitive_features=None, sample_weight=None):
        if sensitive_features is None:
            raise ValueError(NOT_ROUTED)
        if self.pos_label is not None:
            found = pd.unique(np.concatenate([np.asarray(y, dtype=object) for y in (y_true, y_pred)]))
            if not (found == self.pos_label).any():
                raise ValueError(
                    f"pos_label={self.pos_label!r} is no label of this data: y_true and y_pred have "
                    f"{sorted(found[:5].tolist(), key=str)}; every rate would be 0, and every gap."
                )
            y_true, y_pred = (np.asarray(labels) == self.pos_label for labels in (y_true, y_pred))
            y_true, y_pred = y_true.astype(int), y_pred.astype(int)
        elif _counts_ones(self.metric) and np.asarray(y_true).dtype.kind not in "iufb":
            labels = np.unique(np.asarray(y_true, dtype=object).astype(str))[:5].tolist()
            raise ValueError(
                f"{self.__name__} counts the label 1, but the labels are {labels}; pass "
                "pos_label=... to make_fairness_scorer."
            )
        weights = _given(sample_weight=sample_weight)
        return self.metric(y_true, y_pred, sensitive_features=sensitive_features, **weights)

    def __repr__(self):
        return self.__name__


def _counts_ones(metric):
    """Whether a metric is one of fairlearn's that count the label 1."""
    rates = (
        "demographic_parity",
        "equalized_odds",
        "equal_opportunity",
        "selection_rate",
        "positive_rate",
    )
    name = getattr(metric, "__name__", "")
    return getattr(metric, "__module__", "").startswith("fairlearn") and any(r in name for r in rates)


class _GroupScorer(Requests):
    """Scorer that finds the groups in the columns of X or in an index-aligned Series."""

    def __init__(self, metric, sensitive_features, options):
        self.metric, self.options = metric, options
        self.lookup = GroupLookup(sensitive_features)

    def __call__(self, estimator, X, y=None, sample_weight=None):
        groups, y = self.lookup(X), labels_of(X, y)
        metric = functools.partial(
            self.metric, sensitive_features=groups, **_given(sample_weight=sample_weight)
        )
        return make_scorer(metric, **self.options)(estimator, X, y)

    def __repr__(self):
        options = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return f"make_fairness_scorer({self.metric}, sensitive_features={self.lookup}, {options})"

    # What TunedThresholdClassifierCV asks of a scorer: it hands on labels only, by position or index

    @property
    def _score_func(self):
        if self.lookup.names is not None:
            raise ValueError(
                f"make_fairness_scorer(sensitive_features={self.lookup.names!r}) reads columns of X, "
                "which TunedThresholdClassifierCV does not hand to its scorer; pass them as a Series, "
                "sensitive_features=X[...], and y as a Series of the same index."
            )

        def metric(y_true, y_pred, **params):
            return self.metric(y_true, y_pred, sensitive_features=self.lookup(y_true, "y"), **params)

        return metric

    @property
    def _sign(self):
        return 1 if self.options["greater_is_better"] else -1

    @property
    def _kwargs(self):
        return {}


def _given(**options):
    return {name: value for name, value in options.items() if value is not None}


def model_size_scorer(estimator, X=None, y=None):
    """Return minus the bytes of a fitted model, so that a search prefers the smaller.

    Parameters
    ----------
    estimator : fitted estimator with ``model_size_``, or a Pipeline that ends in one
        The model.
    X, y : ignored
        For the signature of scorers.

    Returns
    -------
    int
        ``-model_size_``.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    AttributeError
        If it has no ``model_size_``.

    Examples
    --------
    >>> from skqfair import QuantizedClassifier
    >>> from skqfair.metrics import model_size_scorer
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model_size_scorer(QuantizedClassifier(weight_bits=4, random_state=0).fit(X, y))
    -6008
    """
    final = estimator
    while hasattr(final, "steps"):
        final = final.steps[-1][1]
    check_is_fitted(final)
    if not hasattr(final, "model_size_"):
        raise AttributeError(
            f"{type(final).__name__} has no model_size_; model_size_scorer is for the classifiers of "
            "skqfair, alone or as the last step of a Pipeline."
        )
    return -final.model_size_
