"""An estimator with its networks as one table of plain values, for formats that know no torch.

The table has a node for every object, so that what is shared stays shared and cycles end. A node is a
list whose first item is its kind; a value inside is a number, string or None, or ``[i]``, the i-th
node. Arrays, the user's own classes and functions, and what the format itself can store go into a list
of objects, which the format checks as it checks everything; nodes refer to them by position.
"""

import copyreg
import json
import pickle
import sys
from contextlib import contextmanager
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from skqfair.storage._allowed_names import library_name

__all__ = ["encode", "is_saved_by_attributes"]

_UNSIGNED = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def encode(estimator):
    """Return the attributes of an estimator as ``(table, objects)``.

    Parameters
    ----------
    estimator : object
        Its attributes may hold networks, tensors, frames, other estimators.

    Returns
    -------
    table : str
        The nodes, in JSON; the first is the estimator.
    objects : list
        Arrays, the user's classes and functions, and objects of other kinds.

    Raises
    ------
    TypeError
        If something cannot be found again by its name, or is no plain value; the message says where
        it is.
    """
    encoder = _Encoder()
    encoder.value(estimator)
    return json.dumps(encoder.nodes), encoder.objects


def is_saved_by_attributes(cls):
    """Tell whether objects of a class are stored past their own pickling.

    That of a skorch net hides a pickle; estimators are part of the same table.
    """
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
        return [self._positions[id(obj)]]

    def _node(self, obj):
        for kinds, node in _NODES:
            if isinstance(obj, kinds):
                return node(self, obj)
        return self._instance(obj)

    # ------------------------------------------------------------- helpers

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

    def _attributes(self, obj):
        return self.value(vars(obj)) if getattr(obj, "__dict__", None) else None

    # ---------------------------------------------------------------- kinds

    def _global(self, obj):
        return ["global", self._reference(obj)]

    def _method(self, obj):
        self._refuse(f"the bound method {obj.__qualname__}")

    def _partial(self, obj):
        return ["partial", self.value(obj.func), self._values(obj.args), self._pairs(obj.keywords)]

    def _member(self, obj):
        return ["member", self._reference(type(obj)), obj.name]

    def _path_of(self, obj):
        return ["path", str(obj)]

    def _torch(self, obj):
        return ["torch", type(obj).__name__, str(obj)]

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
        return self._other(obj)

    def _scalar(self, obj):
        if obj.dtype.kind in "biuf" and obj.dtype.itemsize <= 8:
            return ["scalar", obj.dtype.name, obj.item()]
        return self._other(obj)

    def _dtype(self, obj):
        return self._other(obj) if obj.names else ["dtype", obj.str]

    def _index(self, obj):
        if isinstance(obj, pd.MultiIndex):
            codes = [np.asarray(c) for c in obj.codes]
            return ["multiindex", self._values(obj.levels), self._values(codes), self._values(obj.names)]
        return ["index", self._column(obj), self.value(obj.name)]

    def _series(self, obj):
        parts = [self.value(obj.index), self._column(obj), self.value(obj.name)]
        return ["series", *parts, self.value(obj.attrs)]

    def _frame(self, obj):
        columns = [self._column(obj.iloc[:, i]) for i in range(obj.shape[1])]
        return ["frame", self.value(obj.index), self.value(obj.columns), columns, self.value(obj.attrs)]

    def _column(self, obj):
        """Return the values of a Series or Index, with the dtype that numpy lacks."""
        if isinstance(obj.dtype, np.dtype):
            return [self.value(obj.to_numpy()), None]
        if isinstance(obj.dtype, pd.CategoricalDtype):
            codes = np.asarray(obj.codes if isinstance(obj, pd.Index) else obj.cat.codes)
            dtype = [self.value(obj.dtype.categories), obj.dtype.ordered]
            return [self.value(codes), dtype]
        return [self.value(obj.to_numpy(dtype=object)), str(obj.dtype)]

    def _tuple(self, obj):
        cls = None if type(obj) is tuple else self._reference(type(obj))
        return ["tuple", cls, self._values(obj)]

    def _missing(self, obj):
        return ["missing"]

    def _frozenset(self, obj):
        return ["frozenset", self._values(obj)]

    def _list(self, obj):
        cls = None if type(obj) is list else self._reference(type(obj))
        return ["list", cls, self._values(list.__iter__(obj)), self._attributes(obj)]

    def _set(self, obj):
        cls = None if type(obj) is set else self._reference(type(obj))
        return ["set", cls, self._values(set.__iter__(obj)), self._attributes(obj)]

    def _dict(self, obj):
        cls = None if type(obj) is dict else self._reference(type(obj))
        default = self.value(getattr(obj, "default_factory", None))
        return ["dict", cls, self._pairs(obj), self._attributes(obj), default]

    def _instance(self, obj):
        cls, reparametrized = type(obj), []
        if isinstance(obj, nn.Module) and parametrize.is_parametrized(obj):
            cls = parametrize.type_before_parametrizations(obj)
            reparametrized = list(obj.parametrizations)
        if is_saved_by_attributes(cls):
            state = dict(vars(obj))
        elif _is_plain(cls):
            state = cls.__getstate__(obj)
        elif isinstance(obj, nn.Module):
            self._refuse(f"a {cls.__name__}, which pickles in its own way,")
        else:
            return self._other(obj)
        if isinstance(obj, nn.Module) and isinstance(state, dict):
            state = _without_compatibility(state)
        return ["instance", self._reference(cls), reparametrized, self.value(state)]

    def _other(self, obj):
        """Leave it to the format."""
        return ["object", self._stored(obj)]


_NODES = [  # the first that fits
    ((type, FunctionType, BuiltinFunctionType), _Encoder._global),
    (MethodType, _Encoder._method),
    (Enum, _Encoder._member),
    (torch.Tensor, _Encoder._tensor),
    ((torch.dtype, torch.device), _Encoder._torch),
    (np.ndarray, _Encoder._array),
    (np.generic, _Encoder._scalar),
    (np.dtype, _Encoder._dtype),
    (pd.DataFrame, _Encoder._frame),
    (pd.Series, _Encoder._series),
    (pd.Index, _Encoder._index),
    (type(pd.NA), _Encoder._missing),
    (partial, _Encoder._partial),
    (PurePath, _Encoder._path_of),
    (tuple, _Encoder._tuple),
    (frozenset, _Encoder._frozenset),
    (list, _Encoder._list),
    (set, _Encoder._set),
    (dict, _Encoder._dict),
]


def _is_plain(cls):
    """Tell whether objects of a class are what their state says, and no concern of the format."""
    if issubclass(cls, BaseEstimator) and cls.__module__.startswith("sklearn."):
        return library_name(cls) is not None  # else the format knows it
    try:
        object.__new__(cls)
    except TypeError:
        return False
    reduces = cls.__reduce__ is not object.__reduce__ or cls.__reduce_ex__ is not object.__reduce_ex__
    return not reduces and cls not in copyreg.dispatch_table


def _without_compatibility(state):
    """Drop torch's hooks that translate old names of a norm: local functions, needless here."""
    name = "_load_state_dict_pre_hooks"
    if name not in state:
        return state
    module = parametrizations.__name__
    kept = {
        key: hook
        for key, hook in state[name].items()
        if getattr(getattr(hook, "hook", hook), "__module__", "") != module
    }
    return {**state, name: type(state[name])(kept)}
