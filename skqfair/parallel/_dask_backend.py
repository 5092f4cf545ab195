"""A backend of joblib for Dask that outlives its workers.

joblib's own scatters every argument above 1 kB: it then lies on one worker, nobody knows how to make it
again, and a search ends with "lost scattered data" when that worker is gone. Besides, Dask gives tasks
to the workers that have what they need, and others stay idle. Here a large argument is kept by the
scheduler, and each worker fetches it once, whenever it comes. Small arguments travel with their tasks.
"""

import asyncio
import contextlib
import hashlib
import uuid
from dataclasses import dataclass

import joblib
import numpy as np
from joblib._dask import Batch, DaskDistributedBackend

from skqfair._optional import import_extra
from skqfair.parallel._same_version import check_workers
from skqfair.parallel._worker_data import Handle, dumps, resolved

__all__ = ["NAME", "DaskResilientBackend", "register"]

NAME = "dask_resilient"
_LARGE = 50_000  # bytes of a pickle; below that a message of its own costs more than it saves
_CHUNK = 2**28  # bytes of a message
_SMALL = (type(None), bool, int, float, complex, str, type, np.generic)


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
        try:
            super().__init__(**options)
        except OSError as error:
            raise OSError(
                f"no Dask scheduler answers at {options.get('scheduler_host')!r} ({error}); start one "
                "there (`dask scheduler`, then `dask worker ADDRESS` on each machine), or give the "
                "address that it prints."
            ) from error
        self._scattered = list(scatter or ())  # their ids are their own for as long as they live
        self._kept, self._sent = {}, {}

    def __reduce__(self):
        return DaskResilientBackend, ()

    def get_nested_backend(self):
        return DaskResilientBackend(client=self.client), -1

    def effective_n_jobs(self, n_jobs):
        """Return at least 2: of 1, joblib makes a loop in this process, also while a worker restarts."""
        return max(2, super().effective_n_jobs(n_jobs))

    def start_call(self):
        if not _in_a_task():
            check_workers(self.client)
        super().start_call()

    def stop_call(self):
        super().stop_call()
        sent, self._sent = self._sent, {}
        self._forget(sent)

    def __del__(self):
        with contextlib.suppress(Exception):  # the client may be closed, and the interpreter end
            self._forget(self._kept)

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
        tasks = []
        for f, args, options in func.items:
            args = [await self._light(arg) for arg in args]
            tasks.append((f, args, {name: await self._light(arg) for name, arg in options.items()}))
        return _ResilientBatch(tasks), tasks

    async def _light(self, arg):
        """Return the handle of a large argument, and a small one as it is."""
        if isinstance(arg, _SMALL) or (isinstance(arg, np.ndarray) and arg.nbytes < _LARGE):
            return arg
        scattered = any(arg is obj for obj in self._scattered)
        known = self._kept if scattered else self._sent
        if id(arg) not in known:  # beside the object, whose id is its own for as long as it lives
            known[id(arg)] = arg, asyncio.ensure_future(self._send(arg, 0 if scattered else _LARGE))
        handle = await known[id(arg)][1]
        return arg if handle is None else handle

    async def _send(self, obj, large):
        """Give an object to the scheduler; return its handle, or None if it is small."""
        data = dumps(obj)
        if len(data) < large:
            return None
        chunks = [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)]
        digest = hashlib.blake2b(data, digest_size=20).hexdigest()
        handle = Handle(digest, f"skqfair-{uuid.uuid4().hex}", len(chunks))
        for variable, chunk in zip(handle.variables(self.client), chunks, strict=True):
            await variable.set(chunk, asynchronous=True)
        return handle

    def _forget(self, known):
        """Let the scheduler forget what it was given."""
        for _, sending in known.values():
            if sending.done() and not sending.cancelled() and not sending.exception():
                for variable in sending.result().variables(self.client) if sending.result() else ():
                    variable.delete()


def _in_a_task():
    try:
        import_extra("distributed", "dask").get_worker()
    except ValueError:
        return False
    return True


@dataclass
class _Failure:
    """What a task ended with where it did not run to its end, e.g. because it killed its workers."""

    error: BaseException


class _ResilientBatch(Batch):
    """A batch that fetches its data, and whose own parallel calls are resilient too."""

    def __call__(self, tasks=None):
        with joblib.parallel_config(backend=NAME):
            return [f(*args, **options) for f, args, options in resolved(tasks)]
