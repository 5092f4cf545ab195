import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed_search.py")


@pytest.mark.parametrize("searches", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_a_killed_search_retrains_nothing_that_was_finished(tmp_path, searches):
    """Up to six kills each, SIGKILL and SIGTERM by turns, at moments drawn over the whole search."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(SCRIPT), str(tmp_path)]
    done = subprocess.run([*command, str(searches)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    undisturbed, *killed = map(json.loads, done.stdout.splitlines())
    assert undisturbed["runs"] == [{"begun": 5, "kept": 5, "killed": False}]
    kills = 0
    for search in killed:
        assert search["scores"] == undisturbed["scores"]
        begun = kept = 0
        for run in search["runs"]:
            lost = (run["begun"] - begun) - (run["kept"] - kept)
            assert lost in ((0, 1) if run["killed"] else (0,))  # the training amid which it was killed
            kills += run["killed"]
            begun, kept = run["begun"], run["kept"]
        assert kept == 5
    assert len(killed) == searches
    assert kills > 0
    print(f"{searches} searches, {kills} kills")
