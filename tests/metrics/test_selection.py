import pickle

import numpy as np
import pytest

from skqfair.exceptions import NoModelWithinLimitsWarning
from skqfair.metrics import smallest_within

RESULTS = {
    "mean_test_accuracy": np.array([0.90, 0.898, 0.897, 0.85, np.nan]),
    "mean_test_fvo": np.array([-0.05, -0.06, -0.20, -0.04, -0.01]),
    "mean_test_size": np.array([-400.0, -100.0, -50.0, -25.0, -5.0]),
    "params": [{"bits": b} for b in (32, 8, 4, 2, 1)],
}


@pytest.mark.parametrize(
    ("limits", "index"),
    [
        ({}, 3),  # no limits: the smallest with scores
        ({"accuracy_drop": 0.01}, 2),
        ({"fvo": 0.1}, 3),
        ({"accuracy_drop": 0.01, "fvo": 0.1}, 1),
        ({"accuracy_drop": 0.0}, 0),
    ],
)
def test_takes_the_smallest(limits, index):
    assert smallest_within(**limits)(RESULTS) == index


def test_of_equal_size_the_more_accurate():
    results = {**RESULTS, "mean_test_size": np.full(5, -7.0)}
    assert smallest_within(accuracy_drop=0.1)(results) == 0


def test_says_when_none_is_within():
    with pytest.warns(
        NoModelWithinLimitsWarning,
        match=r"candidate 3 \(\{'bits': 2\}\): .* 0\.05 below .* mean FVO over folds 0\.04",
    ):
        assert smallest_within(fvo=0.02)(RESULTS) == 3


def test_other_names():
    results = {k.replace("accuracy", "acc"): v for k, v in RESULTS.items()}
    assert smallest_within(accuracy_drop=0.01, accuracy="acc")(results) == 2
    with pytest.raises(
        ValueError, match=r"needs a scorer named 'accuracy', got \['acc', 'fvo', 'size'\]"
    ):
        smallest_within(accuracy_drop=0.01)(results)


def test_bad_input():
    with pytest.raises(ValueError, match=r"accuracy_drop must be .* got -0\.1"):
        smallest_within(accuracy_drop=-0.1)
    with pytest.raises(ValueError, match="every candidate has a nan score"):
        smallest_within()({**RESULTS, "mean_test_size": np.full(5, np.nan)})


def test_pickle_and_repr():
    refit = pickle.loads(pickle.dumps(smallest_within(accuracy_drop=0.01)))
    assert refit(RESULTS) == 2
    assert repr(refit) == "smallest_within(accuracy_drop=0.01, fvo=None)"


def test_limits_on_any_scores_by_name():
    results = {
        "mean_test_accuracy": np.array([0.9, 0.9, 0.9]),
        "mean_test_worst": np.array([0.8, 0.7, np.nan]),
        "mean_test_neg_log_loss": np.array([-0.3, -0.2, -0.1]),
        "mean_test_size": np.array([-30.0, -20.0, -10.0]),
    }
    assert smallest_within(at_least={"neg_log_loss": -0.35})(results) == 2
    assert smallest_within(at_least={"worst": 0.75})(results) == 0
    assert smallest_within(at_least={"worst": 0.6, "neg_log_loss": -0.25})(results) == 1
    with pytest.warns(NoModelWithinLimitsWarning, match=r"candidate 0 .* its worst 0\.8"):
        assert smallest_within(at_least={"worst": 0.95})(results) == 0
    with pytest.raises(ValueError, match="needs a scorer named 'absent'"):
        smallest_within(at_least={"absent": 0})(results)
    with pytest.raises(ValueError, match="at_least must hold numbers, got 'high'"):
        smallest_within(at_least={"worst": "high"})
