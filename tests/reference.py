"""Slow, obvious references, independent of the package."""

import numpy as np


def numpy_codes(weight, scale, bits):
    """clamp(rint(w / S)) in float32; ``scale`` broadcasts; ``bits`` an int or an array that does."""
    limit = np.float32(2.0 ** (np.asarray(bits) - 1) - 1)
    quotient = np.asarray(weight, np.float32) / np.asarray(scale, np.float32)
    return np.clip(np.rint(quotient), -limit, limit).astype(np.int64)


def numpy_clip(values, calibration, q):
    """The clip magnitude of one row of values, by the definition."""
    magnitude = np.abs(np.asarray(values, np.float32).ravel())
    largest = magnitude.max() if magnitude.size else np.float32(0)
    if largest == 0 or calibration == "minmax":
        return largest
    if calibration == "percentile":
        clip = np.percentile(magnitude.astype(np.float64), 99.99)
        return np.float32(clip if clip > 0 else largest)
    best, best_error = largest, np.inf
    for k in range(100, 0, -1):
        clip = np.float32(largest * np.float32(k) / np.float32(100))
        scale = np.float32(clip / np.float32(q))
        codes = np.minimum(np.rint(magnitude / scale), np.float32(q))
        error = np.square((codes * scale).astype(np.float32) - magnitude).sum(dtype=np.float64)
        if error < best_error:
            best, best_error = clip, error
    return best


def rows_of(weight, axis):
    """The weight as (channels, rest)."""
    return np.moveaxis(np.asarray(weight), axis, 0).reshape(weight.shape[axis], -1)


def group_accuracies(y_true, y_pred, groups, weights=None):
    """Dict of group to (weighted) accuracy, by a loop."""
    weights = np.ones(len(y_true)) if weights is None else weights
    right, total = {}, {}
    for true, pred, group, weight in zip(y_true, y_pred, groups, weights, strict=True):
        total[group] = total.get(group, 0.0) + weight
        right[group] = right.get(group, 0.0) + weight * (true == pred)
    return {group: right[group] / total[group] for group in total if total[group] > 0}
