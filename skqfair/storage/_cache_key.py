"""A hash of what determines a training: values, arrays, and the code of the user's own classes.

Pickles do not serve: torch objects pickle differently from copy to copy, and classes pickle by name,
so that a changed network would be taken for the old one.
"""

import contextlib
import dis
import functools
import hashlib
import importlib
import itertools
import os
import sys
import types
import weakref

import numpy as np
import torch
from torch.utils.hooks import RemovableHandle

from skqfair._rows import Inputs, Rows, arrays_of

__all__ = ["fingerprint"]

# Code of these is named with its version; all other code is hashed with what it refers to.
_LIBRARIES = {"fairlearn", "joblib", "numpy", "pandas", "scipy", "sklearn", "skorch", "torch"}
_LIBRARIES |= set(sys.stdlib_module_names) - {"__main__"}
_NOT_CODE = {
    *("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__firstlineno__"),
    *("__static_attributes__", "__slotnames__", "__abstractmethods__", "_abc_impl"),
}
_MUTATORS = {
    *("append", "extend", "insert", "pop", "remove", "clear", "add", "discard", "update", "setdefault"),
    *("appendleft", "popleft", "popitem", "write", "put"),
}
_BUILTIN = (types.BuiltinFunctionType, types.MethodType)
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), range, slice)


def fingerprint(*objects):
    """Return a hash of objects of any type, as a hexadecimal string.

    Equal values have equal hashes, also in another process. Classes and functions outside the
    libraries that the package builds on are hashed by their code, with the classes, functions and
    constants that this code refers to.

    Parameters
    ----------
    *objects : object
        Numbers, strings, arrays, tensors, modules, classes, functions, containers, or anything that
        pickles.

    Returns
    -------
    str
        Of 40 digits.

    Raises
    ------
    TypeError
        If something can be neither read nor pickled.
    """
    memo = {}
    return _digest(objects, memo).hex()


def _digest(obj, memo):
    """Return the digest of one object; ``memo`` keeps those of the objects met, and them alive."""
    if id(obj) not in memo:
        memo[id(obj)] = b"cycle", obj
        walk = _Walk(memo)
        walk.describe(obj)
        memo[id(obj)] = walk.hash.digest(), obj
    return memo[id(obj)][0]


class _Walk:
    """The description of one object, written to a hash; its parts enter as digests."""

    def __init__(self, memo):
        self.hash, self.memo = hashlib.blake2b(digest_size=20), memo

    def write(self, *parts):
        for part in parts:
            data = part if isinstance(part, bytes) else str(part).encode()
            self.hash.update(len(data).to_bytes(8, "little"))
            self.hash.update(data)

    def __call__(self, obj):
        if isinstance(obj, _PLAIN):
            self.write(type(obj).__name__, repr(obj))
        else:
            self.write(_digest(obj, self.memo))

    def describe(self, obj):
        if isinstance(obj, torch.Tensor):
            self.tensor(obj)
        elif isinstance(obj, np.ndarray) and obj.dtype != object:
            self.write("array", obj.dtype.str, obj.shape)
            self.hash.update(np.ascontiguousarray(obj).data if obj.size else b"")
        elif isinstance(obj, Inputs):
            self.write("inputs", obj.dtype.str, len(obj), sorted(obj.sample_shape.items()))
            for chunk in obj.chunks():
                for values in arrays_of(chunk):
                    self.write(values.dtype.str)
                    self.hash.update(values.data)
        elif isinstance(obj, Rows):  # as the array of the same values
            self.write("array", obj.dtype.str, obj.shape)
            for chunk in obj.chunks():
                self.hash.update(chunk.data)
        elif isinstance(obj, type):
            self.type(obj)
        elif isinstance(obj, types.FunctionType):
            self.function(obj)
        elif isinstance(obj, types.ModuleType):
            self.write("module", _version(obj.__name__))
        else:
            self.container(obj)

    def container(self, obj):
        self.write(type(obj).__qualname__)
        if isinstance(obj, dict):
            self.write(len(obj))
            for key, value in obj.items():
                self(key)
                self(value)
            if type(obj) is dict:
                return
        elif isinstance(obj, (list, tuple)):
            self.write(len(obj))
            for value in obj:
                self(value)
            if type(obj) in (list, tuple):
                return
        elif isinstance(obj, (set, frozenset)):
            return self.write(*sorted(_digest(value, self.memo).hex() for value in obj))
        elif isinstance(obj, functools.partial):
            return self([obj.func, obj.args, obj.keywords])
        elif isinstance(obj, (staticmethod, classmethod)):
            return self(obj.__func__)
        elif isinstance(obj, property):
            return self([obj.fget, obj.fset, obj.fdel])
        elif isinstance(obj, torch.Generator):
            return self(obj.get_state())
        elif isinstance(obj, (torch.dtype, torch.device, torch.layout)):
            return self.write(repr(obj))
        elif isinstance(obj, (RemovableHandle, weakref.ref)):  # handles are numbered process-wide
            return
        elif isinstance(obj, torch.nn.Module):
            return self([type(obj), _without_numbers(vars(obj))])
        elif isinstance(obj, _BUILTIN) and not isinstance(obj.__self__, types.ModuleType | None):
            return self([obj.__name__, obj.__self__])
        elif isinstance(obj, _BUILTIN):
            return self.write(obj.__module__, obj.__qualname__)
        elif hasattr(obj, "__wrapped__"):  # functools.lru_cache and the like
            return self(obj.__wrapped__)
        self.reduced(obj)

    def tensor(self, tensor):
        self.write("tensor", tensor.dtype, tuple(tensor.shape), tensor.requires_grad)
        data = tensor.detach().cpu().contiguous()
        self.hash.update(data.reshape(-1).view(torch.uint8).numpy().data if data.numel() else b"")

    def reduced(self, obj):
        """Walk what pickle would store, with the code of the class."""
        self(type(obj))
        parts = obj.__reduce_ex__(4)
        if isinstance(parts, str):
            return self.write(parts)
        for part in parts[1:3]:  # arguments of the constructor, and the state
            self(part)
        for items in parts[3:5]:
            self(list(items) if items is not None else None)

    def type(self, cls):
        self.write("class", cls.__module__, cls.__qualname__)
        if _is_library(cls.__module__):
            return self.write(_version(cls.__module__))
        for base in cls.__bases__:
            self(base)
        functions = [f.__func__ if isinstance(f, classmethod) else f for f in vars(cls).values()]
        changed = set().union(*(_changed(f.__code__) for f in functions if _is_function(f)))
        for name, member in sorted(vars(cls).items()):
            if name in _NOT_CODE or isinstance(member, types.MemberDescriptorType):
                continue
            if name not in changed or _is_function(member):
                self.write(name)
                self.referred(member)

    def function(self, function):
        self.write("function", function.__module__, function.__qualname__)
        if _is_library(function.__module__):
            return self.write(_version(function.__module__))
        self([function.__defaults__, function.__kwdefaults__])
        self.code(function.__code__, function.__globals__)
        changed = _changed(function.__code__)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a cell that is not filled yet
                if name not in changed:
                    self.referred(cell.cell_contents)

    def code(self, code, namespace):
        self.write(code.co_code, code.co_names, code.co_flags)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self.code(constant, namespace)
            else:
                self(constant)
        changed = _changed(code)
        for name in code.co_names:
            if name in namespace and name not in changed:
                self.write(name)
                self.referred(namespace[name])
                self.names_in(namespace[name], code.co_names)
        for name in _imports(code):
            if not _is_library(name):
                with contextlib.suppress(Exception):
                    self.names_in(importlib.import_module(name), code.co_names)

    def names_in(self, module, names, seen=()):
        """Walk helpers.block of a user's module: which of ``names`` are in it."""
        if isinstance(module, types.ModuleType) and not _is_library(module.__name__):
            for name in names:
                value = vars(module).get(name)
                if isinstance(value, types.ModuleType):
                    if value not in seen:
                        self.names_in(value, names, (*seen, module))
                elif name in vars(module):
                    self.write(name)
                    self.referred(value)

    def referred(self, value):
        """Walk a value that code refers to; of one that cannot be read, the class alone."""
        try:
            self(value)
        except (TypeError, AttributeError, RecursionError, ValueError):
            self(type(value))


