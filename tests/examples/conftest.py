"""The example and its parts are imported from their folder; one small study serves several tests."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

TINY = """--tasks digits --seeds 2 --bits 8 2 --max-samples 150 --epochs 1 --finetune-epochs 1
--curvature-samples 2"""


@pytest.fixture(scope="session")
def tiny():
    """Arguments of a study of seconds."""
    return TINY.split()


@pytest.fixture(scope="session")
def study(tmp_path_factory, tiny):
    """Run that study, not interrupted, and return its folder."""
    import reproduce_paper

    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("study")
    reproduce_paper.main([*tiny, "--out", str(out)])
    return out
