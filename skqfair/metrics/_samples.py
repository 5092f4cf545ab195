"""Samples and predictions as every measure takes them: labels, groups, weights, probabilities."""

import numbers
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from skqfair._groups import Groups, encode_groups
from skqfair._validation import (
    as_labels,
    check_length,
    check_rows,
    check_weights,
    random_state_of,
    relative_weights,
)
from skqfair._warnings import warn
from skqfair.metrics._counts import correct_predictions, label_kind

__all__ = ["N_BLOCKS", "Outcome", "Samples", "draw_seed", "encode", "ratio"]

N_BLOCKS = 20
"""Blocks of each group that the jackknife leaves out in turn."""


@dataclass(frozen=True)
class Samples:
    """True labels, groups and weights.

    Attributes
    ----------
    labels : ndarray of shape (n,)
        True labels.
    kind : {"number", "text", "other"}
        Of the labels.
    groups : Groups
        Of those with a positive total weight.
    weights : ndarray of shape (n,) or None
        Weights, the largest 1.
    classes : ndarray of shape (C,)
        All labels, sorted; the order of the columns of probabilities.
    positive : object or None
        The label that rates count, for two classes.
    keep : ndarray of bool or None
        The samples that are left, where groups have no weight.
    seed : int
        Of the blocks.
    parts : dict
        What :meth:`part` has returned.
    """

    labels: np.ndarray
    kind: str
    groups: Groups
    weights: np.ndarray | None
    classes: np.ndarray
    positive: object
    keep: np.ndarray | None = None
    seed: int = 0
    parts: dict = field(default_factory=dict)

    @classmethod
    def of(cls, y_true, sensitive_features, sample_weight=None, *, classes=None, pos_label=None, seed=0):
        """Check and encode; ``classes`` and ``pos_label`` are found out where they are None."""
        labels = as_labels(y_true, "y_true")
        kind = label_kind(labels, "y_true")
        groups = encode_groups(sensitive_features, len(labels))
        weights = check_weights(sample_weight, len(labels))
        keep = None
        if weights is not None:
            weights = relative_weights(weights)
            keep = _weighty(groups, weights)
        if keep is not None:
            labels, groups, weights = labels[keep], groups.take(keep), weights[keep]
        classes = _classes(labels, classes)
        return cls(labels, kind, groups, weights, classes, _positive(classes, pos_label), keep, seed)

    def part(self, true=None):
        """Return the rows whose label is the positive one, or is not; None are all rows."""
        if true not in self.parts:
            self.parts[true] = _Part(
                self, None if true is None else np.flatnonzero(self.is_positive == true)
            )
        return self.parts[true]

    @property
    def n_groups(self):
        """Number of groups."""
        return len(self.groups.index)

    @cached_property
    def is_positive(self):
        """Where the true label is the positive one."""
        return self.labels == self.positive

    @cached_property
    def blocks(self):
        """A block, 0 to 19, of each sample; those of a group are of one size, give or take one."""
        order = np.random.default_rng(self.seed).permutation(len(self.labels))
        order = order[np.argsort(self.groups.codes[order], kind="stable")]
        start = np.cumsum(self.groups.counts) - self.groups.counts
        blocks = np.empty(len(order), dtype=np.int64)
        blocks[order] = (np.arange(len(order)) - np.repeat(start, self.groups.counts)) % N_BLOCKS
        return blocks

    @cached_property
    def members(self):
        """Positions of the samples of each group."""
        order = np.argsort(self.groups.codes, kind="stable")
        return np.split(order, np.cumsum(self.groups.counts)[:-1])


class _Part:
    """Some rows: count, total weight and effective size (Kish's) of each group, and weighted sums."""

    def __init__(self, samples, rows):
        self.rows, self.n_groups = rows, samples.n_groups
        self.codes, self.weights = self.pick(samples.groups.codes), self.pick(samples.weights)
        self.count = np.bincount(self.codes, minlength=self.n_groups)
        if self.weights is None:
            self.total = self.effective = self.count.astype(float)
        else:
            self.total = np.bincount(self.codes, self.weights, self.n_groups)
            squares = np.bincount(self.codes, self.weights**2, self.n_groups)
            self.effective = ratio(self.total**2, squares)

    def pick(self, values):
        """Return the rows of values, which may be None."""
        return values if self.rows is None or values is None else values.take(self.rows)

    def share(self, event):
        """Return the weighted share of an event, given for these rows, of each group."""
        codes = self.codes[event]
        weights = None if self.weights is None else self.weights[event]
        return ratio(np.bincount(codes, weights, self.n_groups), self.total)

    def mean(self, values):
        """Return the weighted mean of values, given for these rows, of each group."""
        weighted = values if self.weights is None else values * self.weights
        return ratio(np.bincount(self.codes, weighted, self.n_groups), self.total)


def ratio(a, b):
    """Return a / b, NaN where b is not positive."""
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)


