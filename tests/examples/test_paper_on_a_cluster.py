"""The study on the workers of a Dask cluster, which were started elsewhere and know nothing of it."""

import os
import subprocess
import sys
from pathlib import Path

import joblib
import pandas as pd
import pytest
import reproduce_paper

distributed = pytest.importorskip("distributed")
ROOT = Path(__file__).parents[2]
TABLES = "models", "groups", "curvature"


@pytest.fixture
def address(tmp_path):
    """The address of a scheduler with two workers of one thread, in another folder."""
    words = ["-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-dashboard", "--no-nanny"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = {"n_workers": 0, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster:
        address, workers = cluster.scheduler_address, []
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        try:
            for _ in range(2):
                command = [sys.executable, *words, address]
                log = (elsewhere / "log").open("ab")
                workers.append(
                    subprocess.Popen(command, cwd=elsewhere, env=environment, stderr=log, stdout=log)
                )
                log.close()
            with distributed.Client(address) as client:
                client.wait_for_workers(2, timeout=60)
            yield address
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


def test_workers_get_the_code_of_the_study(tmp_path, tiny, address):
    """With that of a task of the user's own."""
    own = ROOT / "examples" / "paper" / "own_adult.py"
    options = reproduce_paper.parse(["--own", f"{own}:Income", "--dask", address])
    with reproduce_paper.workers_of(options):
        calls = [joblib.delayed(options.own_class)(epochs=i) for i in range(3)]
        assert [task.epochs for task in joblib.Parallel()(calls)] == [0, 1, 2]


@pytest.mark.slow
def test_a_study_on_a_cluster_has_the_same_figures(study, tmp_path, tiny, address, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reproduce_paper.main([*tiny, "--seeds", "1", "--out", "out", "--dask", address])
    for table in TABLES:
        wanted = pd.read_csv(study / f"{table}.csv").query("seed == 0").reset_index(drop=True)
        found = pd.read_csv(tmp_path / "out" / f"{table}.csv")
        pd.testing.assert_frame_equal(found, wanted, check_dtype=False, check_exact=True)
    command = (tmp_path / "out" / "study.json").read_text()
    assert "dask" not in command  # which changes no figure


def test_what_a_cluster_cannot_do(tiny, tmp_path, capsys, monkeypatch):
    arguments = [*tiny, "--out", str(tmp_path), "--dask", "tcp://127.0.0.1:9"]
    with pytest.raises(SystemExit):
        reproduce_paper.parse([*arguments, "--jobs", "2"])
    assert "--jobs is of this machine" in capsys.readouterr().err
    import dask

    soon = dask.config.set({"distributed.comm.timeouts.connect": "0.2s"})
    with soon, pytest.raises(SystemExit, match=r"--dask: no scheduler answers at 'tcp://127.0.0.1:9'"):
        reproduce_paper.main(arguments)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SystemExit, match=r"--dask: .*pip install '.\[dask\]'"):
        reproduce_paper.main(arguments)
