"""Repeatable randomness that leaves the global generators as they were."""

import random
import threading
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils import check_random_state

__all__ = ["draw_seed", "preserved", "seeded"]

# The generators are global to the process, so one fit at a time may use them.
_LOCK = threading.RLock()


def draw_seed(random_state):
    """Return an integer seed: from ``random_state``, or a fresh one for None."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0] % (2**31))
    return int(check_random_state(random_state).randint(2**31 - 1))


@contextmanager
def preserved():
    """Put torch's global generator back after the block; no training goes on meanwhile."""
    with _LOCK, torch.random.fork_rng(devices=[]):
        yield


@contextmanager
def seeded(seed):
    """Seed torch's, numpy's and Python's global generators for the block, then put them back."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with _LOCK, torch.random.fork_rng(devices=devices):
        numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
