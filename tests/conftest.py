import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # module_zoo and others

import matplotlib as mpl

mpl.use("Agg")
# a busy machine is no failure
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_finish(session):
    """Let torch read its 500 operators of ONNX once: it parses their sources anew at each export."""
    if "onnxscript" not in sys.modules:
        return
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
    except (ImportError, AttributeError):  # no part of torch's interface; without it all takes longer
        return


@pytest.fixture(autouse=True)
def one_thread():
    """Bitwise comparisons hold at the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def new_processes():
    """Runs code in processes in which nobody has imported skqfair."""
    from new_process import NewProcesses

    processes = NewProcesses()
    yield processes
    processes.close()


@pytest.fixture(scope="session")
def problem():
    """400 samples, 6 features, 3 string classes, a sensitive feature of 3 unequal groups."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 6)).astype(np.float32)
    y = np.array(["low", "mid", "high"], dtype=object)[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.3)]
    groups = np.array(["a", "b", "c"], dtype=object)[np.searchsorted([0.6, 0.9], rng.random(400))]
    return X, y, groups