def _is_function(member):
    return isinstance(member, types.FunctionType)


def _without_numbers(state):
    """Return the state of a module with hooks in their order: they are numbered process-wide."""
    return {
        name: list(value.values()) if "_hooks" in name and isinstance(value, dict) else value
        for name, value in state.items()
    }


@functools.lru_cache(maxsize=4096)
def _changed(code):
    """Return the names that some code assigns or mutates: counters, logs and the like.

    They change from fit to fit while the network does not. What a method assigns on its own
    instance is not meant.
    """
    changed, before = set(), None
    for step in dis.get_instructions(code):
        loaded = before.argval if before and before.opname.startswith("LOAD_FAST") else ()
        loaded = loaded[-1:] if isinstance(loaded, tuple) else (loaded,)  # newer Pythons load in pairs
        on_instance = loaded == code.co_varnames[:1] != ("cls",)
        if step.opname in ("STORE_GLOBAL", "STORE_DEREF") or (
            step.opname == "STORE_ATTR" and not on_instance
        ):
            changed.add(step.argval)
        elif step.opname in ("LOAD_METHOD", "LOAD_ATTR") and step.argval in _MUTATORS and before:
            changed.add(before.argval)
        elif step.opname == "STORE_SUBSCR":
            changed |= _containers(code)
        before = step
    return changed


def _containers(code):
    """Return the names that some code indexes; one of them is what it stores into."""
    steps = list(dis.get_instructions(code))
    loads = ("LOAD_GLOBAL", "LOAD_ATTR", "LOAD_DEREF", "LOAD_NAME")
    return {
        step.argval
        for step, after in itertools.pairwise(steps)
        if step.opname in loads and after.opname in ("LOAD_CONST", "LOAD_FAST")
    }


@functools.lru_cache(maxsize=4096)
def _imports(code):
    """Return the names of the modules that some code imports when it runs."""
    steps = dis.get_instructions(code)
    return tuple(step.argval for step in steps if step.opname == "IMPORT_NAME" and step.argval)


def _is_library(module_name):
    top = (module_name or "").partition(".")[0]
    if top in _LIBRARIES or top == "__main__":  # in a worker of joblib that is joblib's own script
        return top != "__main__"
    path = getattr(sys.modules.get(module_name), "__file__", None) or ""
    return "site-packages" in path or "dist-packages" in path


def _version(module_name):
    """Return the top-level package, its version, and when the file of an installed one changed."""
    top = module_name.partition(".")[0]
    version = getattr(sys.modules.get(top), "__version__", sys.version_info[:2])
    path = getattr(sys.modules.get(module_name), "__file__", None)
    changed = os.stat(path).st_mtime_ns if path and top not in _LIBRARIES else ""
    return f"{top} {version} {changed}"
