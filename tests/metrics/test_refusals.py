"""Figures that would be wrong without a word: refused, or said."""

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier

from skqfair import fairness_violation_observed, make_fairness_scorer
from skqfair.exceptions import UnknownLabelWarning
from skqfair.metrics import (
    change_report,
    excess_accuracy_gap,
    group_report,
    model_report,
    prediction_flip_rate,
    smallest_within,
)

Y = pd.Series(np.random.default_rng(0).choice(["no", "yes"], 60))
ARGUMENTS = {
    "y_true": Y,
    "y_pred": Y.mask(Y.index % 5 == 0, "no"),
    "y_pred_float": Y.mask(Y.index % 9 == 0, "no"),
    "y_pred_quantized": Y.mask(Y.index % 4 == 0, "no"),
    "sensitive_features": pd.Series(np.where(Y.index % 3, "a", "b"), name="group"),
    "sample_weight": pd.Series(np.arange(1.0, 61.0)),
}
CHANGES = ("y_true", "y_pred_float", "y_pred_quantized", "sensitive_features")
FUNCTIONS = {
    fairness_violation_observed: ("y_true", "y_pred", "sensitive_features", "sample_weight"),
    group_report: ("y_true", "y_pred", "sensitive_features", "sample_weight"),
    change_report: CHANGES,
    excess_accuracy_gap: CHANGES,
    prediction_flip_rate: CHANGES[1:],
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_argument_in_another_order_is_refused(function):
    names = FUNCTIONS[function]
    whole = {name: ARGUMENTS[name] for name in names}
    function(**whole)
    function(**{name: value.iloc[::-1] for name, value in whole.items()})
    for name, library in itertools.product(names, ("series", "frame")):
        turned = ARGUMENTS[name].iloc[::-1]
        turned = turned.to_frame() if library == "frame" and name == "sensitive_features" else turned
        with pytest.raises(ValueError, match="in another order, but rows go by position"):
            function(**{**whole, name: turned})


def test_models_in_another_order_are_refused():
    models = {"float": ARGUMENTS["y_pred_float"], "int8": ARGUMENTS["y_pred_quantized"].iloc[::-1]}
    with pytest.raises(ValueError, match=r"y_pred.* in another order"):
        model_report(Y, models, sensitive_features=ARGUMENTS["sensitive_features"])


@pytest.mark.parametrize(
    ("y_true", "y_pred"),
    [
        ([1, 2, 1, 2], [0, 0, 0, 0]),
        ([2, 3, 2, 3], [0, 1, 0, 1]),
        (["<=50K", ">50K"] * 2, ["<=50K.", ">50K."] * 2),
        (np.array(["a", "b"] * 2, dtype=object), np.array(["A", "B"] * 2, dtype=object)),
        (pd.Series(["a", "b"] * 2, dtype="category"), ["x"] * 4),
    ],
)
def test_labels_of_another_coding_are_refused(y_true, y_pred):
    groups = ["a", "a", "b", "b"]
    with pytest.raises(ValueError, match="y_pred shares no label with y_true: it has"):
        group_report(y_true, y_pred, sensitive_features=groups)
    with pytest.raises(ValueError, match="y_pred_quantized shares no label with y_true"):
        change_report(y_true, y_true, y_pred, sensitive_features=groups)


def test_labels_that_are_new_are_said():
    """Positions 0, 1 against labels 1, 2 share one."""
    with pytest.warns(UnknownLabelWarning, match=r"y_pred has labels that y_true lacks: \[0\]"):
        fairness_violation_observed([1, 2, 1, 2], [0, 1, 0, 1], sensitive_features=list("aabb"))


@pytest.mark.parametrize(
    ("y_true", "y_pred"),
    [
        ([0, 1, 1, 0], [False, True, True, False]),
        ([0, 1, 1, 0], [1.0, 1.0, 1.0, 1.0]),
        (["a", "b", "a", "b"], np.array(["b", "a", "b", "a"])),  # all wrong, in the same coding
        (np.array([0, 1], dtype=np.int8).repeat(2), np.array([1, 1, 1, 1])),
    ],
)
def test_labels_of_other_types_are_the_same(y_true, y_pred):
    accuracy = group_report(y_true, y_pred, sensitive_features=list("aabb"), random_state=0)["accuracy"]
    expected = [
        np.mean([t == p for t, p in zip(y_true[i:j], y_pred[i:j], strict=True)])
        for i, j in ((0, 2), (2, 4))
    ]
    assert accuracy.tolist() == expected


def test_a_label_that_is_not_there_has_no_rates():
    fairlearn = pytest.importorskip("fairlearn.metrics")
    metric = fairlearn.demographic_parity_difference
    X = pd.DataFrame({"sex": ["f", "f", "m", "m"]})
    y = ["<=50K", ">50K", ">50K", ">50K"]
    model = DummyClassifier(strategy="constant", constant=">50K").fit(X, y)
    assert make_fairness_scorer(metric, sensitive_features="sex", pos_label=">50K")(model, X, y) == 0
    score = make_fairness_scorer(metric, sensitive_features="sex", pos_label=">50k")
    with pytest.raises(
        ValueError, match=r"pos_label='>50k' is no label of this data: .*'<=50K', '>50K'"
    ):
        score(model, X, y)


@pytest.mark.parametrize("name", ["fvo", "size"])
def test_scores_of_the_wrong_sign_are_refused(name):
    results = {
        "mean_test_accuracy": np.array([0.9, 0.9]),
        "mean_test_fvo": np.array([-0.5, -0.05]),
        "mean_test_size": np.array([-10.0, -20.0]),
    }
    assert smallest_within(fvo=0.1)(results) == 1
    results[f"mean_test_{name}"] = -results[f"mean_test_{name}"]
    with pytest.raises(ValueError, match=f"the scores '{name}' must be minus the value"):
        smallest_within(fvo=0.1)(results)


@pytest.mark.parametrize("weight", [1e-160, 1e-300, 1e160, 1e300])
def test_uniform_weights_of_any_size_change_nothing(weight):
    arguments = {name: ARGUMENTS[name] for name in FUNCTIONS[group_report]}
    options = {**arguments, "random_state": 0}
    reports = [
        group_report(**{**options, "sample_weight": np.full(60, value)}) for value in (1.0, weight)
    ]
    pd.testing.assert_frame_equal(*reports)
    assert reports[0].attrs == reports[1].attrs


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("confidence", [0.01, 0.5, 0.95])
def test_changes_lie_in_their_intervals(n, confidence):
    for right in itertools.product([0, 1], repeat=2 * n):
        before, after = np.array(right[:n]), np.array(right[n:])
        y_true = np.r_[np.ones(n, int), 0]
        report = change_report(
            y_true,
            np.r_[before, 0],
            np.r_[after, 0],
            sensitive_features=["a"] * n + ["b"],
            confidence=confidence,
        )
        assert (report["change_low"] <= report["change"]).all()
        assert (report["change"] <= report["change_high"]).all()


def test_groups_that_lose_alike_are_all_named():
    y = ["x"] * 6
    table = model_report(
        [*y, "z"],
        {"a": [*y, "z"], "b": ["z", "x", "x", "z", "x", "x", "z"]},
        sensitive_features=list("bbcaacd"),
    )
    assert table.loc["b", "excess_group"] == "a and b"
