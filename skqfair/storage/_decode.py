"""An estimator's attributes out of the table that they were saved as.

The table may come from anybody. It says what to build out of a closed list of kinds; classes and
functions are those that the libraries are known for, and those that the format was told to trust. No
constructor runs, nothing is imported, and bytes stay bytes.
"""

import copyreg
import json
from collections import OrderedDict, defaultdict
from enum import Enum
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from skorch import NeuralNet
from skorch.utils import get_map_location
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from skqfair.storage._allowed_names import library_object
from skqfair.storage._encode import is_saved_by_attributes

__all__ = ["decode", "keep_hooks"]


def decode(table, objects, estimator):
    """Give an estimator the attributes that were saved.

    Parameters
    ----------
    table : str
        From :func:`encode`.
    objects : list
        Likewise.
    estimator : object
        Without attributes; of the class that was saved.

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
    """Makes all objects, empty where others may refer back to them, then fills them, the last first."""

    def __init__(self, nodes, objects):
        self.nodes, self.objects = nodes, objects
        self.made = {}

    def run(self, estimator):
        kind, cls, *_ = self.nodes[0]
        if kind != "instance" or self._class(cls) is not type(estimator):
            raise ValueError("it was saved as an estimator of another class.")
        self.made[0] = estimator
        for i in range(len(self.nodes)):
            self._make(i)
        for i in reversed(range(len(self.nodes))):
            kind, *parts = self.nodes[i]
            fill = getattr(self, f"_fill_{kind}", None)
            if fill is not None:
                fill(self.made[i], *parts)

    # ------------------------------------------------------------- helpers

    def _make(self, i):
        if i not in self.made:
            kind, *parts = self.nodes[i]
            self.made[i] = getattr(self, f"_make_{kind}")(*parts)
        return self.made[i]

    def _value(self, value):
        if not isinstance(value, list):
            return value
        (i,) = value
        if type(i) is not int or not 0 <= i < len(self.nodes):
            raise ValueError(f"there is no node {i!r}.")
        return self._make(i)

    def _values(self, values):
        return [self._value(value) for value in values]

    def _global(self, reference):
        """Return the class or function of a name, or one that the format has checked."""
        if isinstance(reference, str):
            return library_object(reference)
        return self.objects[reference]

    def _class(self, reference, base=object):
        cls = self._global(reference)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise ValueError(f"{cls!r} is no subclass of {base.__name__}.")
        return cls

    def _empty(self, reference, *bases):
        """Return a new container: of the first of these types that the class comes from."""
        cls = bases[-1] if reference is None else self._class(reference, bases[-1])
        return next(base for base in bases if issubclass(cls, base)).__new__(cls)

    # ---------------------------------------------------- made at one stroke

    def _make_global(self, reference):
        found = self._global(reference)
        if not callable(found):
            raise ValueError(f"{found!r} is neither a class nor a function.")
        return found

    def _make_object(self, position):
        return self.objects[position]

    def _make_partial(self, function, args, keywords):
        keywords = {self._value(key): self._value(value) for key, value in keywords}
        return partial(self._value(function), *self._values(args), **keywords)

    def _make_member(self, reference, name):
        return self._class(reference, Enum).__members__[name]

    def _make_path(self, path):
        return Path(path)

    def _make_torch(self, kind, name):
        return torch.device(_usable(name)) if kind == "device" else _dtype(name)

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
        array[:] = [None] * len(values)
        for i, value in enumerate(values):
            array[i] = self._value(value)
        return array.reshape(shape)

    def _make_scalar(self, dtype, value):
        return np.dtype(dtype).type(value)

    def _make_dtype(self, name):
        return np.dtype(name)

    def _make_tuple(self, reference, values):
        cls, values = tuple if reference is None else self._class(reference, tuple), self._values(values)
        return torch.Size(values) if cls is torch.Size else tuple.__new__(cls, values)

    def _make_frozenset(self, values):
        return frozenset(self._values(values))

    def _make_missing(self):
        return pd.NA

    def _make_index(self, column, name):
        values, dtype = self._column(column)
        return pd.Index(values, dtype=dtype, name=self._value(name))

    def _make_multiindex(self, levels, codes, names):
        return pd.MultiIndex(self._values(levels), self._values(codes), names=self._values(names))

    def _make_series(self, index, column, name, attrs):
        values, dtype = self._column(column)
        return pd.Series(values, self._value(index), dtype=dtype, name=self._value(name))

    def _make_frame(self, index, columns, values, attrs):
        columns, index = self._value(columns), self._value(index)
        series = {}
        for i, column in enumerate(values):
            values, dtype = self._column(column)
            series[i] = pd.Series(values, dtype=dtype)
        frame = pd.DataFrame(series, index=range(len(index)))
        frame.index, frame.columns = index, columns
        return frame

    def _column(self, column):
        values, dtype = column
        values = self._value(values)
        if isinstance(dtype, list):
            categories, ordered = dtype
            dtype = pd.CategoricalDtype(self._value(categories), ordered)
            return pd.Categorical.from_codes(values, dtype=dtype), None
        return values, values.dtype if dtype is None else dtype

    # -------------------------------------------------------- filled later

    def _make_list(self, reference, values, attributes):
        return self._empty(reference, list)

    def _fill_list(self, made, reference, values, attributes):
        list.extend(made, self._values(values))
        self._fill_attributes(made, attributes)

    def _make_set(self, reference, values, attributes):
        return self._empty(reference, set)

    def _fill_set(self, made, reference, values, attributes):
        set.update(made, self._values(values))
        self._fill_attributes(made, attributes)

    def _make_dict(self, reference, pairs, attributes, default):
        return self._empty(reference, OrderedDict, defaultdict, dict)

    def _fill_dict(self, made, reference, pairs, attributes, default):
        put = OrderedDict.__setitem__ if isinstance(made, OrderedDict) else dict.__setitem__
        for key, value in pairs:
            put(made, self._value(key), self._value(value))
        if isinstance(made, defaultdict):
            made.default_factory = self._value(default)
        self._fill_attributes(made, attributes)

    def _fill_attributes(self, made, attributes):
        if attributes is not None:
            vars(made).update(self._value(attributes))

    def _fill_series(self, made, index, column, name, attrs):
        made.attrs = self._value(attrs)

    def _fill_frame(self, made, index, columns, values, attrs):
        made.attrs = self._value(attrs)

    def _make_instance(self, reference, reparametrized, state):
        made = object.__new__(self._class(reference, nn.Module if reparametrized else object))
        if reparametrized:  # torch gives such a module a class of its own
            parametrize._inject_new_class(made)
            for name in reparametrized:
                parametrize._inject_property(made, name)
        return made

    def _fill_instance(self, made, reference, reparametrized, state):
        state, cls = self._value(state), type(made)
        if hasattr(cls, "__setstate__") and not is_saved_by_attributes(cls):
            made.__setstate__(state)
        else:
            attributes, slots = state if isinstance(state, tuple) else (state, None)
            vars(made).update(attributes or {})
            for name, value in (slots or {}).items():
                if name not in copyreg._slotnames(cls):
                    raise ValueError(f"{name!r} is no slot of {cls.__name__}.")
                object.__setattr__(made, name, value)
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
