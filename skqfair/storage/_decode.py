"""An estimator's attributes out of the table that they were saved as.

The table may come from anybody. It says what to build out of a closed list of kinds; classes and
functions are those on the list of names, and those that the format was told to trust. No constructor
of theirs runs, nothing is imported, and bytes stay bytes.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from skorch import NeuralNet
from skorch.utils import get_map_location
from torch import nn
from torch.utils.hooks import RemovableHandle

from skqfair.storage._allowed_names import is_instance_class, library_object
from skqfair.storage._encode import DICTS, LISTS, is_saved_by_attributes

__all__ = ["decode", "keep_hooks"]


def decode(table, objects, estimator):
    """Give an estimator the attributes that were saved.

    Raises
    ------
    ValueError
        If the table is not one that :func:`encode` writes.
    """
    try:
        _Decoder(json.loads(table), objects).run(estimator)
    except Exception as error:  # whatever a table from anybody can bring about
        raise ValueError(
            f"the saved {type(estimator).__name__} is damaged or was tampered with: {error} Get the "
            "file again from where it comes from, or save the estimator again."
        ) from error


def keep_hooks(module):
    """Let hooks that are registered from now on have other numbers than those of a loaded module.

    torch counts hooks anew in each process, and the new would take the place of the loaded ones.
    """
    for hooks in (value for name, value in vars(module).items() if name.endswith("_hooks")):
        highest = max((key for key in hooks if isinstance(key, int)), default=-1)
        RemovableHandle.next_id = max(RemovableHandle.next_id, highest + 1)


class _Decoder:
    """Makes each object when it is first referred to, after the objects inside it."""

    def __init__(self, nodes, objects):
        self.nodes, self.objects = nodes, objects
        self.made, self.busy = {}, set()

    def run(self, estimator):
        kind, reference, state = self.nodes[0]
        if kind != "instance" or self._global(reference) is not type(estimator):
            raise ValueError("it was saved as an estimator of another class.")
        self.made[0] = estimator
        vars(estimator).update(self._value(state))

    def _value(self, value):
        if not isinstance(value, list):
            return value
        (i,) = value
        if type(i) is not int or not 0 <= i < len(self.nodes) or i in self.busy:
            raise ValueError(f"there is no node {i!r}, or it contains itself.")
        if i not in self.made:
            kind, *parts = self.nodes[i]
            if kind == "instance":  # what is inside may refer back to it
                self._instance(i, *parts)
            else:
                self.busy.add(i)
                self.made[i] = getattr(self, f"_make_{kind}")(*parts)
                self.busy.remove(i)
        return self.made[i]

    def _values(self, values):
        return [self._value(value) for value in values]

    def _pairs(self, pairs):
        return {self._value(key): self._value(value) for key, value in pairs}

    def _global(self, reference):
        """Return the class or function of a name, or one that the format has checked."""
        return library_object(reference) if isinstance(reference, str) else self.objects[reference]

    def _make_global(self, reference):
        found = self._global(reference)
        if not callable(found):
            raise ValueError(f"{found!r} is neither a class nor a function.")
        return found

    def _make_object(self, position):
        return self.objects[position]

    def _make_scalar(self, position):
        return self.objects[position][()]

    def _make_partial(self, function, args, keywords):
        return partial(self._value(function), *self._values(args), **self._pairs(keywords))

    def _make_text(self, kind, text):
        if kind == "missing":
            return pd.NA
        return {"path": Path, "device": _usable_device, "dtype": _dtype, "numpy": np.dtype}[kind](text)

    def _make_tensor(self, position, dtype, device, trainable, is_parameter, channels_last):
        array, dtype = self.objects[position], _dtype(dtype)
        if array.dtype.itemsize != dtype.itemsize:
            raise ValueError(f"{array.dtype} is not how {dtype} is stored.")
        tensor = torch.from_numpy(array.copy(order="K")).view(dtype).to(_usable(device))
        if channels_last:
            tensor = torch.empty_like(tensor, memory_format=torch.channels_last).copy_(tensor)
        return nn.Parameter(tensor, trainable) if is_parameter else tensor.requires_grad_(trainable)

    def _make_objects(self, shape, values):
        array = np.empty(len(values), dtype=object)
        for i, value in enumerate(values):
            array[i] = self._value(value)
        return array.reshape(shape)

    def _make_list(self, cls, values):
        return LISTS[cls](self._values(values))

    def _make_dict(self, cls, pairs, default):
        if cls == "defaultdict":
            return DICTS[cls](self._value(default), self._pairs(pairs))
        return DICTS[cls](self._pairs(pairs))

    def _make_index(self, values, dtype, name):
        return pd.Index(self._value(values), dtype=self._dtype(values, dtype), name=self._value(name))

    def _make_multiindex(self, levels, names):
        return pd.MultiIndex.from_arrays(self._values(levels), names=self._values(names))

    def _make_series(self, values, dtype, index, name, attrs):
        values, dtype = self._value(values), self._dtype(values, dtype)
        series = pd.Series(values, self._value(index), dtype=dtype, name=self._value(name))
        series.attrs = self._value(attrs)
        return series

    def _make_frame(self, columns, index, names, attrs):
        columns = [pd.Series(self._value(v), dtype=self._dtype(v, dtype)) for v, dtype in columns]
        frame = pd.DataFrame(dict(enumerate(columns)), index=range(len(self._value(index))))
        frame.index, frame.columns, frame.attrs = map(self._value, (index, names, attrs))
        return frame

    def _dtype(self, values, dtype):
        if isinstance(dtype, list):
            categories, ordered = dtype
            return pd.CategoricalDtype(self._value(categories), ordered)
        return self._value(values).dtype if dtype is None else dtype

    def _instance(self, i, reference, state):
        cls = self._global(reference)
        if not is_instance_class(cls):
            raise ValueError(f"{cls!r} is no class of objects with attributes.")
        self.made[i] = made = object.__new__(cls)
        state = self._value(state)
        if hasattr(cls, "__setstate__") and not is_saved_by_attributes(cls):
            made.__setstate__(state)
        else:
            vars(made).update(state)
        if isinstance(made, NeuralNet) and made.device is not None:
            usable = _usable(made.device)
            made.device = made.device if usable == str(made.device) else usable
        if isinstance(made, nn.Module):
            keep_hooks(made)


def _dtype(name):
    dtype = getattr(torch, name.removeprefix("torch."))
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no dtype of torch.")
    return dtype


def _usable(device):
    """Return a device as it is, or the CPU where it is not there, as skorch does."""
    return str(get_map_location(device))


def _usable_device(name):
    return torch.device(_usable(name))
