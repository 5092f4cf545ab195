"""Scorers for ``GridSearchCV`` and ``cross_validate``: fairness and bytes."""

import functools
import warnings

import numpy as np
import pandas as pd
import sklearn
from sklearn.metrics import make_scorer
from sklearn.utils.validation import check_is_fitted

from skqfair._groups import encode_groups, is_names, named_columns
from skqfair.exceptions import EmptyGroupWarning
from skqfair.metrics._fvo import fairness_violation_observed

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
          of ``X``: its rows would be taken for others);
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
    if not sklearn.get_config()["enable_metadata_routing"]:
        raise RuntimeError(
            "make_fairness_scorer: sensitive_features is None, so they would be routed as metadata, "
            "but metadata routing is disabled and they would never arrive. Either name the "
            "column(s) of X, pass an index-aligned Series, or call "
            "sklearn.set_config(enable_metadata_routing=True) first."
        )
    return make_scorer(metric, **options).set_score_request(sensitive_features=True)


class _GroupMetric:
    """A metric with checks of what it gets, and labels as 0 and 1 if asked for."""

    def __init__(self, metric, pos_label):
        self.metric, self.pos_label = metric, pos_label
        self.__name__ = getattr(metric, "__name__", repr(metric))

    def __call__(self, y_true, y_pred, *, sensitive_features=None):
        if sensitive_features is None:
            raise ValueError(
                "sensitive_features did not reach the scorer; pass them to the fit of the search, "
                "search.fit(X, y, sensitive_features=...), or to cross_validate as params."
            )
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
        return self.metric(y_true, y_pred, sensitive_features=sensitive_features)

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


class _GroupScorer:
    """Scorer that finds the groups in the columns of X or in an index-aligned Series."""

    def __init__(self, metric, sensitive_features, options):
        self.metric, self.sensitive_features, self.options = metric, sensitive_features, options
        if isinstance(sensitive_features, (pd.Series, pd.DataFrame)):
            if not sensitive_features.index.is_unique:
                raise ValueError(
                    "sensitive_features must have a unique index, so that each sample of a fold has "
                    "one group; use reset_index(drop=True) on it and on X before the split."
                )
        elif not is_names(sensitive_features):
            raise ValueError(
                "sensitive_features must be a column name, a list of names, a pandas Series or "
                f"frame, or None; got {type(sensitive_features).__module__}."
                f"{type(sensitive_features).__qualname__}. Without an index it cannot be matched to the "
                "rows of a fold: name columns of X, or use pd.Series(values, index=X.index)."
            )

    def __call__(self, estimator, X, y):
        groups = self._groups(X)
        metric = functools.partial(self.metric, sensitive_features=groups)
        return make_scorer(metric, **self.options)(estimator, X, y)

    def __repr__(self):
        names = self.sensitive_features
        if isinstance(names, pd.Series):
            names = names.name or "Series"
        elif isinstance(names, pd.DataFrame):
            names = list(names.columns)
        options = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return f"make_fairness_scorer({self.metric}, sensitive_features={names!r}, {options})"

    def _groups(self, X):
        if is_names(self.sensitive_features):
            return named_columns(X, self.sensitive_features)
        features, index = self.sensitive_features, getattr(X, "index", None)
        if not isinstance(index, pd.Index):
            raise ValueError(
                "sensitive_features is a Series, so X must be a pandas frame with the same index; "
                f"got {type(X).__name__}. Pass X as a frame; for images and other arrays route the "
                "groups as metadata: sklearn.set_config(enable_metadata_routing=True)."
            )
        missing = ~index.isin(features.index)
        if missing.any():
            raise ValueError(
                f"sensitive_features has no entry for {int(missing.sum())} of {len(index)} rows of "
                f"X, e.g. index {index[missing][0]!r}; its index must cover that of X."
            )
        fold = features.loc[index]
        _warn_absent(features, fold)
        return fold


def _warn_absent(features, fold):
    """Warn of groups that the whole Series has and this fold has not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        whole, part = (encode_groups(f, len(f)) for f in (features, fold))
    absent = whole.index.difference(part.index)
    categorical = any(isinstance(t, pd.CategoricalDtype) for t in np.atleast_1d(_dtypes(features)))
    if len(absent) and not categorical:  # of categories the metric itself warns
        warnings.warn(
            f"sensitive_features: no sample of the group(s) {', '.join(map(str, absent))} in this "
            "fold; they have no accuracy and are left out. Larger or stratified folds keep them.",
            EmptyGroupWarning,
            stacklevel=4,
        )


def _dtypes(features):
    return list(features.dtypes) if isinstance(features, pd.DataFrame) else [features.dtype]


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
