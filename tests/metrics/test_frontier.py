import numpy as np
import pandas as pd
import pytest

from skqfair.metrics import accuracy_frontier, group_report, model_report


def test_rows_are_those_of_the_reports():
    rng = np.random.default_rng(0)
    groups, y = rng.choice(["a", "b", "c"], 300, p=[0.6, 0.3, 0.1]), rng.integers(2, size=300)
    predictions = {t: np.where(rng.random(300) < t, y, 1 - y) for t in (0.6, 0.8)}
    names, codes = np.unique(groups, return_inverse=True)
    correct = [np.bincount(codes[p == y], minlength=3) for p in predictions.values()]
    found = accuracy_frontier(list(predictions), correct, np.bincount(codes), groups=pd.Index(names))
    wanted = model_report(y, predictions, sensitive_features=groups, random_state=0)
    shared = [c for c in found if c in wanted and c != "worst_group"]
    assert {"accuracy", "accuracy_low", "fvo", "fvo_low", "fvo_high", "worst_accuracy"} <= {*shared}
    np.testing.assert_allclose(found[shared], wanted[shared].astype(float))
    assert found["worst_group"].tolist() == wanted["worst_group"].tolist()
    report = group_report(y, predictions[0.6], sensitive_features=groups, random_state=0)
    assert found["worst_accuracy_low"][0] == pytest.approx(report["accuracy_low"].min())
    assert found["worst_accuracy_high"][0] == pytest.approx(report["accuracy_high"].min())


def test_weights_count_by_their_effective_size():
    rng = np.random.default_rng(1)
    codes, right, w = rng.integers(2, size=80), rng.random(80) < 0.7, rng.uniform(0.2, 3, 80)
    total = np.bincount(codes, w)
    effective = total**2 / np.bincount(codes, w**2)
    found = accuracy_frontier(
        [0], [np.bincount(codes, w * right)], total, groups=pd.Index([0, 1]), effective=effective
    )
    report = group_report(
        np.ones(80, int), right.astype(int), sensitive_features=codes, sample_weight=w, random_state=0
    )
    assert found["fvo"][0] == pytest.approx(report.attrs["fvo"])
    assert (found["fvo_low"][0], found["fvo_high"][0]) == pytest.approx(report.attrs["fvo_interval"])


def test_a_confidence_is_a_share():
    with pytest.raises(ValueError, match="confidence must be a number between 0 and 1, got 95"):
        accuracy_frontier([0], [[1, 1]], [2, 2], groups=pd.Index(["a", "b"]), confidence=95)
