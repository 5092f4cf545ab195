"""Where samples are read from: arrays, mapped files, stored data, sparse matrices."""

import mmap

import numpy as np
from scipy import sparse

__all__ = ["Array", "Source", "Sparse", "mapped", "source_of"]

_MAPPED = 2**27  # bytes of a mapped file after which its pages are given back
_AROUND = 2**21  # bytes that the system maps around a row, at most


class Source:
    """What rows are read from."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, tuple(values.shape), values.dtype

    def __len__(self):
        return self.shape[0]


class Array(Source):
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


class _Stored(Source):
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


class Sparse(Source):
    """A scipy sparse matrix, whose rows are made dense."""

    def __init__(self, values):
        super().__init__(values.tocsr())

    def read(self, rows):
        return self.values[rows].toarray()


def source_of(X):
    if sparse.issparse(X):
        return Sparse(X)
    return Array(X) if isinstance(X, np.ndarray) else _Stored(X)


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
