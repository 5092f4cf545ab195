"""Samples and targets as tensors beside the parameters of a module."""

import numpy as np
import torch
from torch import nn

from skqfair._items import is_dataset
from skqfair._rows import AT_ONCE, Inputs, Rows, rows_of

__all__ = ["in_floats", "samples", "targets"]


def samples(X, like):
    """Return samples as a tensor, or as :class:`Rows` that are read when they are wanted."""
    X = rows_of(X) if is_dataset(X) else X
    if isinstance(X, (Inputs, dict)):
        raise TypeError("X has several inputs; gradients and curvature are of networks with one.")
    if isinstance(X, np.ndarray) and X.nbytes > AT_ONCE and X.dtype.kind in "fiub":
        fits = X.flags.c_contiguous and X.flags.writeable and X.dtype == _dtype(like)
        X = X if fits else Rows(X)
    if not isinstance(X, Rows):
        return _tensor(X, like, "X")
    return in_floats(X, like) if X.dtype.kind == "f" else X


def in_floats(X, like):
    """Return samples in the dtype of ``like``."""
    return X.to(like.dtype) if isinstance(X, torch.Tensor) else X.astype(_dtype(like))


def _dtype(like):
    return torch.empty(0, dtype=like.dtype).numpy().dtype


def _tensor(values, like, name):
    """Return an array as a tensor beside ``like``, floats in its dtype."""
    if not isinstance(values, torch.Tensor):
        values = np.require(values, requirements=["C", "W"])
        if values.dtype.kind not in "fiubc" or values.dtype == np.longdouble:
            raise ValueError(f"{name} must hold numbers, got {values.dtype}; encode it first.")
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        values = torch.as_tensor(values)
    dtype = like.dtype if values.is_floating_point() else values.dtype
    return values.detach().to(like.device, dtype)


def targets(y, like, criterion):
    """Return targets as a tensor; positions of classes as integers."""
    y = _tensor(y, like, "y")
    classes = criterion is None or isinstance(criterion, (nn.CrossEntropyLoss, nn.NLLLoss))
    if y.is_floating_point() and classes and y.ndim == 1:
        if not y.equal(y.round()):
            raise ValueError("y must be positions of classes, 0, 1, ...; got fractions.")
        return y.long()
    return y if y.is_floating_point() else y.long()  # the losses of torch know no other integers
