"""Every report takes the float classifier as it takes the quantized one, with labels of any type."""

import numpy as np
import pandas as pd
import pytest
from sklearn.frozen import FrozenEstimator

from skqfair import QuantizationDiagnostics, QuantizedClassifier, make_fairness_scorer
from skqfair.displays import BitWidthDisplay
from skqfair.metrics import (
    change_report,
    excess_accuracy_gap,
    fairness_counts_scorer,
    group_report,
    model_report,
    model_size_scorer,
    prediction_flip_rate,
)
from skqfair.networks import make_classifier


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(300, 4)).astype(np.float32), columns=list("abcd"))
    y = pd.Series(np.where(X["a"] + X["b"] > 0, "yes", "no"))
    groups = pd.Series(rng.choice(["f", "m"], 300), name="sex")
    clf = QuantizedClassifier(make_classifier(max_epochs=5), weight_bits=2, random_state=0).fit(X, y)
    return clf, clf.float_classifier_, X, y, groups


def by_hand(clf, X):
    return clf.classes_[clf.estimator_.predict(X.to_numpy())]


def test_metrics_and_their_tables(fitted):
    clf, whole, X, y, groups = fitted
    expected, quantized = by_hand(clf, X), clf.predict(X)
    np.testing.assert_array_equal(whole.predict(X), expected)
    options = {"sensitive_features": groups}
    for report in (change_report, excess_accuracy_gap):
        found = report(y, whole.predict(X), quantized, **options)
        np.testing.assert_array_equal(found, report(y, expected, quantized, **options))
    assert prediction_flip_rate(whole.predict(X), quantized) == np.mean(expected != quantized)
    right = (expected == y).groupby(groups).mean()
    table = group_report(y, whole.predict(X), **options, random_state=0)
    np.testing.assert_allclose(table["accuracy"], right)
    predictions = {32: whole.predict(X), 2: quantized}
    table = model_report(y, predictions, **options, random_state=0)
    assert table["accuracy"][32] == np.mean(expected == y)
    display = BitWidthDisplay.from_predictions(
        y, predictions, **options, sizes={32: whole.model_size_, 2: clf.model_size_}, random_state=0
    )
    assert display.table_["accuracy"][32] == np.mean(expected == y)


def test_scorers(fitted):
    _, whole, X, y, groups = fitted
    gap = abs(np.diff((whole.predict(X) == y).groupby(groups).mean())[0])
    scorer = make_fairness_scorer(sensitive_features=groups)
    assert scorer(whole, X, y) == pytest.approx(-gap)
    counts = fairness_counts_scorer(sensitive_features=groups, groups=groups)
    assert counts(whole, X, y)["fvo"] == pytest.approx(-gap)
    assert model_size_scorer(whole) == -sum(p.numel() * 4 for p in whole.module_.parameters())


def test_diagnostics(fitted):
    clf, whole, X, y, groups = fitted
    reports = [
        QuantizationDiagnostics(
            FrozenEstimator(model), weight_bits=2, n_eigenvalues=0, random_state=0
        ).fit(X, y, sensitive_features=groups)
        for model in (whole, clf)
    ]
    own, both = (report.group_report_.xs("float", level="bits") for report in reports)
    pd.testing.assert_frame_equal(own[["accuracy", "loss"]], both[["accuracy", "loss"]])
    right = (by_hand(clf, X) == y).groupby(groups).mean()
    np.testing.assert_allclose(own["accuracy"], right)


def test_export_and_parity(fitted, tmp_path):
    pytest.importorskip("onnxscript")
    from skqfair.export import OnnxClassifier, parity_report, to_onnx

    clf, whole, X, y, groups = fitted
    to_onnx(whole, tmp_path / "float.onnx")
    exported = OnnxClassifier(tmp_path / "float.onnx")
    np.testing.assert_array_equal(exported.predict(X), by_hand(clf, X))
    report = parity_report(whole, exported, X, y, sensitive_features=groups)
    assert (report["agreement"] == 1).all()
