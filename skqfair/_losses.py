"""Logarithms of probabilities, and means over groups."""

import numpy as np

__all__ = ["group_means", "log_probabilities"]


def group_means(values, codes):
    """Return the mean of each group that has samples, shape (present groups,)."""
    counts = np.bincount(codes)
    return (np.bincount(codes, weights=values) / np.maximum(counts, 1))[counts > 0]


def log_probabilities(probabilities):
    """Return logarithms in float64, of 0 that of the smallest normal number."""
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), np.finfo(np.float64).tiny))
