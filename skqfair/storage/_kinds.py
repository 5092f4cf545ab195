"""Kinds of values that a saved estimator may hold: the parts of each, and how it is made again."""

from functools import partial
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
import torch
from skorch.utils import get_map_location
from torch import nn

__all__ = ["KINDS", "usable"]

_UNSIGNED = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def usable(device):
    """Return the name of a device, or of the CPU where the device is not there, as skorch does."""
    return str(get_map_location(device))


def _dtype(name):
    dtype = getattr(torch, name.removeprefix("torch."))
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no dtype of torch.")
    return dtype


def _tensor_parts(tensor):
    values = tensor.detach().cpu().resolve_conj().resolve_neg()
    try:
        array = values.numpy()
    except TypeError:  # numpy lacks the dtype
        array = values.view(_UNSIGNED[values.element_size()]).numpy()
    images = torch.channels_last  # the results of convolutions depend on it
    like = torch.empty_like(tensor, device="meta", memory_format=images) if tensor.ndim == 4 else None
    channels_last = like is not None and tensor.stride() == like.stride()
    trainable = tensor.is_leaf and tensor.requires_grad
    is_parameter = isinstance(tensor, nn.Parameter)
    return array, str(tensor.dtype), str(tensor.device), trainable, is_parameter, channels_last


def _tensor(array, dtype, device, trainable, is_parameter, channels_last):
    dtype = _dtype(dtype)
    if array.dtype.itemsize != dtype.itemsize:
        raise ValueError(f"{array.dtype} is not how {dtype} is stored.")
    tensor = torch.from_numpy(array.copy(order="K")).view(dtype).to(usable(device))
    if channels_last:
        tensor = torch.empty_like(tensor, memory_format=torch.channels_last).copy_(tensor)
    return nn.Parameter(tensor, trainable) if is_parameter else tensor.requires_grad_(trainable)


def _column_parts(column):
    """Return the values of a Series or Index, and the dtype that numpy lacks."""
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy(), None
    dtype = str(column.dtype)
    if isinstance(column.dtype, pd.CategoricalDtype):
        dtype = column.dtype.categories, column.dtype.ordered
    return column.to_numpy(dtype=object), dtype


def _column(kind, values, dtype, **others):
    dtype = pd.CategoricalDtype(*dtype) if isinstance(dtype, tuple) else dtype
    return kind(values, dtype=values.dtype if dtype is None else dtype, **others)


def _series(values, dtype, index, name, attrs):
    series = _column(pd.Series, values, dtype, index=index, name=name)
    series.attrs = attrs
    return series


def _frame(columns, index, names, attrs):
    columns = {i: _column(pd.Series, *column) for i, column in enumerate(columns)}
    frame = pd.DataFrame(columns, index=range(len(index)))
    frame.index, frame.columns, frame.attrs = index, names, attrs
    return frame


def _frame_parts(frame):
    columns = [_column_parts(frame.iloc[:, i]) for i in range(frame.shape[1])]
    return columns, frame.index, frame.columns, frame.attrs


def _objects(shape, values):
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array.reshape(shape)


KINDS = {  # the types, the parts of a value, what makes it of them; the first that fits
    "tensor": (torch.Tensor, _tensor_parts, _tensor),
    "torch_dtype": (torch.dtype, lambda dtype: [str(dtype)], _dtype),
    "device": (torch.device, lambda device: [str(device)], lambda name: torch.device(usable(name))),
    "objects": (np.ndarray, lambda array: (list(array.shape), array.ravel().tolist()), _objects),
    "scalar": (np.generic, lambda scalar: [np.asarray(scalar)], lambda array: array[()]),
    "numpy_dtype": (np.dtype, lambda dtype: [dtype.str], np.dtype),
    "frame": (pd.DataFrame, _frame_parts, _frame),
    "series": (pd.Series, lambda s: (*_column_parts(s), s.index, s.name, s.attrs), _series),
    "multiindex": (
        pd.MultiIndex,
        lambda index: ([index.get_level_values(i) for i in range(index.nlevels)], list(index.names)),
        lambda levels, names: pd.MultiIndex.from_arrays(levels, names=names),
    ),
    "index": (
        pd.Index,
        lambda index: (*_column_parts(index), index.name),
        lambda values, dtype, name: _column(pd.Index, values, dtype, name=name),
    ),
    "missing": (type(pd.NA), lambda missing: [], lambda: pd.NA),
    "partial": (
        partial,
        lambda function: (function.func, function.args, function.keywords),
        lambda function, args, keywords: partial(function, *args, **keywords),
    ),
    "path": (PurePath, lambda path: [str(path)], Path),
}
