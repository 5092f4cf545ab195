"""Samples out of a torch Dataset, and several inputs of a network by name."""

import sys
from collections.abc import Mapping

import numpy as np

from skqfair._row_sources import Source

__all__ = ["Items", "Named", "is_dataset"]

_NONE = object()


class Named(Source):
    """Several inputs: a source for each name.

    Parameters
    ----------
    values : dict of str to Source
        Of equal length.
    """

    def __init__(self, values):
        lengths = {name: len(source) for name, source in values.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(
                f"X is a dict of inputs, which must be of equal length; got {lengths}. Pass arrays with "
                "one row for each sample."
            )
        self.values, self.shape = values, (next(iter(lengths.values())),)
        self.sample_shape = {name: source.shape[1:] for name, source in values.items()}
        self.dtype = {name: source.dtype for name, source in values.items()}

    def read(self, rows):
        return {name: source.read(rows) for name, source in self.values.items()}


class Items(Source):
    """The items of a map-style Dataset of torch, x or (x, label), read one at a time.

    x is an array, tensor or image; for several inputs a dict or a tuple of them.
    """

    def __init__(self, dataset):
        self.values, self.labels, n = dataset, None, _n_items(dataset)
        if not n:
            raise ValueError("Found array with 0 sample(s): the Dataset is empty.")
        first, label = self._item(0)
        self.is_labelled, self._kind = label is not _NONE, _kind(first)
        self.shape, self.dtype = (n,), {name: array.dtype for name, array in first.items()}
        self.sample_shape = {name: array.shape for name, array in first.items()}
        self.is_single = None in first
        if self.is_single:
            self.shape, self.dtype = (n, *first[None].shape), first[None].dtype

    def read(self, rows):
        rows = range(*rows.indices(len(self))) if isinstance(rows, slice) else rows.tolist()
        found = {
            name: np.empty((len(rows), *shape), dtype) for name, (shape, dtype) in self._kind.items()
        }
        for position, row in enumerate(rows):
            x, label = self._item(row)
            self._check(row, x, label)
            for name, array in x.items():
                found[name][position] = array
        return found[None] if self.is_single else found

    def _item(self, row):
        """Return x as arrays by name, None where there is one, and the label where it has one."""
        try:
            return _take_apart(self.values[row], alone=_is_slice(self.values))
        except Exception as error:
            raise ValueError(
                f"item {row} of the {_name(self.values)} fails with {type(error).__name__}: {error}"
            ) from error

    def _check(self, row, x, label):
        """Raise if an item is not as the first one, or its label not as it was."""
        if _kind(x) != self._kind:
            raise ValueError(
                f"item {row} of the {_name(self.values)} is {_described(_kind(x))}, but the first was "
                f"{_described(self._kind)}; all items must be of one shape and dtype, whenever they are "
                "read: resize or pad them in the Dataset (a collate function of the net comes too late)."
            )
        if self.labels is None:
            return
        if label is _NONE:
            raise ValueError(f"item {row} of the {_name(self.values)} has no label, but the first has.")
        known = self.labels[row]
        if known is _NONE:
            self.labels[row] = label
        elif known != label:
            raise ValueError(
                f"item {row} of the {_name(self.values)} has the label {label!r}, but had {known!r} "
                "when it was read before; labels must not change."
            )

    def keep_labels(self):
        """Keep the labels of the items that are read, and raise if one changes."""
        self.labels = [_NONE] * len(self)


def is_dataset(X):
    """Whether X is a Dataset of torch, a slice of one by skorch, or a loader (to be refused)."""
    return _is_of("Dataset", X) or _is_of("DataLoader", X) or _is_slice(X)


def _is_of(name, X):
    """Whether X is an instance of a class of torch.utils.data; no need to import that to find out."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(X, getattr(data, name))


def _is_slice(X):
    """Whether X is a ``SliceDataset`` of skorch, whose items are x alone."""
    return all(hasattr(X, name) for name in ("dataset", "idx", "indices_"))


def _name(dataset):
    inner = dataset.dataset if _is_slice(dataset) else dataset
    return (
        type(inner).__name__
        if type(inner).__name__.endswith("Dataset")
        else (f"Dataset {type(inner).__name__}")
    )


def _n_items(dataset):
    if _is_of("DataLoader", dataset):
        raise TypeError("X is a DataLoader; pass its dataset, from which the net makes batches.")
    try:
        if _is_of("IterableDataset", dataset):
            raise TypeError("it is an IterableDataset")
        return len(dataset)
    except (TypeError, NotImplementedError) as error:
        raise TypeError(
            f"X is a Dataset ({type(dataset).__name__}) whose items cannot be counted: {error}. Pass "
            "one of map style, with __len__ and __getitem__, whose rows can be drawn in any order."
        ) from error


def _take_apart(item, *, alone):
    label, pair = _NONE, isinstance(item, (tuple, list)) and len(item) == 2
    if pair and not alone and _is_label(item[1]):
        item, label = item
        label = label.item() if hasattr(label, "item") else label
    if isinstance(item, tuple) and len(item) == 1:  # as TensorDataset has them
        item = item[0]
    if isinstance(item, Mapping):
        return {name: _array(value) for name, value in item.items()}, label
    if isinstance(item, tuple):
        return {position: _array(value) for position, value in enumerate(item)}, label
    return {None: _array(item)}, label


def _is_label(value):
    return value is None or np.isscalar(value) or getattr(value, "ndim", None) == 0


def _array(value):
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _kind(x):
    return {name: (array.shape, array.dtype) for name, array in x.items()}


def _described(kind):
    parts = {name: f"{dtype} of shape {shape}" for name, (shape, dtype) in kind.items()}
    return parts[None] if list(parts) == [None] else str(parts)
