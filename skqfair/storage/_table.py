"""An estimator with its networks as one table of plain values, for formats that know no torch.

The table has a node for every object, so that what is shared stays shared. A node is a list whose first
item is its kind; a value inside is a number, string or None, or ``[i]``, the i-th node. Arrays and the
user's own classes and functions go into a list of objects, which the format checks; nodes refer to them
by position. What is of no kind is refused.

A table may come from anybody. Its classes and functions are those on the list of names, and those that
the format was told to trust. No constructor of theirs runs, nothing but the package itself is imported,
bytes stay bytes.
"""

import copyreg
import json
import pickle
import sys
from collections import OrderedDict, defaultdict
from types import BuiltinFunctionType, FunctionType

import numpy as np
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from skorch.history import History
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from skqfair.storage._allowed_names import is_instance_class, library_name, library_object
from skqfair.storage._kinds import KINDS, usable

__all__ = ["decode", "encode", "keep_hooks"]

_LISTS = {cls.__name__: cls for cls in (list, tuple, set, frozenset, torch.Size, History)}
_DICTS = {cls.__name__: cls for cls in (dict, OrderedDict, defaultdict)}


def encode(estimator):
    """Return an estimator as ``(table, objects)``; TypeError says where something is of no kind."""
    encoder = _Encoder()
    encoder.value(estimator)
    return json.dumps(encoder.nodes), encoder.objects


def decode(table, objects, estimator):
    """Give an estimator the attributes of a table; ValueError if :func:`encode` did not write it."""
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


def _by_attributes(cls):
    """Tell whether the methods of a class for pickling are passed over: skorch's hide a pickle."""
    return issubclass(cls, NeuralNet) or hasattr(cls, "_is_saved_by_attributes")


class _Encoder:
    def __init__(self):
        self.nodes, self.objects = [], []
        self._positions, self._own, self._kept = {}, {}, []

    def value(self, obj, *path):
        """Return what stands for an object inside a node."""
        if obj is None or type(obj) in (bool, int, float, str):
            return obj
        if isinstance(obj, nn.Module):  # out of the wrapper of torch.compile, as everywhere
            obj = vars(obj).get("_modules", {}).get("_orig_mod", obj)
        if id(obj) not in self._positions:
            self._positions[id(obj)] = position = len(self.nodes)
            self._kept.append(obj)  # its id must not be used again
            self.nodes.append(None)
            self.nodes[position] = self._node(obj, path)
        if self.nodes[self._positions[id(obj)]] is None:
            _refuse(path, f"a {type(obj).__name__} that contains itself")
        return [self._positions[id(obj)]]

    def _node(self, obj, path):
        cls = type(obj)
        if isinstance(obj, (type, FunctionType, BuiltinFunctionType)):
            return ["global", self._reference(obj, path)]
        if _LISTS.get(cls.__name__) is cls:
            return ["list", cls.__name__, [self.value(v, *path, i) for i, v in enumerate(obj)]]
        if _DICTS.get(cls.__name__) is cls:
            pairs = [[self.value(key, *path), self.value(v, *path, key)] for key, v in obj.items()]
            return [
                "dict",
                cls.__name__,
                pairs,
                self.value(getattr(obj, "default_factory", None), *path),
            ]
        sklearns = isinstance(obj, BaseEstimator) and cls.__module__.startswith("sklearn.")
        if (sklearns and not library_name(cls)) or isinstance(
            obj, (np.random.RandomState, np.random.Generator)
        ):
            return ["object", self._stored(obj)]  # the format knows it
        if type(obj) is bytes or (isinstance(obj, np.ndarray) and obj.dtype != object):
            return ["object", self._stored(obj)]
        if isinstance(obj, torch.Tensor):
            if nn.parameter.is_lazy(obj):
                _refuse(path, "a lazy parameter without a size", "give the module its sizes")
            if obj.layout != torch.strided or obj.is_quantized:
                _refuse(path, f"a tensor of {obj.layout} and {obj.dtype}")
        for kind, (types, parts, _) in KINDS.items():
            if isinstance(obj, types):
                return [kind, *(self.value(part, *path) for part in parts(obj))]
        return self._instance(obj, cls, path)

    def _instance(self, obj, cls, path):
        if isinstance(obj, nn.Module) and parametrize.is_parametrized(obj):
            _refuse(path, "a parametrization", "remove it with remove_parametrizations")
        if not is_instance_class(cls):
            _refuse(path, getattr(obj, "__qualname__", f"an object of {cls.__qualname__}"))
        own = any(getattr(cls, n) is not getattr(object, n) for n in ("__reduce__", "__reduce_ex__"))
        if not _by_attributes(cls) and (own or cls in copyreg.dispatch_table):
            _refuse(path, f"a {cls.__name__}, which pickles in its own way,")
        if hasattr(cls, "_saved_attributes"):
            state = obj._saved_attributes()
        else:
            state = vars(obj) if _by_attributes(cls) else cls.__getstate__(obj)
        self.nodes[self._positions[id(obj)]] = []  # what is inside may refer back to it
        return ["instance", self._reference(cls, path), self.value(dict(state), *path)]

    def _reference(self, obj, path):
        """Return the name of a library's class or function, the position of the user's own."""
        name = library_name(obj)
        if name is not None:
            return name
        if id(obj) not in self._own:
            module = sys.modules.get(pickle.whichmodule(obj, obj.__name__))
            if getattr(module, obj.__name__, None) is not obj:
                what = f"{obj.__qualname__}, which its module does not have under that name,"
                _refuse(path, what, "define it at the top level of a module")
            self._own[id(obj)] = self._stored(obj)
        return self._own[id(obj)]

    def _stored(self, obj):
        self.objects.append(obj)
        return len(self.objects) - 1


def _refuse(path, what, remedy="remove it"):
    where = " > ".join(map(str, path)) or "the estimator"
    raise TypeError(f"{where}: {what} cannot be saved without pickle; {remedy}, or use joblib.")


class _Decoder:
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
        """Return the object of a value, made when it is first referred to."""
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
                self.made[i] = self._made(kind, *parts)
                self.busy.remove(i)
        return self.made[i]

    def _made(self, kind, *parts):
        if kind == "list":
            cls, values = parts
            return _LISTS[cls](map(self._value, values))
        if kind == "dict":
            cls, pairs, default = parts
            pairs = [(self._value(key), self._value(value)) for key, value in pairs]
            return (
                defaultdict(self._value(default), pairs) if cls == "defaultdict" else _DICTS[cls](pairs)
            )
        if kind == "object":
            return self.objects[parts[0]]
        if kind == "global":
            found = self._global(parts[0])
            if not callable(found):
                raise ValueError(f"{found!r} is neither a class nor a function.")
            return found
        return KINDS[kind][2](*map(self._value, parts))

    def _global(self, reference):
        """Return the class or function of a name, or one that the format has checked."""
        return library_object(reference) if isinstance(reference, str) else self.objects[reference]

    def _instance(self, i, reference, state):
        cls = self._global(reference)
        if not is_instance_class(cls):
            raise ValueError(f"{cls!r} is no class of objects with attributes.")
        self.made[i] = made = object.__new__(cls)
        state = self._value(state)
        if hasattr(cls, "__setstate__") and not _by_attributes(cls):
            made.__setstate__(state)
        else:
            vars(made).update(state)
        if isinstance(made, NeuralNet) and made.device is not None:
            found = usable(made.device)
            made.device = made.device if found == str(made.device) else found
        if isinstance(made, nn.Module):
            keep_hooks(made)
