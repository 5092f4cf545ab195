"""The inputs of a model of unknown making: arrays of the dtypes and shapes that it takes."""

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Input", "feeds", "inputs_of"]

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
    **{f"tensor({name})": np.dtype(name).type for name in ("int8", "int16", "int32", "int64")},
    **{f"tensor({name})": np.dtype(name).type for name in ("uint8", "uint16", "uint32", "uint64")},
}


@dataclass(frozen=True)
class Input:
    """An input of a model.

    Attributes
    ----------
    name : str
        In the file.
    dtype : numpy.dtype
        Of its elements.
    shape : tuple of (int or None)
        The samples first; None for sizes that are free.
    """

    name: str
    dtype: np.dtype
    shape: tuple

    @property
    def width(self):
        """Features of a sample, None where that is free or there are more dimensions."""
        return self.shape[1] if len(self.shape) == 2 else None


def inputs_of(session, name):
    """Return the inputs of a session, or raise for those of a type that numpy lacks."""
    found = []
    for each in session.get_inputs():
        if each.type not in _DTYPES:
            raise ValueError(
                f"{name} cannot be used: its input {each.name!r} has type {each.type}; export it with "
                "inputs of float32."
            )
        shape = tuple(size if isinstance(size, int) else None for size in each.shape)
        found.append(Input(each.name, np.dtype(_DTYPES[each.type]), shape))
    return found


def feeds(inputs, X):
    """Return the arrays for the inputs of a model.

    Parameters
    ----------
    inputs : list of Input
        Of the model.
    X : array-like, frame or dict of arrays
        Samples. A dict has the names of the inputs. For several inputs a frame has columns of their
        names, and an array the columns of all inputs in their order.

    Returns
    -------
    dict of str to ndarray
        By name of the input, all with the same number of rows.

    Raises
    ------
    ValueError
        For input that does not fit.
    """
    names = [each.name for each in inputs]
    if isinstance(X, dict):
        _check_names(names, X, "key")
        parts = [X[name] for name in names]
    elif len(inputs) == 1:
        parts = [X]
    else:
        parts = _split(inputs, names, X)
    arrays = {each.name: _cast(each, part) for each, part in zip(inputs, parts, strict=True)}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"X must have as many rows for each input; got {lengths}.")
    if not min(lengths.values()):
        raise ValueError("X has 0 samples; at least one is needed.")
    return arrays


def _split(inputs, names, X):
    columns = [str(column) for column in getattr(X, "columns", ())]
    if set(names) <= set(columns):
        return [X[name] for name in names]
    widths = [each.width for each in inputs]
    array = np.asarray(X)
    if None in widths or array.ndim != 2 or array.shape[1] != sum(widths):
        if columns:
            _check_names(names, columns, "column")
        raise ValueError(
            f"X has shape {array.shape}, but the model has the inputs "
            f"{ {each.name: each.shape for each in inputs} }; pass a dict or a frame with these names, "
            "or an array with the columns of all of them in this order."
        )
    ends = np.cumsum(widths)[:-1]
    return np.split(array, ends, axis=1)


def _check_names(names, given, what):
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(
            f"X has no {what} for the inputs {missing} of the model; its {what}s are "
            f"{[str(name) for name in given][:20]}."
        )


def _cast(wanted, values):
    array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    rank = len(wanted.shape)
    if array.ndim == 1 and rank == 2 and wanted.width in (1, None):
        array = array[:, None]  # one column
    known = list(wanted.shape[1:])
    fits = array.ndim == rank and all(
        size is None or size == own for size, own in zip(known, array.shape[1:], strict=True)
    )
    if rank and not fits:
        shape = ("n", *("any" if size is None else size for size in known))
        raise ValueError(
            f"X has shape {array.shape}, but the input {wanted.name!r} of the model takes "
            f"({', '.join(map(str, shape))}); pass samples of that shape."
        )
    if wanted.dtype.kind == "O":
        return array.astype(str).astype(object)
    if array.dtype.kind == "c":
        raise ValueError(f"X holds complex numbers; the input {wanted.name!r} takes {wanted.dtype}.")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = array if array.dtype.kind in "fiub" else array.astype(np.float64)
            cast = numbers.astype(wanted.dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"X must hold numbers for the input {wanted.name!r} ({wanted.dtype}): {error}"
        ) from error
    if wanted.dtype.kind == "f":
        bad = np.isinf(cast) & ~np.isinf(numbers)
    else:
        bad = cast != numbers
    if bad.any():
        value = numbers[bad][0].item()
        raise ValueError(
            f"X has {value!r}, which the input {wanted.name!r} of dtype {wanted.dtype} cannot hold; "
            "pass values of that dtype."
        )
    return np.ascontiguousarray(cast)


def batch_of(inputs):
    """Return the number of rows that a model is fixed to, None where that is free."""
    sizes = {each.shape[0] for each in inputs if each.shape and each.shape[0] is not None}
    return max(sizes) if sizes else None


def sample_numbers(arrays):
    """Return how many numbers a sample has, over all inputs."""
    return sum(math.prod(array.shape[1:]) for array in arrays.values())
