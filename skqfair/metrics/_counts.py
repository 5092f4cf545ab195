"""Count once: samples and correct predictions by group, from which every figure is derived."""

import numbers
from dataclasses import dataclass

import numpy as np
import pandas as pd

from skqfair._groups import encode_groups
from skqfair._validation import (
    as_labels,
    check_length,
    check_no_missing,
    check_rows,
    check_weights,
    relative_weights,
)
from skqfair._warnings import warn

__all__ = ["GroupCounts", "correct_predictions", "count_groups", "equal_labels", "label_kind", "tally"]


@dataclass(frozen=True)
class GroupCounts:
    """Samples and correct predictions of each group.

    Attributes
    ----------
    index : pandas.Index of length G
        Group names.
    count : ndarray of int, shape (G,)
        Samples.
    total, correct : ndarray, shape (G,)
        Sum of weights, and of the weights of the correct predictions (the plain counts if there
        are no weights).
    effective : ndarray, shape (G,)
        Kish's effective sample size, (Σw)² / Σw²; the count if there are no weights.
    samples : tuple of ndarray or None
        With weights: group code and weight of each sample.
    """

    index: pd.Index
    count: np.ndarray
    total: np.ndarray
    correct: np.ndarray
    effective: np.ndarray
    samples: tuple | None = None

    @property
    def accuracy(self):
        """Accuracy of each group, shape (G,)."""
        return self.correct / self.total

    @property
    def overall_accuracy(self):
        """Accuracy over all samples."""
        return self.correct.sum() / self.total.sum()

    @property
    def fvo(self):
        """Largest minus smallest group accuracy; 0 for fewer than two groups."""
        return float(np.ptp(self.accuracy)) if len(self.count) > 1 else 0.0


def correct_predictions(y_true, y_pred, name="y_pred", *, kind=None, known=None):
    """Return where predictions are right, shape (n,), after checking that they can be.

    ``kind`` and ``known`` are the kind and the labels of ``y_true`` where these were found before.

    Raises
    ------
    ValueError
        If no prediction is a label of ``y_true``: they are in another coding.

    Warns
    -----
    UnknownLabelWarning
        If some are not, and ``y_true`` has several labels.
    """
    y_true, y_pred = _comparable(y_true, y_pred, ("y_true", name), kind)
    correct = y_true == y_pred
    known = pd.unique(y_true if known is None else known).astype(object)  # 2**70 is no int64
    unknown = [label for label in pd.unique(y_pred[~correct]) if not (known == label).any()]
    if not unknown:
        return correct
    if len(unknown) == len(pd.unique(y_pred)):
        raise ValueError(
            f"{name} shares no label with y_true: it has {_some(unknown)}, y_true {_some(y_true)}. Pass "
            "labels in the same coding (a bare skorch net predicts positions in classes_)."
        )
    if len(pd.unique(y_true)) == 1:  # one class by itself: no coding to compare
        return correct
    from skqfair.exceptions import UnknownLabelWarning  # with scikit-learn, which takes a second

    warn(
        f"{name} has labels that y_true lacks: {_some(unknown)}; they count as wrong.",
        UnknownLabelWarning,
    )
    return correct


def _some(labels):
    some = [*dict.fromkeys(labels)][:5]
    return [label.item() if isinstance(label, np.generic) else label for label in some]


def equal_labels(y_true, y_pred, names):
    """Return where two label arrays agree, shape (n,), after checking that they can be compared."""
    y_true, y_pred = _comparable(y_true, y_pred, names)
    return y_true == y_pred


def _comparable(y_true, y_pred, names, kind=None):
    """Return two label arrays, or raise if they are not in one coding."""
    y_true, y_pred = as_labels(y_true, names[0]), as_labels(y_pred, names[1])
    check_length(y_pred, len(y_true), names[1])
    kinds = [kind or label_kind(y_true, names[0]), label_kind(y_pred, names[1])]
    if set(kinds) == {"number", "text"}:
        raise ValueError(
            f"{names[0]} holds {kinds[0]} labels and {names[1]} {kinds[1]} labels; pass both in the "
            "same coding."
        )
    return y_true, y_pred


def label_kind(labels, name):
    """Return "number" or "text"; missing and continuous values are an error."""
    check_no_missing(labels, name)
    if labels.dtype.kind == "f" and (labels != np.rint(labels)).any():
        raise ValueError(f"{name} holds continuous values; take the argmax, or a threshold, first.")
    if labels.dtype.kind in "US" or isinstance(labels[0], (str, bytes)):
        return "text"
    return "number" if isinstance(labels[0], (numbers.Number, np.number, np.bool_)) else "other"


def count_groups(y_true, y_pred, sensitive_features, sample_weight=None):
    """Count samples and correct predictions by group.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
        Labels of any type.
    sensitive_features : array-like of shape (n,) or (n, k)
        Group labels, see :func:`skqfair._validation.encode_groups`.
    sample_weight : array-like of shape (n,), optional
        Weights, scaled here to a largest of 1; below 1e-100 of it they are 0.

    Returns
    -------
    GroupCounts
        Over the groups with a positive total weight.
    """
    check_rows(
        y_true=y_true,
        y_pred=y_pred,
        sensitive_features=sensitive_features,
        sample_weight=sample_weight,
    )
    correct = correct_predictions(y_true, y_pred)
    groups = encode_groups(sensitive_features, len(correct))
    return tally(correct, groups, check_weights(sample_weight, len(correct)))


def tally(correct, groups, weights=None):
    """Count correct predictions by group; a group without weight is left out, with a warning."""
    n_groups = len(groups.index)
    table = np.bincount(groups.codes * 2 + correct, minlength=2 * n_groups).reshape(n_groups, 2)
    count = table.sum(1)
    if weights is None:
        return GroupCounts(groups.index, count, count, table[:, 1], count.astype(float))
    weights = relative_weights(weights)
    total = np.bincount(groups.codes, weights)
    keep = total > 0
    if not keep.all():
        from skqfair.exceptions import EmptyGroupWarning

        empty = ", ".join(map(str, groups.index[~keep]))
        warn(
            f"the group(s) {empty} have no weight, hence no accuracy, and are left out.",
            EmptyGroupWarning,
        )
    right = np.bincount(groups.codes, weights * correct)
    squares = np.bincount(groups.codes, weights**2)
    samples = (np.cumsum(keep) - 1)[groups.codes], weights
    if not keep.all():
        samples = tuple(values[keep[groups.codes]] for values in samples)
    effective = total[keep] ** 2 / squares[keep]
    return GroupCounts(groups.index[keep], count[keep], total[keep], right[keep], effective, samples)
