"""A backend of joblib for Dask that outlives its workers.

joblib's own scatters every argument above 1 kB: it then lies on one worker, nobody knows how to make it
again, and a search ends with "lost scattered data" when that worker is gone. Here a large argument is
the result of a task that unpickles it. The scheduler keeps the task, so a lost copy is made again, and
each worker fetches it once. Small arguments travel with their tasks.
"""

import asyncio
import hashlib
import pickle
from dataclasses import dataclass

import joblib
import numpy as np
from joblib._dask import Batch, DaskDistributedBackend

from skqfair._optional import import_extra

__all__ = ["NAME", "DaskResilientBackend", "register"]

NAME = "dask_resilient"
_LARGE = 50_000  # bytes of a pickle; below that a message of its own costs more than it saves
_SMALL = (type(None), bool, int, float, complex, type, np.generic)


def register():
    """Let joblib know the backend by its name."""
    joblib.register_parallel_backend(NAME, DaskResilientBackend)


class DaskResilientBackend(DaskDistributedBackend):
    """joblib's Dask backend, without data that only one worker has.

    Parameters
    ----------
    scatter : list or tuple, optional
        Objects that are kept on the cluster from one call to the next; without it large arguments are
        kept for one call.
    **options
        Those of joblib's backend: ``client``, ``scheduler_host``, ``wait_for_workers_timeout``, and what
        ``Client.submit`` takes, e.g. ``retries``.
    """

    def __init__(self, scatter=None, **options):
        import_extra("distributed", "dask")
        if scatter is not None and not isinstance(scatter, (list, tuple)):
            raise TypeError(f"scatter must be a list or tuple of objects, got {type(scatter).__name__}.")
        super().__init__(**options)
        self._kept, self._sent = {}, {}
        for obj in scatter or ():
            self._future_of(obj, self._kept, large=0)

    def __reduce__(self):
        return DaskResilientBackend, ()

    def get_nested_backend(self):
        return DaskResilientBackend(client=self.client), -1

    def effective_n_jobs(self, n_jobs):
        """Return at least 2: of 1, joblib makes a loop in this process, also while a worker restarts."""
        return max(2, super().effective_n_jobs(n_jobs))

    def start_call(self):
        super().start_call()
        self._sent = dict(self._kept)

    def stop_call(self):
        super().stop_call()
        self._sent = {}

    async def _collect(self):
        """Hand results on. joblib's own waits for ever for a task that Dask gives up."""
        while self._continue:
            async for future, result in self.waiting_futures:
                if future.status == "error":
                    result = _Failure(result[1])
                self._results.pop(future).set_result(result)
                self._callbacks.pop(future)(result)
            await asyncio.sleep(0.01)

    def retrieve_result_callback(self, out):
        if isinstance(out, _Failure):
            raise out.error
        return super().retrieve_result_callback(out)

    async def _to_func_args(self, func):
        tasks = [
            (f, [self._large(arg) for arg in args], {k: self._large(arg) for k, arg in options.items()})
            for f, args, options in func.items
        ]
        return _NestedBatch(tasks), tasks

    def _large(self, arg):
        """Return the future of a large argument, and a small one as it is."""
        if isinstance(arg, _SMALL) or (isinstance(arg, np.ndarray) and arg.nbytes < _LARGE):
            return arg
        future = self._future_of(arg, self._sent, _LARGE)
        return arg if future is None else future

    def _future_of(self, obj, known, large):
        """Return the future of an object whose pickle has at least ``large`` bytes, else None."""
        if id(obj) not in known:
            data = _dumps(obj)
            # the object too: its id is its own for as long as it lives
            known[id(obj)] = obj, self._submit_data(data) if len(data) >= large else None
        return known[id(obj)][1]

    def _submit_data(self, data):
        dask = import_extra("dask", "dask")
        key = f"skqfair-data-{hashlib.blake2b(data, digest_size=20).hexdigest()}"
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            return self.client.submit(pickle.loads, data, key=key)


@dataclass
class _Failure:
    """What a task ended with where it did not run to its end, e.g. because it killed its workers."""

    error: BaseException


def _dumps(obj):
    return import_extra("cloudpickle", "dask").dumps(obj, protocol=5)


class _NestedBatch(Batch):
    """A batch whose own parallel calls are resilient too. Unpickling it registers the backend."""

    def __call__(self, tasks=None):
        with joblib.parallel_config(backend=NAME):
            return [f(*args, **options) for f, args, options in tasks]
