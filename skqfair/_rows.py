"""Rows of X that stay where they are: read, made dense and cast a batch at a time."""

import copy
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import validate_data

from skqfair._items import Items, Named, is_dataset
from skqfair._lists import check_no_items, validate_array
from skqfair._row_sources import Array, Source, Sparse, mapped, source_of
from skqfair._validation import cast, check_not_masked

__all__ = [
    "AT_ONCE",
    "Inputs",
    "Rows",
    "arrays_of",
    "cast_rows",
    "check_cast",
    "only",
    "opened",
    "rows_of",
    "stays",
    "validate_rows",
    "whole",
]

AT_ONCE = 2**23
"""Bytes up to which an array is cast at once: less time than casting it in every epoch."""

_CHUNK = 2**22  # bytes of a chunk, where all rows are read in their order


class Rows:
    """Samples that are read by batch: indexed like an array, they give new arrays.

    Parameters
    ----------
    source : Source, array, scipy sparse matrix, or anything with ``shape``, ``dtype`` and rows
        Where the samples are, e.g. a memmap or a dataset of h5py or Zarr. It is never read whole.
    dtype : dtype, optional
        To cast to, batch by batch; None leaves them as they are.
    rows : ndarray of int, optional
        Which samples of the source, in this order; None is all.
    checked_for : str, optional
        The estimator for which each batch is checked to be finite when it is read.
    """

    def __init__(self, source, dtype=None, rows=None, checked_for=None):
        self._source = source if isinstance(source, Source) else source_of(source)
        self.dtype = np.dtype(self._source.dtype if dtype is None else dtype)
        self._rows, self._checked_for = rows, checked_for
        n = len(self._source) if rows is None else len(rows)
        self.shape = (n, *self._source.shape[1:])

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def sample_shape(self):
        """Shape of a sample."""
        return self.shape[1:]

    @property
    def nbytes(self):
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    @property
    def is_sparse(self):
        """Whether the source is a scipy sparse matrix."""
        return isinstance(self._source, Sparse)

    @property
    def is_read(self):
        """Whether the samples have no array behind them that scikit-learn knows."""
        return isinstance(self._source, (Items, Named))

    @property
    def is_labelled(self):
        """Whether the samples come with their labels."""
        return isinstance(self._source, Items) and self._source.is_labelled

    @property
    def kinds(self):
        """Kinds of numbers in the source."""
        return self._source.dtype.kind

    @property
    def row_bytes(self):
        """Bytes of a sample, in wide numbers."""
        return int(np.prod(self.shape[1:], dtype=int)) * max(8, self.dtype.itemsize)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        """Return one sample, or those of a slice, a mask or positions, as a new array."""
        if isinstance(index, (int, np.integer)):
            return self[[index]][0]
        return self.read(index)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.read(slice(None)), dtype=dtype)

    def read(self, index):
        """Return the samples of a slice, a mask or positions as a new array."""
        found = self._source.read(_as_slice(self._positions(index)))
        return self._finished(found, self.dtype)

    def _finished(self, found, dtype):
        if self._checked_for and found.dtype.kind == "f":
            assert_all_finite(found, estimator_name=self._checked_for, input_name="X")
        return np.ascontiguousarray(cast(found, dtype))

    def only(self, index):
        """Return some of the samples, unread."""
        rows = self._positions(index)
        if isinstance(rows, slice):
            rows = np.arange(len(self._source))[rows]
        return self._with(_rows=rows, shape=(len(rows), *self.shape[1:]))

    def astype(self, dtype):
        """Return the same samples, to be cast to another dtype when they are read."""
        return self._with(dtype=np.dtype(dtype))

    def checked_for(self, name):
        """Return the same samples, to be checked when they are read; an error names an estimator."""
        return self._with(_checked_for=name)

    def _with(self, **attributes):
        other = copy.copy(self)
        vars(other).update(attributes)
        return other

    def chunks(self):
        """Read all samples in their order, and yield some at a time."""
        size = max(1, int(_CHUNK // max(1, self.row_bytes)))
        for start in range(0, len(self), size):
            yield self.read(slice(start, start + size))

    def keep_labels(self):
        """Keep the labels of samples that are read, and raise if one changes."""
        self._source.keep_labels()

    def labels(self):
        """Return the labels, all of which were read."""
        return np.asarray(self._source.labels)

    def _positions(self, index):
        """Return rows of the source, a slice or an array of positions that are not negative."""
        if isinstance(index, slice):
            return index if self._rows is None else self._rows[index]
        index = np.asarray(index)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        index = np.where(index < 0, index + len(self), index) if len(index) else index.astype(int)
        return index if self._rows is None else self._rows[index]


class Inputs(Rows):
    """Samples of several inputs by name; a part of them that is read is again one, in memory.

    Floats and uint8 are cast to ``dtype``, other integers to int64; bool stays.

    Parameters
    ----------
    source : Source
        Whose rows are dicts of arrays.
    dtype : dtype, default=float32
        Of the floats.
    """

    def __init__(self, source, dtype=np.float32):
        super().__init__(source, dtype)
        self.names = {key: key for key in source.sample_shape}

    @property
    def sample_shape(self):
        """Shapes of a sample, by name."""
        return {self.names[key]: shape for key, shape in self._source.sample_shape.items()}

    @property
    def nbytes(self):
        return len(self) * self.row_bytes

    @property
    def kinds(self):
        """Kinds of numbers in the source."""
        return "".join(sorted({dtype.kind for dtype in self._source.dtype.values()}))

    @property
    def row_bytes(self):
        """Bytes of a sample, in wide numbers."""
        return 8 * sum(int(np.prod(shape, dtype=int)) for shape in self.sample_shape.values())

    def __getitem__(self, index):
        """Return one sample as a dict, or others as inputs in memory."""
        if isinstance(index, (int, np.integer)):
            return {name: values[0] for name, values in self.read([index]).items()}
        found = self.read(index)
        return Inputs(Named({name: Array(values) for name, values in found.items()}), self.dtype)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("several inputs are not one array.")

    def named(self, names):
        """Return the same samples with other names, those of now to the new ones."""
        return self._with(names={key: names[name] for key, name in self.names.items()})

    def _finished(self, found, dtype):
        kinds = {"b": np.dtype(bool), "i": np.dtype(np.int64), "u": np.dtype(np.int64)}
        return {
            self.names[key]: super(Inputs, self)._finished(
                values, dtype if values.dtype == np.uint8 else kinds.get(values.dtype.kind, dtype)
            )
            for key, values in found.items()
        }


def rows_of(X):
    """Return samples that are read by batch: of a Dataset, a dict of inputs, or anything else."""
    if is_dataset(X):
        source = Items(X)
        return Rows(source) if source.is_single else Inputs(source)
    if isinstance(X, Mapping) and not sparse.issparse(X):  # some sparse matrices are dicts
        if not X:
            raise ValueError("X is an empty dict; pass an array for each input of the network.")
        arrays = {
            name: values if stays(values) or isinstance(values, np.ndarray) else np.asarray(values)
            for name, values in X.items()
        }
        return Inputs(Named({name: source_of(values) for name, values in arrays.items()}))
    return Rows(X)


def opened(X, name):
    """Return a Dataset, or several inputs, as samples that are read by batch; others as they are.

    They are checked when they are read; an error names the estimator ``name``.
    """
    opens = is_dataset(X) or (isinstance(X, Mapping) and not sparse.issparse(X))
    return rows_of(X).checked_for(name) if opens else X


def whole(X):
    """Return samples as their user gave them: an array, or a dict of arrays."""
    return X.read(slice(None)) if isinstance(X, Rows) else X


def arrays_of(part):
    """Return what was read as a list: one array, or those of several inputs in the order of names."""
    return [part[name] for name in sorted(part)] if isinstance(part, dict) else [part]


def _as_slice(rows):
    """Return positions that follow each other as a slice, which is read faster."""
    if isinstance(rows, slice) or not len(rows) or rows[-1] - rows[0] != len(rows) - 1:
        return rows
    return slice(int(rows[0]), int(rows[-1]) + 1) if (np.diff(rows) == 1).all() else rows


def cast_rows(X, dtype):
    """Return samples in the dtype of the module: a small array at once, others as they are read."""
    if isinstance(X, Rows):
        return X.astype(dtype)
    if X.dtype == dtype or X.size * np.dtype(dtype).itemsize <= AT_ONCE:
        return cast(X, dtype)
    return Rows(X, dtype)


def check_cast(X):
    """Raise if samples that are cast as they are read hold values that the dtype cannot."""
    if isinstance(X, Rows) and X.dtype != X._source.dtype and "f" in X.kinds:
        for _ in X.chunks():
            pass


def only(X, index):
    """Return some samples, unread where a copy would be large."""
    if isinstance(X, np.ndarray) and (isinstance(index, slice) or X.nbytes <= AT_ONCE):
        return X[index]
    return (X if isinstance(X, Rows) else Rows(X)).only(index)


def validate_rows(estimator, X, *y, reset=True):
    """Check X, and y where it is given, as scikit-learn does, but a batch at a time.

    Parameters
    ----------
    estimator : estimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set, or compared with.
    X : array-like
        Samples; see :class:`Rows` for those that are not in memory.
    *y : array-like of shape (n,)
        Labels, where there are to be any.
    reset : bool, default=True
        Whether the attributes are set.

    Returns
    -------
    X : ndarray or Rows
        Numbers, all finite.
    y : ndarray
        Only where it was given.
    """
    for values, argument in zip((X, *y), "Xy", strict=False):
        check_not_masked(values, argument)
    check_no_items(X)
    if not (isinstance(X, Rows) or stays(X)):
        with np.errstate(invalid="ignore"):  # it adds up infinities, and then says where they are
            return validate_array(estimator, X, *y, reset=reset)
    name, given = type(estimator).__name__, isinstance(X, Rows)
    rows = X if given else rows_of(X)
    _check_rows(rows)
    if isinstance(rows, Inputs):
        vars(estimator).pop("n_features_in_", None)
    else:
        validate_data(estimator, rows if rows.is_read else X, reset=reset, skip_check_array=True)
    from_items = not given and rows.is_labelled and bool(y)
    if from_items and y[0] is not None:
        raise ValueError(
            "y is given twice: the items of the Dataset are (x, label), and y was passed too. Pass "
            "y=None, or a skorch.helper.SliceDataset of the Dataset with y."
        )
    if from_items:
        rows.keep_labels()
    if not (given or reset or rows.is_sparse or y):
        return rows.checked_for(name)
    if not given:
        _check_finite(rows, name, read=from_items)
    if not y:
        return rows
    if y[0] is None and not from_items and rows.is_read:
        raise ValueError(
            f"This {name} requires y to be passed, but the target y is None; only the items (x, label) "
            "of a Dataset bring theirs, the label a single number or text, and these have the shapes "
            f"{rows.sample_shape}."
        )
    labels = validate_data(estimator, "no_validation", rows.labels() if from_items else y[0])
    if len(labels) != len(rows):
        raise ValueError(
            "y must have one label for each row of X. Found input variables with inconsistent numbers "
            f"of samples: [{len(rows)}, {len(labels)}]"
        )
    return rows, labels


def _check_rows(rows):
    """Raise unless there are samples, of numbers."""
    if not isinstance(rows, Inputs) and not rows.ndim > 1:
        raise ValueError(f"X must have two or more dimensions, samples first; got shape {rows.shape}.")
    if not len(rows):
        raise ValueError(
            f"Found array with 0 sample(s) (shape={rows.shape}) while a minimum of 1 is required."
        )
    if set(rows.kinds) - set("fiub"):
        raise ValueError(f"X must hold numbers, got {rows._source.dtype}; encode it first.")


def stays(X):
    """Whether X is in a file, sparse, a Dataset, several inputs, or is indexed like an array."""
    if is_dataset(X) or isinstance(X, Mapping):
        return True
    if isinstance(X, np.ndarray):
        is_half = X.dtype == np.float16 and X.nbytes > AT_ONCE  # copied by scikit-learn's check
        return X.dtype != object and (is_half or mapped(X) is not None)
    if sparse.issparse(X):
        return True
    known = isinstance(X, (pd.Series, pd.DataFrame, pd.Index, np.generic))
    stored = isinstance(getattr(X, "dtype", None), np.dtype) and hasattr(X, "__getitem__")
    return stored and not known and isinstance(getattr(X, "shape", None), tuple)


def _check_finite(rows, name, *, read):
    """Raise if a sample is NaN or infinite; ``read`` has all samples read that cannot be."""
    if rows.is_sparse:
        return assert_all_finite(rows._source.values.data, estimator_name=name, input_name="X")
    if read or "f" in rows.kinds:
        for _ in rows.checked_for(name).chunks():
            pass
