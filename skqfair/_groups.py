"""Sensitive features as integer codes and names of groups."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from skqfair._validation import as_array, check_aligned, check_length, check_not_masked
from skqfair._warnings import warn
from skqfair.exceptions import ManyGroupsWarning

__all__ = ["Groups", "columns_of", "encode_groups", "is_names", "named_columns"]

_MANY, _FEW = 50, 10
_ALL = pd.Index(["all"], name="group")


@dataclass(frozen=True)
class Groups:
    """Group membership as integers.

    Attributes
    ----------
    codes : ndarray of int64, shape (n,)
        Position of each sample's group in ``index``.
    index : pandas.Index
        Names of the groups that have samples, sorted; a MultiIndex for several columns.
    """

    codes: np.ndarray
    index: pd.Index

    @property
    def counts(self):
        """Samples of each group, shape (G,)."""
        return np.bincount(self.codes, minlength=len(self.index))

    @classmethod
    def of_all(cls, n_samples):
        """Return one group of all samples, "all"."""
        return cls(np.zeros(n_samples, dtype=np.int64), _ALL.copy())

    def take(self, rows):
        """Return the groups of some of the samples, less those that have none there."""
        present, codes = np.unique(self.codes[rows], return_inverse=True)
        return Groups(codes.astype(np.int64), self.index[present])


def encode_groups(sensitive_features, n_samples, name="sensitive_features"):
    """Encode sensitive features as integer codes.

    Parameters
    ----------
    sensitive_features : array-like of shape (n,) or (n, k), Series, frame or dict of arrays
        Group labels of any type; pandas and polars are understood. Several columns mean their
        intersections.
    n_samples : int
        Expected number of samples.
    name : str
        Name of the argument, for messages.

    Returns
    -------
    Groups

    Raises
    ------
    ValueError
        For another length or shape, no column, or missing group values.
    """
    if sensitive_features is None:
        raise ValueError(f"{name} must be given: one group label for each sample.")
    check_not_masked(sensitive_features, name)
    columns = _columns(sensitive_features, name)
    encoded = []
    for label, values in columns.items():
        if getattr(values, "ndim", None) is None:  # of polars, and lists
            values = columns[label] = _as_array(values, name)
        if values.ndim != 1:
            raise ValueError(f"{name}: column {label!r} must be one-dimensional.")
        check_length(values, n_samples, name)
        codes, uniques = _factorize(values, name)
        if (codes < 0).any():
            raise ValueError(
                f"{name}: {int((codes < 0).sum())} of {n_samples} values of {label!r} are missing "
                "(NaN or None); drop these samples or give them a group of their own, "
                "e.g. with fillna('unknown')."
            )
        encoded.append((label, codes, uniques))
    if len(encoded) == 1:
        label, codes, uniques = encoded[0]
        codes, present = _drop_unused(codes, len(uniques))
        if isinstance(getattr(columns[label], "dtype", None), pd.CategoricalDtype):
            _warn_empty([(value,) for value in uniques[~present]], name)
        _warn_many(int(present.sum()), n_samples, name)
        return Groups(codes, pd.Index(uniques[present], name=label))
    return _intersections(encoded, columns, name)


def _warn_many(n_groups, n_samples, name):
    """Warn of groups that are hardly groups, as values of a continuous feature are."""
    if n_groups > _MANY or (n_groups == n_samples and n_samples > _FEW):
        warn(
            f"{name} has {n_groups} different values for {n_samples} samples: a gap between so many "
            "groups is mostly chance. Cut continuous features into a few classes, e.g. with pandas.cut.",
            ManyGroupsWarning,
        )


def columns_of(X, sensitive_features):
    """Return sensitive features, or the columns of a frame X that they name; rows go by position."""
    columns = list(getattr(X, "columns", ()))
    if isinstance(sensitive_features, str):
        return named_columns(X, sensitive_features)
    # a list of strings may also be the labels of the samples
    if is_names(sensitive_features) and (
        set(sensitive_features) <= set(columns) or (columns and len(sensitive_features) != len(X))
    ):
        return named_columns(X, sensitive_features)
    check_aligned(X, sensitive_features, "sensitive_features", "X")
    return sensitive_features


def is_names(value):
    """Whether a value is the name of a column, or a list of names."""
    if isinstance(value, str):
        return True
    return bool(isinstance(value, (list, tuple)) and value and all(isinstance(v, str) for v in value))


def named_columns(X, names):
    """Return the columns of a frame that a name or a list of names stands for.

    Raises
    ------
    ValueError
        If X is no frame, or lacks one of them.
    """
    if not hasattr(X, "columns"):
        raise ValueError(
            f"sensitive_features={names!r} names columns, so X must be a frame; got "
            f"{type(X).__name__}. Pass X as a frame, or an index-aligned Series of groups."
        )
    wanted = [names] if isinstance(names, str) else list(names)
    absent = [name for name in wanted if name not in X.columns]
    if absent:
        raise ValueError(
            f"sensitive_features: X has no column {absent}; its columns are {list(X.columns)}."
        )
    return X[names] if isinstance(names, str) else X[wanted]


def _intersections(encoded, columns, name):
    """Return the groups that several columns form together, in sorted order."""
    codes = np.zeros(len(encoded[0][1]), dtype=np.int64)
    for _, column, uniques in encoded:  # renumbered at each column: the product may be huge
        codes, _ = pd.factorize(codes * len(uniques) + column, sort=True)
    first = _first_positions(codes)
    names = [label for label, _, _ in encoded]
    found = pd.MultiIndex.from_arrays(
        [uniques[column[first]] for _, column, uniques in encoded], names=names
    )
    declared = all(isinstance(getattr(c, "dtype", None), pd.CategoricalDtype) for c in columns.values())
    if declared and np.prod([float(len(uniques)) for _, _, uniques in encoded]) <= 10_000:
        possible = pd.MultiIndex.from_product([uniques for _, _, uniques in encoded])
        _warn_empty(list(possible[~possible.isin(found)]), name)
    return Groups(codes, found)


def _columns(features, name):
    """Return the columns of sensitive features by label."""
    if isinstance(features, pd.DataFrame) and not features.columns.is_unique:
        twice = features.columns[features.columns.duplicated()].unique().tolist()
        raise ValueError(f"{name} has the columns {twice} more than once; give each its own name.")
    if isinstance(features, pd.DataFrame) or hasattr(features, "iter_columns"):
        columns = {label: features[label] for label in features.columns}
    elif isinstance(features, dict):
        columns = dict(features)
    elif isinstance(features, pd.Series) or hasattr(features, "to_numpy"):
        label = getattr(features, "name", None)
        columns = {"sensitive_feature_0" if label in (None, "") else label: features}
    else:
        array = _as_array(features, name)
        if array.ndim == 1:
            array = array[:, None]
        if array.ndim != 2:
            raise ValueError(
                f"{name} must have shape (n,) or (n, k), got {array.shape}; "
                "pass one label for each sample, or one column for each feature."
            )
        columns = {f"sensitive_feature_{i}": array[:, i] for i in range(array.shape[1])}
    if not columns:
        raise ValueError(f"{name} has no column; pass at least one sensitive feature.")
    return columns


def _as_array(values, name):
    """Return an array; a list of strings and NaN keeps its NaN rather than make it the text "nan"."""
    array = as_array(values, name)
    if array.dtype.kind in "US" and not isinstance(values, np.ndarray):
        array = np.asarray(values, dtype=object)
    return array


def _factorize(values, name):
    """Return codes (-1 for missing) and sorted unique values."""
    if isinstance(getattr(values, "dtype", None), pd.CategoricalDtype):
        categorical = values.array if isinstance(values, pd.Series) else values
        return categorical.codes.astype(np.int64), pd.Index(categorical.categories)
    if isinstance(values, (pd.Series, pd.Index)):
        if isinstance(values.dtype, np.dtype):
            values = values.to_numpy()
    else:
        values = _as_array(values, name)
    if values.dtype == np.float16:  # pandas has no index of these
        values = values.astype(np.float32)
    kind = values.dtype.kind if isinstance(values, np.ndarray) else "extension"
    if kind in "iub" and len(values):
        codes, uniques = _factorize_integers(values)
        return codes, uniques.astype(bool) if kind == "b" else uniques
    if kind in "US" and values.dtype.itemsize and len(values):
        encoded = _factorize_fixed_width(values)
        if encoded is not None:
            return encoded
        values = values.astype(object)
    try:
        codes, uniques = pd.factorize(values, sort=True)
    except (TypeError, ValueError):  # of several types: no order, so by type and text
        try:
            codes, uniques = pd.factorize(values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} holds no group labels: {error}; pass numbers or text.") from error
        order = sorted(range(len(uniques)), key=lambda i: (type(uniques[i]).__name__, str(uniques[i])))
        rank = np.empty(len(uniques) + 1, dtype=np.int64)
        rank[order], rank[-1] = np.arange(len(uniques)), -1
        codes, uniques = rank[codes], uniques[order]
    return codes.astype(np.int64, copy=False), pd.Index(uniques)


def _factorize_integers(values):
    """Count over the range of the values where it is small."""
    values = values.view(np.uint8) if values.dtype == bool else values
    low, high = values.min(), values.max()
    if int(high) - int(low) > max(2**16, len(values)):
        codes, uniques = pd.factorize(values, sort=True)
        return codes.astype(np.int64, copy=False), pd.Index(uniques)
    uniques = np.arange(int(high) - int(low) + 1).astype(values.dtype) + low
    if values.dtype.itemsize < 8:  # a small type may not hold the differences
        return values.astype(np.int64) - np.int64(low), pd.Index(uniques)
    return (values - low).astype(np.int64, copy=False), pd.Index(uniques)


def _factorize_fixed_width(values):
    """Factorize numpy strings by a 64-bit hash of their characters, verified; None on a collision."""
    values = np.ascontiguousarray(values)
    width = next(w for w in (8, 4, 1) if values.dtype.itemsize % w == 0)
    words = values.view(f"u{width}").reshape(len(values), -1)
    odd = np.random.default_rng(0).integers(0, 2**63, words.shape[1], dtype=np.uint64) * 2 + 1
    codes, _ = pd.factorize(words @ odd)
    first = _first_positions(codes)
    representatives = words[first]
    for start in range(0, len(codes), 8192):  # in blocks that stay in the cache
        block = slice(start, start + 8192)
        if not np.array_equal(representatives[codes[block]], words[block]):
            return None
    uniques = values[first]
    order = np.argsort(uniques)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[codes], pd.Index(uniques[order].astype(object))


def _first_positions(codes):
    """Return where each code, 0 to the largest, comes first."""
    first = np.empty(codes.max() + 1, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return first


def _drop_unused(codes, n_groups):
    """Renumber codes over the groups that have samples; also return which do."""
    present = np.bincount(codes, minlength=n_groups) > 0
    if present.all():
        return codes, present
    return (np.cumsum(present) - 1)[codes], present


def _warn_empty(empty, name):
    """Warn of declared groups (categories of a categorical column) that have no sample."""
    if empty:
        from skqfair.exceptions import EmptyGroupWarning  # with scikit-learn, which takes a second

        listed = "; ".join(", ".join(map(str, parts)) for parts in empty[:5])
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        warn(
            f"{name}: no sample of the group(s) {listed}{more}; they have no accuracy and are left out.",
            EmptyGroupWarning,
        )
