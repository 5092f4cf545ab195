import copy

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score

from skqfair.metrics import (
    change_report,
    excess_accuracy_gap,
    fairness_violation_observed,
    group_report,
    model_report,
    prediction_flip_rate,
)

RNG = np.random.default_rng(0)
Y, P, Q = (RNG.integers(0, 2, 500) for _ in range(3))
FRAME = pd.DataFrame({"race": RNG.choice(["x", "y", "z"], 500), "sex": RNG.choice(["f", "m"], 500)})
WEIGHTS = RNG.random(500)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_report_equals_metric_frame(weights):
    report = group_report(Y, P, sensitive_features=FRAME, sample_weight=weights, random_state=0)
    params = None if weights is None else {"sample_weight": weights}
    frame = MetricFrame(
        metrics=accuracy_score, y_true=Y, y_pred=P, sensitive_features=FRAME, sample_params=params
    )
    pd.testing.assert_series_equal(report["accuracy"], frame.by_group, check_names=False)
    assert report.index.names == ["race", "sex"]
    assert report["count"].sum() == 500
    assert list(report)[:4] == ["count", "accuracy", "accuracy_low", "accuracy_high"]
    assert report["fvo"].unique() == [report.attrs["fvo"]]
    assert tuple(report[["fvo_low", "fvo_high"]].iloc[0]) == report.attrs["fvo_interval"]
    assert report["fvo_chance"].iloc[0] == report.attrs["fvo_chance"].quantile
    assert report["equal_accuracy_p"].iloc[0] == report.attrs["equal_accuracy_p"]
    assert report.attrs["fvo"] == fairness_violation_observed(
        Y, P, sensitive_features=FRAME, sample_weight=weights
    )


def test_attrs_survive_copies_and_unpack():
    report = copy.deepcopy(group_report(Y, P, sensitive_features=FRAME, random_state=0).head(3))
    mean, quantile = report.attrs["fvo_chance"]
    assert 0 < mean < quantile == report.attrs["fvo_chance"].quantile
    low, high = report.attrs["fvo_interval"]
    assert 0 <= low <= report.attrs["fvo"] <= high <= 1


def test_the_seed_decides_the_chance_band():
    first, second = (group_report(Y, P, sensitive_features=FRAME, random_state=3) for _ in range(2))
    assert first.attrs == second.attrs


def test_confidence_widens():
    narrow = group_report(Y, P, sensitive_features=FRAME, confidence=0.8)
    wide = group_report(Y, P, sensitive_features=FRAME, confidence=0.99)
    assert (wide["accuracy_low"] < narrow["accuracy_low"]).all()
    with pytest.raises(ValueError, match=r"confidence must be .* got 95"):
        group_report(Y, P, sensitive_features=FRAME, confidence=95)


def test_changes_by_a_loop():
    groups = FRAME["race"].to_numpy()
    drop = np.mean(P == Y) - np.mean(Q == Y)
    excess = [
        np.mean((P == Y)[groups == g]) - np.mean((Q == Y)[groups == g]) - drop for g in np.unique(groups)
    ]
    found = excess_accuracy_gap(Y, P, Q, sensitive_features=groups)
    assert found == pytest.approx(max(excess), abs=1e-12)
    assert prediction_flip_rate(P, Q) == np.mean(P != Q)
    by_group = prediction_flip_rate(P, Q, sensitive_features=groups)
    for g in np.unique(groups):
        assert by_group[g] == pytest.approx(np.mean((P != Q)[groups == g]))


def test_change_report_by_a_loop():
    groups = FRAME["race"].to_numpy()
    report = change_report(Y, P, Q, sensitive_features=groups)
    for g in np.unique(groups):
        m = groups == g
        row = report.loc[g]
        assert row["count"] == m.sum()
        assert row["lost"] == np.sum((P == Y)[m] & (Q != Y)[m])
        assert row["gained"] == np.sum((P != Y)[m] & (Q == Y)[m])
        assert row["change"] == pytest.approx(np.mean((Q == Y)[m]) - np.mean((P == Y)[m]))
        assert row["change_low"] < row["change"] < row["change_high"]
    assert report.attrs["change"] == pytest.approx(np.mean(Q == Y) - np.mean(P == Y))
    with pytest.raises(ValueError, match="confidence must be"):
        change_report(Y, P, Q, sensitive_features=groups, confidence=2)


def test_no_change_is_no_gap():
    assert excess_accuracy_gap(Y, P, P, sensitive_features=FRAME) == 0
    assert prediction_flip_rate(P, P) == 0


def test_flip_rate_names_its_arguments():
    with pytest.raises(ValueError, match="y_pred_quantized must have one entry"):
        prediction_flip_rate([1, 0], [1])


def test_model_report_against_its_parts():
    table = model_report(Y, {"float": P, 4: Q}, sensitive_features=FRAME, random_state=0)
    report = group_report(Y, Q, sensitive_features=FRAME, random_state=0)
    row = table.loc[4]
    assert row["accuracy"] == pytest.approx(np.mean(Y == Q))
    assert row["fvo"] == report.attrs["fvo"]
    assert (row["fvo_low"], row["fvo_high"]) == report.attrs["fvo_interval"]
    assert row["fvo_chance"] == report.attrs["fvo_chance"].quantile
    assert row["worst_group"] == ", ".join(report["accuracy"].idxmin())
    assert row["flip_rate"] == np.mean(P != Q)
    assert row["excess_accuracy_gap"] == excess_accuracy_gap(Y, P, Q, sensitive_features=FRAME)
    changes = change_report(Y, P, Q, sensitive_features=FRAME)
    assert row["excess_group"] == ", ".join(changes["change"].idxmin())
    assert row["equal_accuracy_p"] == report.attrs["equal_accuracy_p"]
    assert table.loc["float", "flip_rate"] == 0
    assert model_report(Y, {1: P, 2: Q}, sensitive_features=FRAME, reference=2).loc[2, "flip_rate"] == 0


def test_model_report_bad_input():
    with pytest.raises(ValueError, match="predictions is empty"):
        model_report(Y, {}, sensitive_features=FRAME)
    with pytest.raises(ValueError, match=r"reference 8 is none of \['float'\]"):
        model_report(Y, {"float": P}, sensitive_features=FRAME, reference=8)


def test_a_generator_draws_the_same_for_every_model():
    rng = np.random.default_rng(0)
    y, groups = rng.integers(0, 2, 60), rng.choice(["a", "b"], 60)
    half = {name: np.where(np.arange(60) % 3, y, 1 - y) for name in (8, 4)}
    table = model_report(y, half, sensitive_features=groups, random_state=np.random.RandomState(3))
    assert table["fvo_chance"][8] == table["fvo_chance"][4] > 0
    assert table["equal_accuracy_p"][8] == table["equal_accuracy_p"][4]
