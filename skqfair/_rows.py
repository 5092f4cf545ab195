"""Rows of X that stay where they are: read, made dense and cast a batch at a time."""

import mmap

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import validate_data

from skqfair._validation import cast

__all__ = ["AT_ONCE", "Rows", "cast_rows", "check_cast", "only", "validate_rows"]

AT_ONCE = 2**23
"""Bytes up to which an array is cast at once: less time than casting it in every epoch."""

_CHUNK = 2**22  # bytes of a chunk, where all rows are read in their order
_MAPPED = 2**27  # bytes of a mapped file after which its pages are given back
_AROUND = 2**21  # bytes that the system maps around a row, at most


class Rows:
    """Samples that are read by batch: indexed like an array, they give new arrays.

    Parameters
    ----------
    source : array, scipy sparse matrix, or anything with ``shape``, ``dtype`` and indexing by rows
        Where the samples are, e.g. a memmap or a dataset of h5py or Zarr. It is never read whole.
    dtype : dtype, optional
        To cast to, batch by batch; None leaves them as they are.
    rows : ndarray of int, optional
        Which samples of the source, in this order; None is all.
    """

    def __init__(self, source, dtype=None, rows=None):
        self._source = source if isinstance(source, _Source) else _source(source)
        self.dtype = np.dtype(self._source.dtype if dtype is None else dtype)
        self._rows = rows
        n = len(self._source) if rows is None else len(rows)
        self.shape = (n, *self._source.shape[1:])

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def nbytes(self):
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    @property
    def is_sparse(self):
        """Whether the source is a scipy sparse matrix."""
        return isinstance(self._source, _Sparse)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        """Return one sample, or those of a slice, a mask or positions, as a new array."""
        if isinstance(index, (int, np.integer)):
            return self[[index]][0]
        rows = _as_slice(self._positions(index))
        return np.ascontiguousarray(cast(self._source.read(rows), self.dtype))

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype=dtype)

    def only(self, index):
        """Return some of the samples, unread."""
        rows = self._positions(index)
        if isinstance(rows, slice):
            rows = np.arange(len(self._source))[rows]
        return Rows(self._source, self.dtype, rows)

    def astype(self, dtype):
        """Return the same samples, to be cast to another dtype when they are read."""
        return Rows(self._source, dtype, self._rows)

    def chunks(self):
        """Yield all samples in their order, some at a time."""
        each = max(1, np.prod(self.shape[1:], dtype=int) * max(8, self.dtype.itemsize))
        size = max(1, int(_CHUNK // each))
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def _positions(self, index):
        """Return rows of the source, a slice or an array of positions that are not negative."""
        if isinstance(index, slice):
            return index if self._rows is None else self._rows[index]
        index = np.asarray(index)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        index = np.where(index < 0, index + len(self), index) if len(index) else index.astype(int)
        return index if self._rows is None else self._rows[index]


def _as_slice(rows):
    """Return positions that follow each other as a slice, which is read faster."""
    if isinstance(rows, slice) or not len(rows) or rows[-1] - rows[0] != len(rows) - 1:
        return rows
    return slice(int(rows[0]), int(rows[-1]) + 1) if (np.diff(rows) == 1).all() else rows


class _Source:
    """What rows are read from."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, tuple(values.shape), values.dtype

    def __len__(self):
        return self.shape[0]


class _Array(_Source):
    """An array in memory, or in a mapped file."""

    def __init__(self, values):
        super().__init__(values)
        self.memmap = mapped(values)
        self.n_bytes = 0

    def read(self, rows):
        if self.memmap is None:
            return self.values[rows].copy() if isinstance(rows, slice) else self.values[rows]
        _check_size(self.memmap)
        if isinstance(rows, slice):
            found = self.values[rows].copy()
            self._give_back(found.nbytes)
            return found
        found, some = np.empty((len(rows), *self.shape[1:]), self.dtype), _MAPPED // _AROUND
        for start in range(0, len(rows), some):
            part = rows[start : start + some]
            found[start : start + some] = self.values[part]
            self._give_back(len(part) * _AROUND)
        return found

    def _give_back(self, n_bytes):
        """Let go of the pages of the file that were read, now and then; its data stay."""
        self.n_bytes += n_bytes
        if self.n_bytes >= _MAPPED and self.memmap.mode != "c":  # that has changes of its own
            self.n_bytes, mapping = 0, self.memmap.base
            if hasattr(mapping, "madvise"):
                mapping.madvise(mmap.MADV_DONTNEED)

    def __getstate__(self):
        return {"values": self.values}

    def __setstate__(self, state):
        self.__init__(state["values"])


class _Stored(_Source):
    """A dataset of h5py, Zarr and the like, which want sorted rows."""

    def read(self, rows):
        if not isinstance(rows, slice) and not len(rows):
            rows = slice(0, 0)
        every = (slice(None),) * (len(self.shape) - 1)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                return self.read(np.arange(start, stop, step))
            return self._checked(self.values[(slice(start, max(start, stop)), *every)], stop - start)
        rows, inverse = np.unique(rows, return_inverse=True)
        if rows[-1] - rows[0] == len(rows) - 1:
            found = self.values[(slice(int(rows[0]), int(rows[-1]) + 1), *every)]
        else:
            found = self.values[(rows, *every)]
        return self._checked(found, len(rows))[inverse]

    def _checked(self, found, n):
        found = np.asarray(found)
        if found.shape != (max(0, n), *self.shape[1:]):
            raise ValueError(
                f"X ({type(self.values).__name__} of shape {self.shape}) returned shape {found.shape} "
                f"for {n} rows; it has changed since, or its indexing is not by rows. Open it again."
            )
        return found


class _Sparse(_Source):
    """A scipy sparse matrix, whose rows are made dense."""

    def __init__(self, values):
        super().__init__(values.tocsr())

    def read(self, rows):
        return self.values[rows].toarray()


def _source(X):
    if sparse.issparse(X):
        return _Sparse(X)
    return _Array(X) if isinstance(X, np.ndarray) else _Stored(X)


def mapped(X):
    """Return the memmap that an array is a view of, None where it is in memory."""
    found = None
    while isinstance(X, np.ndarray):
        found = X if isinstance(X, np.memmap) and isinstance(X.base, mmap.mmap) else found
        X = X.base
    return found


def _check_size(memmap):
    """Raise if the file of a memmap is shorter than it was: reading it would end the process."""
    mapping = memmap.base
    end = memmap.offset - memmap.offset % mmap.ALLOCATIONGRANULARITY + len(mapping)
    if mapping.size() < end:
        raise ValueError(
            f"X is a memmap of {memmap.filename} that shrank: {end} bytes are mapped, the file has "
            f"{mapping.size()}. Write the file anew, and open the memmap again."
        )


def cast_rows(X, dtype):
    """Return samples in the dtype of the module: a small array at once, others as they are read."""
    if isinstance(X, Rows):
        return X.astype(dtype)
    if X.dtype == dtype or X.size * np.dtype(dtype).itemsize <= AT_ONCE:
        return cast(X, dtype)
    return Rows(X, dtype)


def check_cast(X):
    """Raise if samples that are cast as they are read hold values that the dtype cannot."""
    if isinstance(X, Rows) and X.dtype != X._source.dtype and X._source.dtype.kind == "f":
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
    if not (isinstance(X, Rows) or _stays(X)):
        return validate_data(estimator, X, *y, reset=reset, dtype="numeric", allow_nd=True)
    rows = X if isinstance(X, Rows) else Rows(X)
    if not rows.ndim > 1:
        raise ValueError(f"X must have two or more dimensions, samples first; got shape {rows.shape}.")
    if not len(rows):
        raise ValueError(
            f"Found array with 0 sample(s) (shape={rows.shape}) while a minimum of 1 is required."
        )
    if rows.dtype.kind not in "fiub":
        raise ValueError(f"X must hold numbers, got {rows.dtype}; encode it first.")
    validate_data(estimator, rows if rows is X else X, reset=reset, skip_check_array=True)
    if not isinstance(X, Rows):
        _check_finite(rows, type(estimator).__name__)
    if not y:
        return rows
    y = validate_data(estimator, "no_validation", *y)
    if len(y) != len(rows):
        raise ValueError(
            "y must have one label for each row of X. Found input variables with inconsistent numbers "
            f"of samples: [{len(rows)}, {len(y)}]"
        )
    return rows, y


def _stays(X):
    """Whether X is an array in a file, sparse, or something that is indexed like an array."""
    if isinstance(X, np.ndarray):
        is_half = X.dtype == np.float16 and X.nbytes > AT_ONCE  # copied by scikit-learn's check
        return X.dtype != object and (is_half or mapped(X) is not None)
    if sparse.issparse(X):
        return True
    known = isinstance(X, (pd.Series, pd.DataFrame, pd.Index, np.generic))
    stored = isinstance(getattr(X, "dtype", None), np.dtype) and hasattr(X, "__getitem__")
    return stored and not known and isinstance(getattr(X, "shape", None), tuple)


def _check_finite(rows, name):
    if rows.dtype.kind != "f":
        return
    if rows.is_sparse:
        return assert_all_finite(rows._source.values.data, estimator_name=name, input_name="X")
    for chunk in rows.chunks():
        assert_all_finite(chunk, estimator_name=name, input_name="X")
