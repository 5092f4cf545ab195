"""The tables of the guide are those of the committed figures."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples" / "faces"))


def test_the_tables_of_the_guide_are_those_of_the_figures():
    import draw

    page = (ROOT / "docs" / "user_guide" / "mitigation.md").read_text()
    section = page.split("## Which mitigation, at which price?")[1].split("\n##")[0]
    rows = [line for line in section.split("\n") if line.startswith("|")]
    assert rows == list(draw.tables(draw.load()))
    assert len(rows) > 40


def test_a_row_by_hand():
    import draw

    figures = pd.read_csv(ROOT / "examples" / "faces" / "figures.csv")
    figures = figures[(figures["width"] == 16) & figures["drop"].isna()].set_index("seed")
    net, floats = (figures[figures["variant"] == name] for name in ("3 bits, nearest", "float"))
    change = np.array([net["fvo"][seed] - floats["fvo"][seed] for seed in range(5)])
    half = 2.776 * change.std(ddof=1) / 5**0.5  # the quantile of t with 4 degrees of freedom
    row = next(line for line in draw.tables(draw.load()) if line.startswith("| 3 bits, nearest |"))
    assert row.endswith(f"| {change.mean():+.3f} ± {half:.3f} |")
