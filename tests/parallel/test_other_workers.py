"""Workers on which another package is installed than here, or none."""

import os
import subprocess
import sys

import joblib
import pytest
from distributed import Client, LocalCluster

import skqfair.parallel  # noqa: F401 registers the backend
from skqfair._version import __version__

ABSENT = "raise ModuleNotFoundError(\"No module named 'skqfair'\", name='skqfair')"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"__init__.py": ABSENT}, r"the worker tcp://\S+ has none \(No module named 'skqfair'\)"),
        ({"__init__.py": "", "_version.py": "__version__ = '0.0.9'"}, r"the worker tcp://\S+ has 0.0.9"),
    ],
)
def test_workers_of_another_version_are_refused(tmp_path, files, message):
    """One without the package would die of its first task, and the call wait for ever."""
    (tmp_path / "skqfair").mkdir()
    for name, text in files.items():
        (tmp_path / "skqfair" / name).write_text(text)
    options = {"n_workers": 0, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        words = ["-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        worker = subprocess.Popen(
            [sys.executable, *words, cluster.scheduler_address],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            stderr=subprocess.DEVNULL,
        )
        try:
            client.wait_for_workers(1, timeout=60)
            with (
                joblib.parallel_config(backend="dask_resilient"),
                pytest.raises(RuntimeError, match=f"has skqfair {__version__}, but {message}"),
            ):
                joblib.Parallel()(joblib.delayed(abs)(i) for i in range(2))
        finally:
            worker.kill()
            worker.wait()
