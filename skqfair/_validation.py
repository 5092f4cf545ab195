"""Inputs checked once: lengths, labels, weights, and the order of rows."""

import numbers

import numpy as np
import pandas as pd

__all__ = [
    "as_array",
    "as_labels",
    "cast",
    "check_aligned",
    "check_length",
    "check_no_missing",
    "check_not_masked",
    "check_rows",
    "check_sample_shape",
    "check_weights",
    "positions",
    "random_state_of",
    "relative_weights",
]


def random_state_of(random_state):
    """Return a RandomState as scikit-learn's check_random_state does, without it for integers."""
    if isinstance(random_state, numbers.Integral):
        return np.random.RandomState(random_state)
    from sklearn.utils import check_random_state  # takes a second to load

    return check_random_state(random_state)


def check_length(values, n_samples, name):
    """Raise if ``values`` has not ``n_samples`` entries."""
    if not hasattr(values, "__len__") or getattr(values, "ndim", 1) == 0:
        raise ValueError(f"{name} must have one entry for each sample, got {values!r:.60}.")
    if len(values) != n_samples:
        raise ValueError(
            f"{name} must have one entry for each sample: expected {n_samples}, got {len(values)}; "
            "pass the rows that belong to these samples."
        )


def as_labels(values, name):
    """Return labels as a 1-d array.

    Raises
    ------
    ValueError
        If the values are not one-dimensional or a column, or there are none.
    """
    if isinstance(values, (pd.Series, pd.Index)):
        values = values.to_numpy()
    check_not_masked(values, name)
    array = as_array(values, name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"{name} must be one label for each sample, shape (n,); got shape {array.shape}; "
            "for probabilities take the argmax first."
        )
    if not len(array):
        raise ValueError(f"{name} is empty; at least one sample is needed.")
    return array


def as_array(values, name):
    """Return an array, or an error that names the argument, whatever its container raises."""
    try:
        return np.asarray(values)
    except Exception as error:
        raise ValueError(
            f"{name} cannot be read as an array: {error}; pass a list or array of labels."
        ) from error


def check_not_masked(values, name):
    """Raise if values are masked: what is under the mask would be taken for data."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(
            f"{name} has {int(np.ma.count_masked(values))} masked values; drop these samples, or fill "
            f"them in: {name}.filled(...)."
        )


def check_no_missing(labels, name):
    """Raise if an array of labels has missing values."""
    if labels.dtype == object:
        try:
            if not pd.isna(pd.unique(labels)).any():  # in a quarter of the time
                return
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} holds no labels: {error}; pass numbers or text.") from error
    if labels.dtype.kind in "OfM" and (missing := int(pd.isna(labels).sum())):
        raise ValueError(f"{name} has {missing} missing labels (None or NaN); drop these samples.")


def check_sample_shape(X, shape, taken):
    """Raise if the samples of ``X`` have not ``shape``; ``taken`` says who takes them, with its verb."""
    found = getattr(X, "sample_shape", X.shape[1:])
    if found != shape and found != tuple(shape):
        raise ValueError(
            f"X has samples of shape {found}, but {taken} samples of shape {shape}; "
            "pass samples of that shape."
        )


def check_weights(sample_weight, n_samples):
    """Return ``sample_weight`` as float64 of shape (n,), or None.

    Raises
    ------
    ValueError
        For another length, NaN, infinity, negative weights, or weights that are all 0.
    """
    if sample_weight is None:
        return None
    check_not_masked(sample_weight, "sample_weight")
    try:
        weights = np.asarray(sample_weight)
        if weights.dtype.kind == "c":
            raise TypeError("complex numbers are no weights")
        weights = weights.astype(np.float64, copy=False)
    except Exception as error:  # of containers of any library
        raise ValueError(f"sample_weight must be numbers, shape ({n_samples},): {error}") from error
    if weights.ndim != 1:
        raise ValueError(f"sample_weight must have shape ({n_samples},); got {weights.shape}.")
    check_length(weights, n_samples, "sample_weight")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("sample_weight must be finite and >= 0; got NaN, infinity or a negative.")
    if not weights.any():
        raise ValueError(
            "sample_weight is 0 for every sample. "
            "Sample weights must contain at least one non-zero number."
        )
    return weights


def relative_weights(weights):
    """Return weights with a largest of 1; those below 1e-100 of it, whose squares vanish, are 0."""
    weights = weights / weights.max()
    return np.where(weights < 1e-100, 0.0, weights)


def check_aligned(reference, features, name, reference_name):
    """Raise if two pandas objects have the same index in another order: rows go by position here."""
    one, two = getattr(reference, "index", None), getattr(features, "index", None)
    if not (isinstance(one, pd.Index) and isinstance(two, pd.Index)) or one.equals(two):
        return
    if len(one) == len(two) and one.is_unique and two.is_unique and one.isin(two).all():
        raise ValueError(
            f"{name} has the index of {reference_name} in another order, but rows go by position; "
            f"align it first: {name}.loc[{reference_name}.index]."
        )


def check_rows(**arguments):
    """Raise if pandas objects among the arguments, by name, have the same index in another order."""
    indexed = [
        (name, value)
        for name, value in arguments.items()
        if isinstance(getattr(value, "index", None), pd.Index)
    ]
    for name, value in indexed[1:]:
        check_aligned(indexed[0][1], value, name, indexed[0][0])


def cast(X, dtype):
    """Cast to the dtype of the module; a value beyond its range is an error, not an infinity."""
    if X.dtype == dtype:
        return X
    if dtype.kind == "i" and X.dtype.kind == "f" and (np.rint(X) != X).any():
        raise ValueError("X must hold whole numbers: the network starts with an embedding.")
    with np.errstate(over="ignore"):
        cast = X.astype(dtype)
    if cast.dtype.kind == "f" and X.dtype.kind == "f" and not np.isfinite(cast).all():
        raise ValueError(
            f"Input X contains infinity or a value too large for {dtype!r}; scale the features first."
        )
    return cast


def positions(y, classes):
    """Return labels as positions in the classes, all of which are known."""
    order = np.argsort(classes)  # a net made with classes=[...] may have them in any order
    return order[np.searchsorted(classes, y, sorter=order)].astype(np.int64)
