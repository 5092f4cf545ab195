"""Large arguments on the side of the workers: fetched from the scheduler once, by the first task."""

import pickle
import threading
import time
from dataclasses import dataclass

from skqfair._optional import import_extra

__all__ = ["Handle", "dumps", "resolved"]

_IDLE = 60  # seconds after which what no task has asked for is dropped
_arrived, _lock = {}, threading.RLock()


@dataclass(frozen=True)
class Handle:
    """Stands for an object that the scheduler keeps.

    Attributes
    ----------
    digest : str
        Of its pickle: what is equal is not fetched again.
    name : str
        Of its variables on the scheduler, its own: they are deleted at the end of a call.
    n_chunks : int
        How many they are.
    """

    digest: str
    name: str
    n_chunks: int

    def variables(self, client):
        """Return the variables of Dask that hold the pickle."""
        distributed = import_extra("distributed", "dask")
        return [distributed.Variable(f"{self.name}-{i}", client) for i in range(self.n_chunks)]


def dumps(obj):
    """Pickle an object, with the classes of scripts and notebooks."""
    return import_extra("cloudpickle", "dask").dumps(obj, protocol=5)


def resolved(tasks):
    """Return tasks with objects in the place of handles."""
    return [
        (f, [_object_of(arg) for arg in args], {name: _object_of(arg) for name, arg in options.items()})
        for f, args, options in tasks
    ]


def _object_of(arg):
    if not isinstance(arg, Handle):
        return arg
    with _lock:  # the threads of a worker share one copy
        now = time.monotonic()
        obj = _arrived[arg.digest][1] if arg.digest in _arrived else _fetch(arg)
        _arrived[arg.digest] = now, obj
        for other in [d for d, (used, _) in _arrived.items() if now - used > _IDLE]:
            del _arrived[other]
    return obj


def _fetch(handle):
    client = import_extra("distributed", "dask").get_client()
    return pickle.loads(b"".join(variable.get(timeout=60) for variable in handle.variables(client)))
