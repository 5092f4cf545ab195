"""Every example runs as it is downloaded from the gallery: alone, in an empty folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ENVIRONMENT = {**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}


def run(script, folder):
    shutil.copy(EXAMPLES / script, folder)
    command = [sys.executable, "-W", "ignore", script]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("plot_*.py")))
def test_an_example_runs_in_an_empty_folder(script, tmp_path):
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    if script != "plot_distributed_search.py":
        assert list(tmp_path.glob("*.png"))


def test_the_study_says_what_it_needs(tmp_path):
    done = run("reproduce_paper.py", tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "The folder 'paper' is not beside this script: run examples/reproduce_paper.py from a clone of "
        "skqfair."
    )
