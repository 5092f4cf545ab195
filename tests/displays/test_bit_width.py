import matplotlib.pyplot as plt
import numpy as np
import pytest

from skqfair.displays import BitWidthDisplay
from skqfair.metrics import model_report

RNG = np.random.default_rng(0)
Y, GROUPS = RNG.integers(0, 2, 200), RNG.choice(["a", "b", "c"], 200)
PREDICTIONS = {2: RNG.integers(0, 2, 200), "float": Y, 8: np.where(RNG.random(200) < 0.1, 1 - Y, Y)}


def test_panels_show_the_table():
    display = BitWidthDisplay.from_predictions(
        Y,
        PREDICTIONS,
        sensitive_features=GROUPS,
        sizes={"float": 4000, 8: 1000, 2: 250},
        reference="float",
    ).plot()
    assert display.table_.index.tolist() == ["float", 8, 2]
    accuracy, fvo, size = display.axes_
    assert [t.get_text() for t in accuracy.get_xticklabels()] == ["float", "8", "2"]
    for ax, column in ((accuracy, "accuracy"), (fvo, "fvo")):
        line = ax.containers[0].lines[0]
        np.testing.assert_allclose(line.get_ydata().astype(float), display.table_[column])
        bars = ax.containers[0].lines[2][0].get_segments()
        low_high = [[float(s[0, 1]), float(s[1, 1])] for s in bars]
        np.testing.assert_allclose(low_high, display.table_[[f"{column}_low", f"{column}_high"]])
    assert [bar.get_height() for bar in size.patches] == [4.0, 1.0, 0.25]


def test_any_names_of_models():
    predictions = {None: Y, 4: PREDICTIONS[2], 8: PREDICTIONS[8]}
    display = BitWidthDisplay.from_predictions(Y, predictions, sensitive_features=GROUPS)
    assert [t.get_text() for t in display.axes_[0].get_xticklabels()] == ["float", "8", "4"]
    display = BitWidthDisplay.from_predictions(Y, {"W4A8": Y, "W2A8": Y}, sensitive_features=GROUPS)
    assert [t.get_text() for t in display.axes_[0].get_xticklabels()] == ["W4A8", "W2A8"]
    with pytest.raises(ValueError, match=r"sizes lacks the bytes of \[8\]"):
        BitWidthDisplay.from_predictions(
            Y, predictions, sensitive_features=GROUPS, sizes={None: 4, 4: 1}
        )


def test_from_the_results_of_a_search():
    results = {
        "param_clf__weight_bits": [None, 4, 4, 2],
        "mean_test_accuracy": np.array([0.9, 0.8, 0.85, 0.7]),
        "mean_test_fvo": np.array([-0.1, -0.5, -0.2, -0.3]),
        "mean_test_size": np.array([-400.0, -60.0, -50.0, -25.0]),
        "split0_test_accuracy": np.array([0.88, 0.8, 0.84, 0.6]),
        "split1_test_accuracy": np.array([0.92, 0.8, 0.86, 0.8]),
        "split0_test_fvo": np.array([-0.05, -0.5, -0.1, -0.3]),
        "split1_test_fvo": np.array([-0.15, -0.5, -0.3, -0.3]),
    }
    table = BitWidthDisplay.from_cv_results(results).table_
    assert table.index.tolist() == [None, 4, 2]
    np.testing.assert_allclose(table["accuracy"], [0.9, 0.85, 0.7])
    np.testing.assert_allclose(table["fvo"], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(table["fvo_low"], [0.05, 0.1, 0.3])
    np.testing.assert_allclose(table["fvo_high"], [0.15, 0.3, 0.3])
    np.testing.assert_allclose(table["size"], [400, 50, 25])
    with pytest.raises(ValueError, match="must have one parameter 'activation_bits' and scorers"):
        BitWidthDisplay.from_cv_results(results, param="activation_bits")


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
