import sys

import dask
import joblib
import pytest

import skqfair.parallel  # noqa: F401 registers the backend


def test_without_a_cluster_the_error_says_what_to_do():
    with pytest.raises(ValueError, match="first create a Dask Client"):
        joblib.parallel_config(backend="dask_resilient")


def test_without_distributed_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"skqfair\[dask\]"):
        joblib.parallel_config(backend="dask_resilient")


def test_an_address_where_no_cluster_is():
    soon = dask.config.set({"distributed.comm.timeouts.connect": "0.2s"})
    with (
        soon,
        pytest.raises(OSError, match="no Dask scheduler answers at 'tcp:"),
    ):
        joblib.parallel_config(backend="dask_resilient", scheduler_host="tcp://127.0.0.1:9")
