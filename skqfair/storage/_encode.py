"""An estimator with its networks as one table of plain values, for formats that know no torch.

The table has a node for every object, so that what is shared stays shared. A node is a list whose first
item is its kind; a value inside is a number, string or None, or ``[i]``, the i-th node. Arrays and the
user's own classes and functions go into a list of objects, which the format checks; nodes refer to them
by position. What is of no kind is refused.
"""

import copyreg
import json
import pickle
import sys
from collections import OrderedDict, defaultdict
from contextlib import contextmanager
from functools import partial
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from skorch.history import History
from torch import nn
from torch.nn.utils import parametrize

from skqfair.storage._allowed_names import is_instance_class, library_name

__all__ = ["DICTS", "LISTS", "encode", "is_saved_by_attributes"]

LISTS = {cls.__name__: cls for cls in (list, tuple, set, frozenset, torch.Size, History)}
DICTS = {cls.__name__: cls for cls in (dict, OrderedDict, defaultdict)}
_UNSIGNED = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def encode(estimator):
    """Return the attributes of an estimator as ``(table, objects)``, JSON and a list.

    Raises
    ------
    TypeError
        If something is of no kind that can be saved; the message says where it is.
    """
    encoder = _Encoder()
    encoder.value(estimator)
    return json.dumps(encoder.nodes), encoder.objects


def is_saved_by_attributes(cls):
    """Tell whether the methods of a class for pickling are passed over: skorch's hide a pickle."""
    return issubclass(cls, NeuralNet) or hasattr(cls, "_is_saved_by_attributes")


