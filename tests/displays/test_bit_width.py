import matplotlib.pyplot as plt
import numpy as np
import pytest

from skqfair.displays import BitWidthDisplay
from skqfair.metrics import model_report

RNG = np.random.default_rng(0)
Y, GROUPS = RNG.integers(0, 2, 200), RNG.choice(["a", "b", "c"], 200)
PREDICTIONS = {2: RNG.integers(0, 2, 200), "float": Y, 8: np.where(RNG.random(200) < 0.1, 1 - Y, Y)}


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_panels_show_the_table():
    display = BitWidthDisplay.from_predictions(
        Y,
        PREDICTIONS,
        sensitive_features=GROUPS,
        sizes={"float": 4000, 8: 1000, 2: 250},
        reference="float",
    ).plot()
    assert display.table_.index.tolist() == [32, 8, 2]
    accuracy, fvo, size = display.axes_
    assert [t.get_text() for t in accuracy.get_xticklabels()] == ["float", "8", "2"]
    for ax, column in ((accuracy, "accuracy"), (fvo, "fvo")):
        line = ax.containers[0].lines[0]
        np.testing.assert_allclose(line.get_ydata().astype(float), display.table_[column])
        bars = ax.containers[0].lines[2][0].get_segments()
        low_high = [[float(s[0, 1]), float(s[1, 1])] for s in bars]
        np.testing.assert_allclose(low_high, display.table_[[f"{column}_low", f"{column}_high"]])
    assert [bar.get_height() for bar in size.patches] == [4.0, 1.0, 0.25]


def test_without_sizes_two_panels_on_given_axes():
    table = model_report(Y, {8: Y, 4: PREDICTIONS[2]}, sensitive_features=GROUPS)
    _, axes = plt.subplots(1, 2)
    display = BitWidthDisplay(table).plot(axes)
    assert display.axes_[0] is axes[0]
    assert display.figure_ is axes[0].figure
    with pytest.raises(ValueError, match="axes must be 2 matplotlib Axes, got 1"):
        BitWidthDisplay(table).plot(axes[0])


def test_a_table_of_something_else():
    with pytest.raises(ValueError, match=r"table lacks the columns \['accuracy_high'.*model_report"):
        BitWidthDisplay(model_report(Y, {8: Y}, sensitive_features=GROUPS).drop(columns="accuracy_high"))


def test_missing_matplotlib_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    table = model_report(Y, {8: Y}, sensitive_features=GROUPS)
    with pytest.raises(ImportError, match=r"pip install 'skqfair\[plot\]'"):
        BitWidthDisplay(table).plot()
