"""The comparison by group, recomputed by hand on models that differ in a known way."""

import warnings

import numpy as np
import pandas as pd
import pytest
from exports import fitted, mlp, rows
from fairlearn.metrics import MetricFrame
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score

from skqfair.exceptions import ParityError, ParityWarning
from skqfair.export import OnnxClassifier, parity_report, to_onnx

X = rows(400, seed=3)
Y = np.arange(400) % 3
GROUPS = np.array(["a", "b", "c"])[np.searchsorted([0.6, 0.99], np.arange(400) / 400, side="right")]


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A file whose predictions are not those of ``simple``."""
    classifier = fitted(mlp(), rows(), weight_bits=2)
    return OnnxClassifier(to_onnx(classifier, tmp_path_factory.mktemp("other") / "other.onnx"))


class Flipped:
    """A model whose prediction is another one in some rows."""

    def __init__(self, classifier, where):
        self.classifier, self.where, self.classes_ = classifier, where, classifier.classes_

    def predict(self, X):
        predicted = self.classifier.predict(X)
        predicted[self.where] = (predicted[self.where] + 1) % 3
        return predicted

    def decision_function(self, X):
        return self.classifier.decision_function(X)


def test_every_column(simple, other):
    report = parity_report(simple, other, X, Y, sensitive_features=GROUPS, on_failure="ignore")
    a, b = simple.predict(X), other.predict(X)
    assert 0 < np.mean(a != b) < 1
    assert report.index.tolist() == ["a", "b", "c"]
    difference = np.abs(simple.decision_function(X) - other.decision_function(X))
    accuracy = MetricFrame(metrics=accuracy_score, y_true=Y, y_pred=a, sensitive_features=GROUPS)
    deployed = MetricFrame(metrics=accuracy_score, y_true=Y, y_pred=b, sensitive_features=GROUPS)
    for group, row in report.iterrows():
        chosen = group == GROUPS
        assert row["count"] == chosen.sum()
        assert row["n_different"] == np.sum(a[chosen] != b[chosen])
        assert row["agreement"] == pytest.approx(np.mean(a[chosen] == b[chosen]), abs=1e-12)
        assert row["max_difference"] == pytest.approx(difference[chosen].max(), abs=1e-12)
        assert row["accuracy"] == pytest.approx(accuracy.by_group[group], abs=1e-12)
        assert row["accuracy_onnx"] == pytest.approx(deployed.by_group[group], abs=1e-12)
    for name, frame in (("fvo", accuracy), ("fvo_onnx", deployed)):
        assert report.attrs[name] == pytest.approx(frame.difference(), abs=1e-12)
    assert report.attrs["agreement"] == pytest.approx(np.mean(a == b), abs=1e-12)
    assert any("predictions differ" in sentence for sentence in report.attrs["failures"])


def test_what_happens_past_a_limit(simple, other):
    with pytest.raises(ParityError, match=r"In group 'a' \d+ of 240 predictions differ"):
        parity_report(simple, other, X, Y, sensitive_features=GROUPS)
    with pytest.warns(ParityWarning, match="not the audited one"):
        warned = parity_report(simple, other, X, Y, sensitive_features=GROUPS, on_failure="warn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ignored = parity_report(simple, other, X, Y, sensitive_features=GROUPS, on_failure="ignore")
        wide = parity_report(
            simple, other, X, Y, sensitive_features=GROUPS, min_agreement=0, max_fvo_difference=1
        )
    pd.testing.assert_frame_equal(warned, ignored)
    assert len(warned.attrs["failures"]) > 0
    assert wide.attrs["failures"] == []


def test_the_export_itself_passes(simple, simple_path):
    report = parity_report(simple, OnnxClassifier(simple_path), X, Y, sensitive_features=GROUPS)
    assert (report["agreement"] == 1).all()
    assert report.attrs["failures"] == []
    assert report.attrs["fvo"] == report.attrs["fvo_onnx"]


@pytest.mark.parametrize(
    ("where", "passes"),
    [
        ([399], True),  # one of four in the smallest group
        ([398, 399], False),
        ([0, 1], True),  # 240 * 0.005 = 1.2
        ([0, 1, 2], False),
    ],
)
def test_how_many_may_differ(where, passes, simple):
    flipped = Flipped(simple, where)
    report = parity_report(
        simple, flipped, X, Y, sensitive_features=GROUPS, max_fvo_difference=1, on_failure="ignore"
    )
    assert report["n_different"].sum() == len(where)
    assert (report.attrs["failures"] == []) is passes


def test_differences_of_fvo_count_by_themselves(simple):
    predicted = simple.predict(X)
    wrong = np.flatnonzero((predicted == Y) & (GROUPS == "c"))[:1]
    assert len(wrong) == 1
    flipped = Flipped(simple, wrong)
    with pytest.raises(ParityError, match=r"FVO is 0\.\d{4} instead of 0\.\d{4}"):
        parity_report(simple, flipped, X, Y, sensitive_features=GROUPS)


def test_several_columns_and_frames(simple, simple_path):
    sensitive = pd.DataFrame({"sex": np.arange(400) % 2, "old": np.arange(400) > 300})
    report = parity_report(
        simple, OnnxClassifier(simple_path), X, pd.Series(Y), sensitive_features=sensitive
    )
    assert report.index.names == ["sex", "old"]
    assert report["count"].tolist() == sensitive.value_counts().sort_index().tolist()


def test_two_classes(tmp_path):
    classifier = fitted(mlp(2), rows(), np.arange(64) % 2, weight_bits=4)
    deployed = OnnxClassifier(to_onnx(classifier, tmp_path / "model.onnx"))
    report = parity_report(classifier, deployed, X, Y % 2, sensitive_features=GROUPS)
    assert (report["max_difference"] < 1e-5).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": Y[:-1]}, "y must|inconsistent|399"),
        ({"sensitive_features": GROUPS[:-1]}, "sensitive_features|399"),
        ({"min_agreement": 1.5}, "min_agreement must be a number from 0 to 1; got 1.5"),
        ({"min_agreement": True}, "min_agreement .* got True"),
        ({"max_fvo_difference": -0.1}, "max_fvo_difference must be .* got -0.1"),
        ({"max_fvo_difference": "x"}, "max_fvo_difference must be .* got 'x'"),
        ({"on_failure": "stop"}, "on_failure must be 'raise', 'warn' or 'ignore'; got 'stop'"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message, simple, simple_path):
    options = {"X": X, "y": Y, "sensitive_features": GROUPS, **arguments}
    with pytest.raises(ValueError, match=message):
        parity_report(simple, OnnxClassifier(simple_path), **options)


def test_an_index_that_does_not_fit(simple, simple_path):
    frame, order = pd.DataFrame(X), np.arange(400)[::-1]
    y, groups = pd.Series(Y, index=order), pd.Series(GROUPS, index=order)
    for samples, labels, of in ((frame, y, GROUPS), (frame, Y, groups), (X, pd.Series(Y), groups)):
        with pytest.raises(ValueError, match=r"in another order, but rows go by position; align it"):
            parity_report(simple, OnnxClassifier(simple_path), samples, labels, sensitive_features=of)


def test_models_of_other_classes(simple, simple_path):
    class Renamed(Flipped):
        def __init__(self, classifier):
            super().__init__(classifier, [])
            self.classes_ = np.array([1, 2, 3])

    with pytest.raises(ValueError, match=r"must have the same classes_, got .* export this estimator"):
        parity_report(simple, Renamed(OnnxClassifier(simple_path)), X, Y, sensitive_features=GROUPS)


def test_an_estimator_that_is_not_fitted(simple, simple_path):
    with pytest.raises(NotFittedError):
        parity_report(clone(simple), OnnxClassifier(simple_path), X, Y, sensitive_features=GROUPS)


def test_a_path_is_not_a_model(simple):
    with pytest.raises(
        TypeError, match=r"exported must be a fitted classifier, got str.*OnnxClassifier\(path\)"
    ):
        parity_report(simple, "model.onnx", X, Y, sensitive_features=GROUPS)
