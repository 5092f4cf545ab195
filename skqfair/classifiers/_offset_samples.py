"""The predictions that offsets are fitted to: out of folds, or those of a frozen estimator."""

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import StratifiedKFold, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_method_params, check_is_fitted

from skqfair._row_sketch import share_known
from skqfair._rows import Rows, opened, stays, validate_rows
from skqfair._validation import positions
from skqfair._warnings import warn
from skqfair.classifiers._base import NetworkClassifier
from skqfair.exceptions import TrainingSamplesWarning

__all__ = [
    "check_probabilistic",
    "checked_samples",
    "class_probabilities",
    "classes_of_frozen",
    "out_of_fold",
]

_KNOWN_SHARE = 0.5  # of samples seen in training; rows of a census are twice the same by chance (24 %)


def checked_samples(clf, X, y):
    """Return X and y; a Dataset, several inputs and what is in a file as samples to be read by batch."""
    inner = clf.estimator
    inner = inner.estimator if isinstance(inner, FrozenEstimator) else inner
    if opened(X, "") is not X or (stays(X) and isinstance(inner, NetworkClassifier)):
        return validate_rows(clf, X, y)
    if y is None:
        raise ValueError(
            f"This {type(clf).__name__} estimator requires y to be passed, but the target y is None."
        )
    return X, y


def check_probabilistic(estimator):
    """Raise if an estimator has no probabilities."""
    if not hasattr(estimator, "predict_proba"):
        raise ValueError(
            f"estimator must have predict_proba, which {type(estimator).__name__} has not with these "
            "parameters; wrap it in sklearn.calibration.CalibratedClassifierCV."
        )


def class_probabilities(estimator, X, classes):
    """Return the probabilities of a fitted estimator, columns in the order of ``classes``."""
    found = np.asarray(estimator.predict_proba(X), dtype=np.float64)
    if found.ndim != 2 or found.shape[1] != len(estimator.classes_):
        raise ValueError(
            f"predict_proba of {type(estimator).__name__} must return one column for each of its "
            f"{len(estimator.classes_)} classes, got shape {found.shape}."
        )
    if not (np.isfinite(found).all() and (found >= 0).all() and np.allclose(found.sum(1), 1, atol=1e-3)):
        raise ValueError(
            f"predict_proba of {type(estimator).__name__} must return finite probabilities whose rows "
            "sum to 1; a frozen network needs its own kind of input."
        )
    return found[:, positions(classes, np.asarray(estimator.classes_))]


def classes_of_frozen(inner, X, y):
    """Return the classes of a fitted estimator, after checks of the samples given to it."""
    check_is_fitted(inner)
    own = np.asarray(inner.classes_)
    if len(unknown := np.setdiff1d(y, own)):
        raise ValueError(
            f"y has labels that the frozen estimator was not trained on: {unknown[:5].tolist()}; its "
            f"classes_ are {own.tolist()}. Pass y in that coding."
        )
    if len(absent := np.setdiff1d(own, y)):
        raise ValueError(
            f"y has no sample of the classes {absent[:5].tolist()} of the frozen estimator: their "
            "offsets cannot be fitted. Pass samples of all its classes, e.g. from a stratified split."
        )
    known = _share_trained_on(inner, X)
    if known >= _KNOWN_SHARE:
        warn(
            f"about {known:.0%} of the samples in X are among those that the frozen estimator was "
            "trained on: its probabilities for them are too good, and so would the offsets be. Pass "
            "samples that it has not seen, or an estimator that is not frozen.",
            TrainingSamplesWarning,
        )
    return own


def _share_trained_on(inner, X):
    """Return which share of the samples a classifier of skqfair was trained on; 0 if it is none."""
    if isinstance(inner, Pipeline) and isinstance(inner[-1], NetworkClassifier):
        X, inner = inner[:-1].transform(X) if len(inner) > 1 else X, inner[-1]
    known = getattr(inner, "_training_rows", None)
    if not isinstance(inner, NetworkClassifier) or known is None:
        return 0.0
    return share_known(inner._prediction_input(X)[1], known)


def out_of_fold(clf, X, y, classes, groups, params):
    """Return the rows of all validation parts together, and their probabilities.

    ``clf`` has the estimator that is cloned for each fold, ``cv`` and ``random_state``; ``params`` are
    those of its fit.
    """
    codes, cv = positions(y, classes), 5 if clf.cv is None else clf.cv
    if isinstance(cv, (int, np.integer)):
        cv = StratifiedKFold(int(cv), shuffle=True, random_state=clf.random_state)
    rows, found = [], []
    for train, test in check_cv(cv, codes, classifier=True).split(X, codes):
        if len(absent := np.setdiff1d(classes, y[train])):
            raise ValueError(
                f"cv: a training part has no sample of the classes {absent[:5].tolist()}; use fewer or "
                "stratified folds, or drop these classes."
            )
        own = _check_method_params(X, params, train)
        fitted = clone(clf.estimator).fit(_part(X, train), y[train], **own)
        rows.append(np.arange(len(y))[test])
        found.append(class_probabilities(fitted, _part(X, test), classes))
    rows = np.concatenate(rows)
    for what, names, present in (
        ("class", classes, codes[rows]),
        ("group", groups.index, groups.codes[rows]),
    ):
        absent = np.setdiff1d(np.arange(len(names)), present)
        if len(absent):
            raise ValueError(
                f"cv: no validation part has a sample of the {what} {names[absent[0]]!r}; let the "
                "validation parts hold all classes and groups, e.g. cv=5."
            )
    return rows, np.concatenate(found)


def _part(X, rows):
    """Return some samples, unread where X is read by batch."""
    return X.only(rows) if isinstance(X, Rows) else _safe_indexing(X, rows)
