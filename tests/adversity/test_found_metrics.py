"""What fuzzing found in the metrics."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

from skqfair import fairness_violation_observed
from skqfair.metrics import (
    accuracy_frontier,
    compare_models,
    excess_accuracy_gap,
    fairness_counts_scorer,
    group_report,
    has_counts,
    pooled_report,
)

Y, P, GROUPS = [0, 1, 1, 0], [0, 1, 0, 0], ["a", "a", "b", "b"]


def test_weights_whose_squares_leave_the_range_of_floats_count_nothing():
    weights = [1.0, 1.0, 1e-170, 1e-200]
    with pytest.warns(UserWarning, match=r"group\(s\) b have no weight"):
        assert fairness_violation_observed(Y, P, sensitive_features=GROUPS, sample_weight=weights) == 0
    weights = [1.0, 1.0, 1e-60, 1e-70]  # beyond float32, in which correctness is drawn
    report = group_report(Y, P, sensitive_features=GROUPS, sample_weight=weights, random_state=0)
    assert np.isfinite(report.to_numpy()).all()
    assert report["accuracy"].tolist() == pytest.approx([1, 1e-10])


def test_chance_is_a_share():
    weights = [0.1, 0.7, 1 / 3, 1e-3] * 5
    report = group_report(
        Y * 5, P * 5, sensitive_features=GROUPS * 5, sample_weight=weights, confidence=1 - 1e-9
    )
    assert report.attrs["fvo_chance"].quantile <= 1


def test_rates_of_a_class_without_weight_are_missing():
    with pytest.warns(UserWarning, match="true_positive_rate is undefined"):
        models = compare_models(
            Y,
            {"float": P},
            sensitive_features=GROUPS,
            sample_weight=[1, 0, 0, 1],
            metrics="true_positive_rate",
        ).models
    assert models["true_positive_rate"].isna().all()


@pytest.mark.parametrize("name", ["y_true", "y_pred", "sensitive_features"])
@pytest.mark.parametrize(
    "values",
    [
        np.array([["a"], ["b"], ["a"], ["b"], None], dtype=object)[:4],
        pl.Series([2**70, 1, 1, 2**70]),
        np.array(3),
    ],
)
def test_what_holds_no_labels_is_named(name, values):
    arguments = {"y_true": Y, "y_pred": P, "sensitive_features": GROUPS, name: values}
    with pytest.raises(ValueError, match=name):
        fairness_violation_observed(**arguments)


def test_labels_beyond_int64_and_infinite_ones():
    huge = np.array([2**70, 1, 1, 2**70], dtype=object)
    assert fairness_violation_observed(huge, huge, sensitive_features=GROUPS) == 0
    pairs = pd.Series([(1, "a")] * 4)
    with pytest.raises(ValueError, match=r"y_pred shares no label with y_true: it has \[\(1, 'a'\)\]"):
        fairness_violation_observed(Y, pairs, sensitive_features=GROUPS)
    mixed = np.array([True, 2**70, True, True], dtype=object)
    with pytest.warns(UserWarning, match="labels that y_true lacks"):
        fairness_violation_observed(np.array([True, False] * 2), mixed, sensitive_features=GROUPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        infinite = [np.inf, -np.inf, np.inf, np.inf]
        assert excess_accuracy_gap(infinite, infinite, infinite, sensitive_features=GROUPS) == 0


@pytest.mark.parametrize("weights", [[1j, 1, 1, 1], [1, "a", 1, 1], [[1]] * 4])
def test_weights_that_are_none(weights):
    with pytest.raises(ValueError, match="sample_weight must"):
        fairness_violation_observed(Y, P, sensitive_features=GROUPS, sample_weight=weights)


def test_groups_of_a_scorer_that_are_none():
    with pytest.raises(ValueError, match="groups must be labels"):
        fairness_counts_scorer(sensitive_features="s", groups=[["a"], ["b"]])


@pytest.mark.parametrize("results", [None, 3, [1]])
def test_results_that_are_none(results):
    for function in (has_counts, pooled_report):
        with pytest.raises(TypeError, match="cv_results must be a dict"):
            function(results)
    assert not has_counts({1: 2})


def test_a_candidate_without_counts_of_correct_predictions_is_missing():
    report = pooled_report({"test_n_samples[a]": [1, 2], "test_n_correct[a]": [np.nan, 1]})
    assert report["fvo"].isna().all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"correct": [[9, 5]]}, r"correct must have shape \(2, 2\)"),
        ({"correct": [[9, 5], [8, 11]]}, "correct must be at most total"),
        ({"correct": [["a", 5], [8, 7]]}, "correct must hold numbers"),
        ({"total": [10, 0]}, "total must be finite and > 0"),
        ({"total": 10}, r"total must have shape \(2,\)"),
        ({"effective": [np.nan, 1]}, "effective must be finite"),
        ({"strengths": []}, "strengths must be a sequence of at least one"),
        ({"groups": "ab"}, "groups must be a sequence"),
    ],
)
def test_a_frontier_of_what_does_not_fit(wrong, message):
    arguments = {
        "strengths": [0, 1],
        "correct": [[9, 5], [8, 7]],
        "total": [10, 10],
        "groups": ["a", "b"],
    }
    with pytest.raises(ValueError, match=message):
        accuracy_frontier(**{**arguments, **wrong})
