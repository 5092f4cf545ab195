"""Compare an exported model with the estimator that was audited, group by group."""

import math

import numpy as np
import pandas as pd
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skqfair._groups import columns_of, encode_groups
from skqfair._labelled import labels_of
from skqfair._validation import as_labels, check_aligned, check_length
from skqfair._warnings import warn
from skqfair.exceptions import ParityError, ParityWarning
from skqfair.metrics import fairness_violation_observed

__all__ = ["parity_report"]


def parity_report(
    estimator,
    exported,
    X,
    y=None,
    *,
    sensitive_features,
    min_agreement=0.995,
    max_fvo_difference=0.005,
    on_failure="raise",
):
    r"""Compare the predictions of an exported model with those of its estimator, by group.

    Parameters
    ----------
    estimator : fitted classifier, or Pipeline that ends in one
        The one that was audited. Of a Pipeline the other steps make X for ``exported`` too, unless this
        is a Pipeline itself.
    exported : OnnxClassifier
        What is deployed.
    X : array-like of shape (n, ...), or Dataset
        Samples; best those of the audit.
    y : array-like of shape (n,), optional
        True labels; None for a Dataset of torch whose items are (x, label).
    sensitive_features : array-like of shape (n,) or (n, k), Series, frame or names
        Group of each sample; several columns mean their intersections. A name or a list of names
        stands for columns of a frame X.
    min_agreement : float, default=0.995
        Least share of equal predictions in each group. In a group of m samples
        :math:`\lceil m (1 - \mathrm{min\_agreement}) \rceil` may differ: one in a small group.
    max_fvo_difference : float, default=0.005
        Largest difference of the two FVO.
    on_failure : {"raise", "warn", "ignore"}, default="raise"
        What happens where a limit is passed.

    Returns
    -------
    DataFrame
        Index: the groups, sorted. Columns: ``count``; ``agreement``, share of equal predictions;
        ``n_different``; ``max_difference``, largest absolute difference of ``decision_function``
        (logits); ``accuracy`` and ``accuracy_onnx``. In ``.attrs``: ``fvo``, ``fvo_onnx``,
        ``agreement`` over all samples, and ``failures``, a list of sentences.

    Raises
    ------
    ParityError
        Where a limit is passed and ``on_failure="raise"``; the message says which.
    NotFittedError
        If the estimator is not fitted.
    ValueError
        If the two have other classes, or for arrays of different lengths.

    Warns
    -----
    ParityWarning
        Where a limit is passed and ``on_failure="warn"``.

    See Also
    --------
    to_onnx : Writes the model.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_iris
    >>> from skqfair import QuantizedClassifier
    >>> from skqfair.export import OnnxClassifier, parity_report, to_onnx
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = QuantizedClassifier(weight_bits=4, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     deployed = OnnxClassifier(to_onnx(clf, os.path.join(folder, "iris.onnx"))).fit()
    >>> report = parity_report(clf, deployed, X, y, sensitive_features=y > 1)
    >>> report[["count", "agreement"]]
                         count  agreement
    sensitive_feature_0
    False                  100        1.0
    True                    50        1.0
    >>> report.attrs["fvo"] == report.attrs["fvo_onnx"]
    True
    """
    _check_limits(min_agreement, max_fvo_difference, on_failure)
    if not hasattr(exported, "classes_"):
        raise TypeError(
            f"exported must be a fitted classifier, got {type(exported).__name__}; pass "
            "OnnxClassifier(path).fit()."
        )
    check_is_fitted(estimator)
    y = labels_of(X, y)
    check_aligned(X, y, "y", "X")
    sensitive_features = columns_of(X, sensitive_features)
    check_aligned(y, sensitive_features, "sensitive_features", "y")
    y = as_labels(y, "y")
    if hasattr(X, "shape"):
        check_length(y, X.shape[0], "y")
    groups = encode_groups(sensitive_features, len(y))
    if isinstance(estimator, FrozenEstimator):
        estimator = estimator.estimator
    if isinstance(estimator, Pipeline) and not isinstance(exported, Pipeline):
        X, estimator = estimator[:-1].transform(X), estimator[-1]  # the file is of the last step
    if not np.array_equal(estimator.classes_, exported.classes_):
        raise ValueError(
            f"estimator and exported must have the same classes_, got {list(estimator.classes_)} and "
            f"{list(exported.classes_)}; export this estimator."
        )
    predicted, deployed = estimator.predict(X), exported.predict(X)
    check_length(y, len(predicted), "y")
    difference = np.abs(estimator.decision_function(X) - exported.decision_function(X))
    difference = difference.reshape(len(y), -1).max(axis=1)
    counts, codes = groups.counts, groups.codes

    def mean(values):
        return np.bincount(codes, weights=values, minlength=len(counts)) / counts

    largest = np.zeros(len(counts))
    np.maximum.at(largest, codes, difference)
    report = pd.DataFrame(
        {
            "count": counts,
            "agreement": mean(predicted == deployed),
            "n_different": np.bincount(codes[predicted != deployed], minlength=len(counts)),
            "max_difference": largest,
            "accuracy": mean(predicted == y),
            "accuracy_onnx": mean(deployed == y),
        },
        index=groups.index,
    )
    fvo, fvo_onnx = (
        fairness_violation_observed(y, labels, sensitive_features=sensitive_features)
        for labels in (predicted, deployed)
    )
    report.attrs.update(fvo=fvo, fvo_onnx=fvo_onnx, agreement=float((predicted == deployed).mean()))
    report.attrs["failures"] = _failures(report, min_agreement, max_fvo_difference)
    if report.attrs["failures"] and on_failure != "ignore":
        message = (
            f"the exported model is not the audited one: {' '.join(report.attrs['failures'])} Raise the "
            "bits of the inputs, export without X_example, or widen the limits."
        )
        if on_failure == "raise":
            raise ParityError(message)
        warn(message, ParityWarning)
    return report


def _failures(report, min_agreement, max_fvo_difference):
    """Return a sentence for each limit that is passed."""
    allowed = np.array([math.ceil(round(m * (1 - min_agreement), 9)) for m in report["count"]])
    failures = [
        f"In group {group!r} {row['n_different']:.0f} of {row['count']:.0f} predictions differ."
        for (group, row), limit in zip(report.iterrows(), allowed, strict=True)
        if row["n_different"] > limit
    ]
    fvo, fvo_onnx = report.attrs["fvo"], report.attrs["fvo_onnx"]
    if abs(fvo - fvo_onnx) > max_fvo_difference:
        failures.append(f"FVO is {fvo_onnx:.4f} instead of {fvo:.4f}.")
    return failures


def _check_limits(min_agreement, max_fvo_difference, on_failure):
    for name, value in (("min_agreement", min_agreement), ("max_fvo_difference", max_fvo_difference)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(f"{name} must be a number from 0 to 1; got {value!r}.")
    if on_failure not in ("raise", "warn", "ignore"):
        raise ValueError(f"on_failure must be 'raise', 'warn' or 'ignore'; got {on_failure!r}.")
