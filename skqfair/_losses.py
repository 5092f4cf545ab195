"""Probabilities and losses of samples, and their means over groups."""

import numpy as np

__all__ = ["log_probabilities"]


def log_probabilities(probabilities):
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), np.finfo(np.float64).tiny))
