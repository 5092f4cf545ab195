import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from skqfair import FairOffsetClassifier
from skqfair.displays import OffsetFrontierDisplay
from skqfair.metrics import accuracy_frontier

FRONTIER = accuracy_frontier(
    [0.0, 0.5, 1.0], [[9, 5], [9, 6], [7, 7]], [10, 10], groups=pd.Index(["a", "b"])
)


@pytest.mark.parametrize("metric", ["fvo", "worst_accuracy"])
def test_the_line_the_band_and_the_marks(metric):
    display = OffsetFrontierDisplay(FRONTIER, 0.5, metric).plot(line_kw={"color": "k"})
    (line,) = display.ax_.lines
    np.testing.assert_array_equal(line.get_xydata(), FRONTIER[[metric, "accuracy"]])
    assert line.get_color() == "k"
    band, *marks = display.ax_.collections
    assert band.get_paths()[0].vertices[:, 0].max() == pytest.approx(FRONTIER[f"{metric}_high"].max())
    points = [mark.get_offsets()[0].tolist() for mark in marks]
    assert points == FRONTIER.loc[[0, 1], [metric, "accuracy"]].to_numpy().tolist()
    assert display.figure_ is display.ax_.figure


def test_without_offsets_there_is_one_mark():
    for strength in (None, 0.0):
        assert len(OffsetFrontierDisplay(FRONTIER, strength).plot().ax_.collections) == 2


def test_bad_input():
    with pytest.raises(ValueError, match="metric must be one of"):
        OffsetFrontierDisplay(FRONTIER, metric="accuracy")
    with pytest.raises(ValueError, match=r"frontier lacks the columns.*'fvo'.*FairOffsetClassifier"):
        OffsetFrontierDisplay(FRONTIER.drop(columns="fvo"))
    with pytest.raises(ValueError, match=r"strength must be one of the frontier's, got 0\.3"):
        OffsetFrontierDisplay(FRONTIER, 0.3)
    with pytest.raises(NotFittedError, match="has no frontier_; give a FairOffsetClassifier after"):
        OffsetFrontierDisplay.from_estimator(FairOffsetClassifier(LogisticRegression()))
