"""A few hashes by which rows are known again: which part of some data is in other data."""

import hashlib

import numpy as np

from skqfair._rows import Rows, arrays_of

__all__ = ["share_known", "sketch"]

_KEPT = 512


def sketch(X):
    """Return the smallest hashes of the rows, ndarray of uint64, at most 512."""
    kept = np.empty(0, np.uint64)
    for found in _hashes(X):
        kept = np.union1d(kept, found)[:_KEPT]
    return kept


def share_known(X, known):
    """Return which share of the rows was in the data of a sketch; 0 where that cannot be told.

    Of all hashes up to the largest of a full sketch it tells exactly whether they were there: a random
    sample of the rows.
    """
    n_found = n_known = 0
    for found in _hashes(X):
        if len(known) == _KEPT:
            found = found[found <= known[-1]]
        n_found, n_known = n_found + len(found), n_known + int(np.isin(found, known).sum())
    return n_known / n_found if n_found else 0.0


def _hashes(X):
    """Yield the hashes of all rows, some at a time."""
    for part in (X if isinstance(X, Rows) else Rows(X)).chunks():
        parts = [values.reshape(len(values), -1) for values in arrays_of(part)]
        rows = parts[0] if len(parts) == 1 else map(_joined, zip(*parts, strict=True))
        digests = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows)
        yield np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _joined(values):
    return b"".join(value.tobytes() for value in values)
