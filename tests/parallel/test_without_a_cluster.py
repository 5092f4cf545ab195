import sys

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
