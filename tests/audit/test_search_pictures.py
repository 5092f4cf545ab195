"""What a search varied, in pictures: bits, and bits by whatever else."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skqfair import CompressionAudit

N = 300
X = np.random.default_rng(0).normal(size=(N, 2))
Y = (X[:, 0] > 0).astype(int)
GROUPS = pd.Series(np.where(X[:, 1] > 0, "f", "m"), name="sex")


class Toy(ClassifierMixin, BaseEstimator):
    """Wrong more often with fewer bits and without a mitigation."""

    def __init__(self, weight_bits=None, mitigation=None, sized=True):
        self.weight_bits = weight_bits
        self.mitigation = mitigation
        self.sized = sized

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        if self.sized:
            self.model_size_ = 100 * (self.weight_bits or 32)
        return self

    def predict(self, X):
        bits = self.weight_bits or 32
        wrong = (
            np.random.default_rng(bits).random(len(X)) < (0.4 if self.mitigation is None else 0.1) / bits
        )
        return np.where(wrong, X[:, 0] <= 0, X[:, 0] > 0).astype(int)


def audited(grid, estimator=None, **options):
    search = GridSearchCV(estimator or Toy(), grid, cv=2).fit(X, Y)
    return CompressionAudit.from_search(
        search, X, Y, X_train=X, y_train=Y, sensitive_features=GROUPS, metrics=(), **options
    )


def drawn(ax):
    """Return x, y and both ends of the whiskers of each curve with intervals, by its label."""
    found = {}
    for container in ax.containers:
        line, _, (bars,) = container.lines
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        x, y = (np.asarray(values, dtype=float) for values in line.get_data())
        found[container.get_label()] = (x, y, ends[:, 0], ends[:, 1])
    return found


def tick_labels(ax):
    return [label.get_text() for label in ax.get_xticklabels()]


def test_bits_alone_are_the_display_of_bit_widths():
    audit = audited({"weight_bits": [2, None, np.int64(8)]})
    accuracy_by_group, change, accuracy, fvo, size = audit.plot()
    assert [ax.get_ylabel() for ax in (accuracy, fvo, size)] == ["accuracy", "FVO", "size (kB)"]
    assert tick_labels(accuracy) == tick_labels(size) == ["float", "8", "2"]
    assert change.get_xlabel() == "change of accuracy against\nweight_bits=None"
    rows = audit.models.loc[["weight_bits=None", "weight_bits=8", "weight_bits=2"]]
    for ax, column, label in ((accuracy, "accuracy", "all samples"), (fvo, "fvo", "observed")):
        _, value, low, high = drawn(ax)[label]
        np.testing.assert_allclose(value, rows[column])
        np.testing.assert_allclose(low, rows[f"{column}_low"])
        np.testing.assert_allclose(high, rows[f"{column}_high"])
    assert [bar.get_height() for bar in size.patches] == [3.2, 0.8, 0.2]
    with pytest.raises(ValueError, match="axes must be 5"):
        audit.plot([accuracy_by_group, change])


@pytest.mark.parametrize("from_json", [False, True])
def test_a_curve_for_each_mitigation(from_json):
    pipeline = make_pipeline(StandardScaler(with_mean=False, with_std=False), Toy())
    grid = {"toy__weight_bits": [4, None, 2], "toy__mitigation": [None, "penalty $1"]}
    audit = audited(grid, pipeline, reference="mitigation=None, weight_bits=None")
    if from_json:
        audit = CompressionAudit.from_json(audit.to_json())
    _, _, *below = audit.plot()
    for ax, column in zip(below, ("accuracy", "fvo"), strict=True):
        assert tick_labels(ax) == ["float", "4", "2"]
        curves = drawn(ax)
        assert list(curves) == ["mitigation=None", r"mitigation=penalty \$1"]
        for mitigation, (x, value, low, high) in zip(
            ("None", "penalty $1"), curves.values(), strict=True
        ):
            names = [f"mitigation={mitigation}, weight_bits={bits}" for bits in (None, 4, 2)]
            rows = audit.models.loc[names]
            np.testing.assert_allclose(x, np.arange(3), atol=0.2)
            np.testing.assert_allclose(value, rows[column])
            np.testing.assert_allclose(low, rows[f"{column}_low"])
            np.testing.assert_allclose(high, rows[f"{column}_high"])


def test_what_a_candidate_does_not_say_is_as_in_the_estimator():
    grids = [{"weight_bits": [None]}, {"weight_bits": [4, 2], "mitigation": ["a", "b"]}]
    audit = audited(grids, Toy(mitigation="a"))
    *_, accuracy, _ = audit.plot()
    curves = drawn(accuracy)
    assert {label: np.round(x).tolist() for label, (x, *_) in curves.items()} == {
        "mitigation=a": [0, 1, 2],
        "mitigation=b": [1, 2],
    }


@pytest.mark.parametrize(
    "grid", [{"mitigation": [None, "a"]}, {"weight_bits": [None], "mitigation": [None, "a"]}]
)
def test_nothing_more_without_two_bit_widths(grid):
    audit = audited(grid, reference=Toy().fit(X, Y))
    assert len(audit.plot()) == 2
    assert "by weight bits" not in audit.to_html()


def test_candidates_without_sizes_have_no_panel_of_them():
    assert len(audited({"weight_bits": [None, 2]}, Toy(sized=False)).plot()) == 4


def test_names_of_any_length_stay_inside_the_figure():
    """Everything that is drawn lies on the canvas."""
    audit = audited(
        {"weight_bits": [None, 4, 3, 2], "mitigation": [None, "a" * 60, "b" * 60]},
        reference="mitigation=None, weight_bits=None",
    )
    figure = audit.plot()[0].figure.figure
    figure.canvas.draw()
    box = figure.get_tightbbox()
    assert box.x0 > -0.05
    assert box.y0 > -0.05
    assert box.x1 < figure.get_figwidth() + 0.05
    assert box.y1 < figure.get_figheight() + 0.05


def test_the_page_has_them_too():
    audit = audited({"weight_bits": [None, 2], "mitigation": [None, "<a>"]}, reference=Toy().fit(X, Y))
    text = audit.to_html()
    for title in ("Accuracy by weight bits", "FVO by weight bits"):
        assert f"<figcaption>{title}</figcaption>" in text
        assert f'aria-label="{title}: 2 bit widths, mitigation=None, mitigation=&lt;a&gt;.' in text
    row = audit.models.loc["mitigation=<a>, weight_bits=2"]
    figures = [f"{row[f'fvo{end}']:.3f}" for end in ("", "_low", "_high")]
    assert "2, mitigation=&lt;a&gt;: {} ({} to {})".format(*figures) in text
    assert len(re.findall(r'<svg role="img"', text)) == 4
