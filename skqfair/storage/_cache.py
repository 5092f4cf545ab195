"""Results kept in the folder of a joblib.Memory, each computed by one process only."""

import builtins
import io
import os
import pickle
import re
import types
from contextlib import ExitStack, contextmanager

from filelock import FileLock, Timeout
from sklearn.utils.validation import check_memory

from skqfair._version import __version__
from skqfair._warnings import warn
from skqfair.exceptions import CacheBypassWarning
from skqfair.storage._cache_key import fingerprint
from skqfair.storage._entry import Entry

__all__ = ["Cache"]

_PRINT = print
_PATIENCE = 10  # seconds after which a lock is spoken of


class Cache:
    """Looks results up by a key and computes what is missing.

    Parameters
    ----------
    memory : None, str, path or joblib.Memory
        Where; None computes always.
    """

    def __init__(self, memory):
        if isinstance(memory, os.PathLike):
            memory = os.fspath(memory)
        place = getattr(memory, "location", memory)
        if isinstance(place, str) and re.match(r"[a-zA-Z][\w+.-]+:/", place):
            raise ValueError(
                f"memory is {place!r}, an address: networks are kept in a folder of a file system, one "
                "that renames and locks. Mount the store as such, or give a folder that all workers see."
            )
        try:
            memory = check_memory(memory)
        except OSError as error:
            warn(
                f"memory is bypassed: its folder {memory!r} cannot be made ({error}); give one on a "
                "disk with space that you may write to.",
                CacheBypassWarning,
            )
            memory = None
        self.memory = memory if getattr(memory, "location", None) is not None else None

    def key(self, *parts):
        """Return the key of what ``parts`` determine, or None if nothing is to be cached."""
        if self.memory is None:
            return None
        try:
            return fingerprint(__version__, *parts)
        except Exception as error:
            self.bypass(
                f"memory is bypassed for this fit: the network's parameters cannot be hashed ({error}); "
                "replace open files, locks and the like by values."
            )
            return None

    def has(self, key):
        """Whether the result of ``key`` is stored, and whole."""
        return self.memory is not None and key is not None and self._entry(key).read() is not None

    def get(self, key, compute, known=()):
        """Return the stored result of ``key``, or ``compute()``, stored for the next time.

        ``known`` are objects with the classes and functions of a script or notebook that the result
        may refer to: a worker of joblib has them, but cannot import them.
        """
        if self.memory is None or key is None:
            return compute()
        entry = self._entry(key)
        data = entry.read()  # needs no lock: entries are whole or not there
        if data is None:
            lock = FileLock(os.path.join(self.memory.location, "skqfair-locks", f"{key}.lock"))
            with ExitStack() as stack:
                try:
                    os.makedirs(os.path.dirname(lock.lock_file), exist_ok=True)
                    stack.enter_context(_held(lock))
                except (OSError, NotImplementedError) as error:
                    entry.unlocked = error
                data = entry.read()
                if data is None:
                    result = compute()
                    try:
                        data = _dumps(result)[0]
                    except Exception as error:
                        self.bypass(f"memory is bypassed: the network cannot be stored ({error!r}).")
                        return result
                    self._store(entry, data)
        try:
            return _loads(data, known)
        except Exception as error:  # its classes are no longer in the notebook
            self.bypass(f"memory is bypassed: what it has stored is unreadable ({error!r}).")
            return compute()

    def _entry(self, key):
        store = getattr(self.memory, "store_backend", self.memory)  # where reduce_size looks
        return Entry(os.path.join(store.location, "skqfair", key))

    def _store(self, entry, data):
        """Store; of all that may be wrong with the folder, warn once."""
        name = os.path.basename(entry.folder)
        try:
            entry.write(data)
        except OSError as error:
            self.bypass(
                f"memory is bypassed: its folder takes no files ({error}), so the network {name} was "
                "trained but is not kept; give a folder on a disk with space that you may write to."
            )
            return
        if entry.fault:
            text = f"the stored network {name} {entry.fault}; it is trained anew and replaced."
        elif entry.unlocked:
            text = f"its folder has no locks ({entry.unlocked!r}); processes may train the same network."
        else:
            return
        warn(f"memory: {text}", CacheBypassWarning)

    def bypass(self, reason):
        """Switch the cache off, with a warning, if there is one."""
        if self.memory is not None:
            warn(reason, CacheBypassWarning)
            self.memory = None


@contextmanager
def _held(lock):
    """Hold a lock; say so where another process has had it for a while."""
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        warn(
            "memory: another process is training this network; waiting for it. If there is none, "
            f"remove {lock.lock_file}.",
            UserWarning,
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Pickler(pickle.Pickler):
    """Writes classes and functions of scripts, notebooks and functions by name only."""

    def __init__(self, file):
        super().__init__(file, protocol=5)
        self.named = {}

    def persistent_id(self, obj):
        if obj is _PRINT:  # which is no longer builtins.print in the driver of a Ray cluster
            return "builtins", "print"
        if not isinstance(obj, (type, types.FunctionType)):
            return None
        name = obj.__module__, obj.__qualname__
        if name[0] != "__main__" and "<locals>" not in name[1]:
            return None
        if self.named.setdefault(name, obj) is not obj:
            raise pickle.PicklingError(f"two different objects are called {'.'.join(name)}")
        return name


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, named):
        super().__init__(file)
        self.named = named

    def persistent_load(self, name):
        return builtins.print if name == ("builtins", "print") else self.named[name]


def _dumps(obj):
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(obj)
    return file.getvalue(), pickler.named


def _loads(data, known):
    return _Unpickler(io.BytesIO(data), _dumps(known)[1]).load()
