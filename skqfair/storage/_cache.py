"""Results kept on disk by joblib, each computed by one process only."""

import hashlib
import io
import os
import pickle
import types
import warnings
from contextlib import contextmanager

from filelock import FileLock, Timeout
from sklearn.utils.validation import check_memory

from skqfair._version import __version__
from skqfair.exceptions import CacheBypassWarning
from skqfair.storage._cache_key import fingerprint

__all__ = ["Cache"]

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
        memory = check_memory(memory)
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
        """Whether the result of ``key`` is stored."""
        if self.memory is None or key is None:
            return False
        return self._stored().check_call_in_cache(key, None)

    def _stored(self):
        return self.memory.cache(_compute, ignore=["compute"])

    def get(self, key, compute, known=()):
        """Return the stored result of ``key``, or ``compute()``, stored for the next time.

        ``known`` are objects with the classes and functions of a script or notebook that the result
        may refer to: a worker of joblib has them, but cannot import them.
        """
        if self.memory is None or key is None:
            return compute()
        stored = self._stored()
        folder = os.path.join(self.memory.location, "skqfair-locks")
        os.makedirs(folder, exist_ok=True)
        # joblib alone lets two processes compute the same result at the same time
        with _held(FileLock(os.path.join(folder, f"{key}.lock"))):
            try:
                digest, data = stored(key, compute)
                if digest != _digest(data):
                    warnings.warn(
                        f"memory: the stored network {key} is damaged; it is trained anew and replaced.",
                        CacheBypassWarning,
                        stacklevel=6,
                    )
                    stored.call_and_shelve(key, compute).clear()
                    digest, data = stored(key, compute)
            except _NotStored as failure:
                self.bypass(f"memory is bypassed: the network cannot be stored ({failure}).")
                return failure.result
            try:
                return _loads(data, known)
            except Exception as error:  # damaged, or its classes are no longer in the notebook
                self.bypass(f"memory is bypassed: what it has stored is unreadable ({error!r}).")
                return compute()

    def bypass(self, reason):
        """Switch the cache off, with a warning, if there is one."""
        if self.memory is not None:
            warnings.warn(reason, CacheBypassWarning, stacklevel=6)
            self.memory = None


class _NotStored(Exception):
    def __init__(self, error, result):
        super().__init__(str(error))
        self.result = result


def _digest(data):
    return hashlib.blake2b(data, digest_size=20).digest()


@contextmanager
def _held(lock):
    """Hold a lock; say so where another process has had it for a while."""
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        warnings.warn(
            "memory: another process is training this network; waiting for it. If there is none, "
            f"remove {lock.lock_file}.",
            stacklevel=7,
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _compute(key, compute):
    result = compute()
    try:
        data = _dumps(result)[0]
        return _digest(data), data
    except Exception as error:
        raise _NotStored(error, result) from error


class _Pickler(pickle.Pickler):
    """Writes classes and functions of scripts, notebooks and functions by name only."""

    def __init__(self, file):
        super().__init__(file, protocol=5)
        self.named = {}

    def persistent_id(self, obj):
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
        return self.named[name]


def _dumps(obj):
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(obj)
    return file.getvalue(), pickler.named


def _loads(data, known):
    return _Unpickler(io.BytesIO(data), _dumps(known)[1]).load()