@dataclass(frozen=True)
class Outcome:
    """Predictions of one model.

    Attributes
    ----------
    labels : ndarray of shape (n,)
        Predicted labels.
    correct : ndarray of bool, shape (n,)
        Where they are right.
    proba : ndarray of shape (n, C) or None
        Probabilities, in the order of the classes.
    positive : object or None
        The label that rates count.
    memory : dict
        What measures keep to themselves.
    """

    labels: np.ndarray
    correct: np.ndarray
    proba: np.ndarray | None
    positive: object
    memory: dict = field(default_factory=dict)

    @classmethod
    def of(cls, samples, values, name="y_pred"):
        """Check labels, shape (n,), or probabilities, shape (n, C); for two classes also (n,)."""
        n = len(samples.labels) if samples.keep is None else len(samples.keep)
        check_length(values, n, name)
        proba = _probabilities(values, samples.classes, samples.positive, name)
        labels = as_labels(values, name) if proba is None else samples.classes[proba.argmax(axis=1)]
        if samples.keep is not None:
            labels = labels[samples.keep]
            proba = None if proba is None else proba[samples.keep]
        correct = correct_predictions(
            samples.labels, labels, name, kind=samples.kind, known=samples.classes
        )
        return cls(labels, correct, proba, samples.positive)

    @cached_property
    def is_positive(self):
        """Where the predicted label is the positive one."""
        return self.labels == self.positive


def draw_seed(random_state):
    """Return an integer that stands for a random state, the same for all that is drawn from it."""
    if isinstance(random_state, numbers.Integral):
        return int(random_state)
    return int(random_state_of(random_state).randint(2**31 - 1))


def encode(y_true, predictions, sensitive_features, sample_weight=None, **options):
    """Return samples and the outcomes of predictions by the names of their arguments, aligned."""
    check_rows(
        y_true=y_true,
        **predictions,
        sensitive_features=sensitive_features,
        sample_weight=sample_weight,
    )
    samples = Samples.of(y_true, sensitive_features, sample_weight, **options)
    return samples, [Outcome.of(samples, _plain(v), name) for name, v in predictions.items()]


def _plain(values):
    """Return a Series as an array, once: strings take their time."""
    return values.to_numpy() if isinstance(values, pd.Series) else values


def _weighty(groups, weights):
    """Return where the samples of groups with weight are, or None if that is everywhere."""
    empty = np.bincount(groups.codes, weights) == 0
    if not empty.any():
        return None
    from skqfair.exceptions import EmptyGroupWarning  # with scikit-learn, which takes a second

    names = ", ".join(map(str, groups.index[empty]))
    warn(
        f"the group(s) {names} have no weight, hence no accuracy, and are left out.",
        EmptyGroupWarning,
    )
    return ~empty[groups.codes]


def _classes(labels, classes):
    found = pd.unique(labels)
    if classes is None:
        try:
            return np.sort(found)
        except TypeError:  # labels of several types
            return np.array(sorted(found, key=lambda v: (type(v).__name__, str(v))), dtype=object)
    classes = np.asarray(classes)
    if len(pd.unique(classes)) < len(classes):
        raise ValueError(f"classes={classes.tolist()} names a label twice; name each once.")
    unknown = [label for label in found if not (classes == label).any()]
    if unknown:
        raise ValueError(
            f"classes={classes.tolist()} lacks the labels {unknown[:5]} of y_true; name all."
        )
    return classes


def _positive(classes, pos_label):
    if pos_label is None:
        return classes[-1] if len(classes) == 2 else None
    if not (classes == pos_label).any():
        raise ValueError(f"pos_label={pos_label!r} is no label of y_true: it has {classes.tolist()}.")
    return pos_label


def _probabilities(values, classes, positive, name):
    """Return probabilities in the order of the classes, or None for labels."""
    if isinstance(values, pd.DataFrame) and values.shape[1] > 1 and set(values) == set(classes):
        values = values[list(classes)]
    array = values.to_numpy() if isinstance(values, (pd.Series, pd.DataFrame)) else np.asarray(values)
    if array.ndim == 1:
        if array.dtype.kind != "f" or not (np.floor(array) < array).any() or positive is None:
            return None
        if np.isnan(array).any() or array.min() < 0 or array.max() > 1:
            raise ValueError(
                f"{name} holds continuous values; pass labels, or probabilities between 0 and 1 "
                f"(of {positive} here)."
            )
        columns = [array if label == positive else 1 - array for label in classes]
        return np.column_stack(columns).astype(np.float64)
    if array.ndim != 2 or array.shape[1] == 1:
        return None
    if array.shape[1] != len(classes):
        raise ValueError(
            f"{name} has {array.shape[1]} columns of probabilities, but y_true {len(classes)} classes, "
            f"{classes[:5].tolist()}; pass one column for each class, and classes= where y_true lacks "
            "some."
        )
    array = array.astype(np.float64)
    sums = array.sum(axis=1)
    if not np.isfinite(sums).all() or array.min() < 0 or np.abs(sums - 1).max() > 1e-3:
        raise ValueError(
            f"{name}: probabilities must be between 0 and 1 with rows that sum to 1; rows sum to "
            f"{sums.min():.4g} to {sums.max():.4g}, the least value is {array.min():.4g}. For logits "
            "take scipy.special.softmax(logits, axis=1) first."
        )
    return array