class _Encoder:
    def __init__(self):
        self.nodes, self.objects = [], []
        self._positions, self._own, self._kept, self._path = {}, {}, [], []

    def value(self, obj):
        """Return what stands for an object inside a node."""
        if obj is None or type(obj) in (bool, int, float, str):
            return obj
        if isinstance(obj, nn.Module):  # out of the wrapper of torch.compile, as everywhere
            obj = vars(obj).get("_modules", {}).get("_orig_mod", obj)
        if id(obj) not in self._positions:
            self._positions[id(obj)] = position = len(self.nodes)
            self._kept.append(obj)  # its id must not be used again
            self.nodes.append(None)
            self.nodes[position] = self._node(obj)
        if self.nodes[self._positions[id(obj)]] is None:
            self._refuse(f"a {type(obj).__name__} that contains itself")
        return [self._positions[id(obj)]]

    def _node(self, obj):
        cls = type(obj)
        for kinds, node in _NODES:
            if isinstance(obj, kinds):
                return node(self, obj)
        if LISTS.get(cls.__name__) is cls:
            return ["list", cls.__name__, self._values(obj)]
        if DICTS.get(cls.__name__) is cls:
            default = self.value(getattr(obj, "default_factory", None))
            return ["dict", cls.__name__, self._pairs(obj), default]
        if obj is pd.NA:
            return ["text", "missing", ""]
        if isinstance(obj, np.dtype) and not obj.names:
            return ["text", "numpy", obj.str]
        if isinstance(obj, (partial, torch.dtype, torch.device, PurePath)):
            if cls is partial:
                return [
                    "partial",
                    self.value(obj.func),
                    self._values(obj.args),
                    self._pairs(obj.keywords),
                ]
            return ["text", "path" if isinstance(obj, PurePath) else cls.__name__, str(obj)]
        return self._instance(obj)

    def _values(self, items):
        found = []
        for i, item in enumerate(items):
            with self._at(i):
                found.append(self.value(item))
        return found

    def _pairs(self, mapping):
        found = []
        for key, item in mapping.items():
            with self._at(key):
                found.append([self.value(key), self.value(item)])
        return found

    @contextmanager
    def _at(self, key):
        self._path.append(str(key))
        yield
        self._path.pop()

    def _refuse(self, what, remedy="remove it, or use joblib."):
        where = " > ".join(self._path) or "the estimator"
        raise TypeError(f"{where}: {what} cannot be saved without pickle; {remedy}")

    def _reference(self, obj):
        """Return the name of a library's class or function, the position of the user's own."""
        name = library_name(obj)
        if name is not None:
            return name
        if id(obj) not in self._own:
            module = sys.modules.get(pickle.whichmodule(obj, obj.__name__))
            if getattr(module, obj.__name__, None) is not obj:
                self._refuse(
                    f"{obj.__qualname__}, which its module does not have under that name,",
                    "define it at the top level of a module, or use joblib.",
                )
            self._own[id(obj)] = self._stored(obj)
        return self._own[id(obj)]

    def _stored(self, obj):
        self.objects.append(obj)
        return len(self.objects) - 1

    def _global(self, obj):
        return ["global", self._reference(obj)]

    def _tensor(self, obj):
        if nn.parameter.is_lazy(obj):
            self._refuse("a lazy parameter without a size", "give the module its sizes, or use joblib.")
        if obj.layout != torch.strided or obj.is_quantized:
            self._refuse(f"a tensor of {obj.layout} and {obj.dtype}", "use joblib.")
        values = obj.detach().cpu().resolve_conj().resolve_neg()
        try:
            array = values.numpy()
        except TypeError:  # numpy lacks the dtype
            array = values.view(_UNSIGNED[values.element_size()]).numpy()
        images = torch.channels_last  # the results of convolutions depend on it
        like = torch.empty_like(obj, device="meta", memory_format=images) if obj.ndim == 4 else None
        channels_last = like is not None and obj.stride() == like.stride()
        how = [obj.is_leaf and obj.requires_grad, isinstance(obj, nn.Parameter), channels_last]
        return ["tensor", self._stored(array), str(obj.dtype), str(obj.device), *how]

    def _array(self, obj):
        if obj.dtype == object and type(obj) is np.ndarray:
            return ["objects", list(obj.shape), self._values(obj.ravel().tolist())]
        return self._object(obj)

    def _object(self, obj):
        return ["object", self._stored(obj)]

    def _scalar(self, obj):
        return ["scalar", self._stored(np.asarray(obj))]

    def _index(self, obj):
        if isinstance(obj, pd.MultiIndex):
            levels = [obj.get_level_values(i) for i in range(obj.nlevels)]
            return ["multiindex", self._values(levels), self._values(obj.names)]
        return ["index", *self._column(obj), self.value(obj.name)]

    def _series(self, obj):
        parts = [self.value(obj.index), self.value(obj.name), self.value(obj.attrs)]
        return ["series", *self._column(obj), *parts]

    def _frame(self, obj):
        columns = [self._column(obj.iloc[:, i]) for i in range(obj.shape[1])]
        return ["frame", columns, self.value(obj.index), self.value(obj.columns), self.value(obj.attrs)]

    def _column(self, obj):
        """Return the values of a Series or Index, with the dtype that numpy lacks."""
        if isinstance(obj.dtype, np.dtype):
            return [self.value(obj.to_numpy()), None]
        dtype = str(obj.dtype)
        if isinstance(obj.dtype, pd.CategoricalDtype):
            dtype = [self.value(obj.dtype.categories), obj.dtype.ordered]
        return [self.value(obj.to_numpy(dtype=object)), dtype]

    def _instance(self, obj):
        cls = type(obj)
        if isinstance(obj, nn.Module) and parametrize.is_parametrized(obj):
            self._refuse("a parametrization", "remove it with remove_parametrizations, or use joblib.")
        if (
            isinstance(obj, BaseEstimator)
            and cls.__module__.startswith("sklearn.")
            and not library_name(cls)
        ):
            return self._object(obj)  # the format knows it
        if not is_instance_class(cls):
            self._refuse(getattr(obj, "__qualname__", f"an object of {cls.__qualname__}"))
        if not is_saved_by_attributes(cls) and (
            cls.__reduce_ex__ is not object.__reduce_ex__
            or cls.__reduce__ is not object.__reduce__
            or cls in copyreg.dispatch_table
        ):
            self._refuse(f"a {cls.__name__}, which pickles in its own way,")
        state = vars(obj) if is_saved_by_attributes(cls) else cls.__getstate__(obj)
        if not isinstance(state, dict):
            self._refuse(f"a {cls.__name__} whose state is no dict")
        self.nodes[self._positions[id(obj)]] = []  # what is inside may refer back to it
        return ["instance", self._reference(cls), self.value(dict(state))]


_NODES = [  # the first that fits
    ((type, FunctionType, BuiltinFunctionType), _Encoder._global),
    (torch.Tensor, _Encoder._tensor),
    (np.ndarray, _Encoder._array),
    (np.generic, _Encoder._scalar),
    ((np.random.RandomState, np.random.Generator), _Encoder._object),
    (pd.DataFrame, _Encoder._frame),
    (pd.Series, _Encoder._series),
    (pd.Index, _Encoder._index),
]
