import numpy as np
import pandas as pd
import polars as pl
import pytest
from fairlearn.metrics import accuracy_score_difference
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import group_accuracies

from skqfair import fairness_violation_observed
from skqfair.exceptions import EmptyGroupWarning


def random_case(seed, n=200, n_groups=4):
    rng = np.random.default_rng(seed)
    labels = np.array(["no", "yes", "maybe"])
    y, p = labels[rng.integers(0, 3, n)], labels[rng.integers(0, 3, n)]
    return y, p, rng.integers(0, n_groups, n), rng.random(n)


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.UnknownLabelWarning")
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 60), n_groups=st.integers(1, 6))
def test_equals_fairlearn(seed, n, n_groups):
    y, p, groups, weights = random_case(seed, n, n_groups)
    assume(set(y) & set(p))
    expected = accuracy_score_difference(y, p, sensitive_features=groups)
    assert fairness_violation_observed(y, p, sensitive_features=groups) == expected
    weighted = fairness_violation_observed(y, p, sensitive_features=groups, sample_weight=weights)
    expected = accuracy_score_difference(y, p, sensitive_features=groups, sample_weight=weights)
    assert weighted == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_loop(seed):
    y, p, groups, weights = random_case(seed)
    for w in (None, weights):
        accuracy = group_accuracies(y, p, groups, w).values()
        found = fairness_violation_observed(y, p, sensitive_features=groups, sample_weight=w)
        assert found == pytest.approx(max(accuracy) - min(accuracy), abs=1e-12)


NAMES = np.array(["Ä long name of a group", "b", "", "d"])
KINDS = {
    "strings": lambda g: NAMES[g],
    "bytes": lambda g: np.char.encode(NAMES, "utf8")[g],
    "objects": lambda g: NAMES.astype(object)[g],
    "list": lambda g: NAMES[g].tolist(),
    "floats": lambda g: g / 3,
    "booleans": lambda g: g > 1,
    "negative": lambda g: g - 2,
    "near the end of uint64": lambda g: g.astype(np.uint64) + np.uint64(2**64 - 5),
    "int8 over its whole range": lambda g: np.array([-128, 127, 0, 5], dtype=np.int8)[g],
    "uint8": lambda g: g.astype(np.uint8),
    "far apart": lambda g: g * 10**12,
    "mixed types": lambda g: np.array([1, "b", True, 2.5], dtype=object)[g],
    "series": lambda g: pd.Series(NAMES[g], name="group", index=np.arange(len(g))[::-1]),
    "categorical": lambda g: pd.Series(NAMES[g]).astype("category"),
    "arrow": lambda g: pd.Series(NAMES[g]).astype("string[pyarrow]"),
    "dates": lambda g: pd.Series(pd.to_datetime("2020-01-01") + pd.to_timedelta(g, "D")),
    "polars": lambda g: pl.Series("group", NAMES[g]),
    "polars frame": lambda g: pl.DataFrame({"group": NAMES[g]}),
    "one column": lambda g: NAMES[g][:, None],
    "dict": lambda g: {"group": NAMES[g]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_type_of_group(kind):
    y, p, groups, _ = random_case(0)
    values = KINDS[kind](groups)
    integers = (groups > 1).astype(int) if kind == "booleans" else groups
    if kind == "mixed types":  # 1 == True in Python: these two are one group
        integers = np.where(groups == 2, 0, groups)
    expected = fairness_violation_observed(y, p, sensitive_features=integers)
    assert fairness_violation_observed(y, p, sensitive_features=values) == expected


def test_many_columns_do_not_multiply():
    """The product of 70 columns would be 2^70 groups; only those that are there count."""
    rng = np.random.default_rng(0)
    y, p, groups, _ = random_case(4)
    columns = np.repeat(groups[:, None], 70, axis=1) + 0
    expected = fairness_violation_observed(y, p, sensitive_features=groups)
    assert fairness_violation_observed(y, p, sensitive_features=columns) == expected
    levels = pd.DataFrame(
        {f"c{i}": pd.Series(rng.permutation(200)).astype("category") for i in range(5)}
    )
    assert fairness_violation_observed(y, p, sensitive_features=levels) == 1.0


def test_several_columns_are_intersections():
    y, p, groups, _ = random_case(1)
    frame = pd.DataFrame({"a": NAMES[groups % 2], "b": groups // 2})
    expected = fairness_violation_observed(y, p, sensitive_features=groups)
    for features in (frame, frame.to_numpy(dtype=object), pl.from_pandas(frame)):
        assert fairness_violation_observed(y, p, sensitive_features=features) == expected
    assert expected == accuracy_score_difference(y, p, sensitive_features=frame)


def test_hash_collisions_of_strings_cannot_merge_groups(monkeypatch):
    """With a hash that maps all strings to 0, the groups are told apart all the same."""
    import skqfair._validation as validation

    y, p, groups, _ = random_case(2)
    expected = fairness_violation_observed(y, p, sensitive_features=groups)

    class Zeros:
        def integers(self, low, high, size, dtype):
            return np.full(size, 2**63 - 1, dtype) * 0

    monkeypatch.setattr(validation.np.random, "default_rng", lambda seed: Zeros())
    words = np.array(["abcd", "cdab", "efgh", "ghef"])  # sums of their 8-byte words collide
    assert fairness_violation_observed(y, p, sensitive_features=words[groups]) == expected


def test_misaligned_series_are_an_error_not_a_number():
    y = pd.Series([0, 1, 1, 0], index=list("abcd"))
    groups = pd.Series(["u", "u", "v", "v"], index=list("abcd"))
    assert fairness_violation_observed(y, y.to_numpy(), sensitive_features=groups) == 0
    assert fairness_violation_observed(y, y, sensitive_features=groups.reset_index(drop=True)) == 0
    with pytest.raises(ValueError, match=r"the index of y_true in another order.*loc\[y_true\.index\]"):
        fairness_violation_observed(y, y.to_numpy(), sensitive_features=groups.loc[list("dcba")])


def test_fewer_than_two_groups_give_zero():
    assert fairness_violation_observed([0, 1], [1, 1], sensitive_features=["a", "a"]) == 0


def test_declared_groups_without_samples_are_left_out_with_a_warning():
    groups = pd.Series(["a", "a", "b"], dtype=pd.CategoricalDtype(["a", "b", "c"]))
    with pytest.warns(EmptyGroupWarning, match=r"no sample of the group\(s\) c"):
        assert fairness_violation_observed([1, 1, 1], [1, 0, 1], sensitive_features=groups) == 0.5
    frame = pd.DataFrame({"a": groups, "b": groups})
    with pytest.warns(EmptyGroupWarning, match="a, b; a, c; b, a; b, c; c, a and 2 more"):
        fairness_violation_observed([1, 1, 1], [1, 0, 1], sensitive_features=frame)


def test_groups_without_weight_are_left_out_with_a_warning():
    with pytest.warns(EmptyGroupWarning, match=r"group\(s\) b have no weight"):
        found = fairness_violation_observed(
            [1, 1, 1, 1], [1, 0, 1, 0], sensitive_features=list("aabc"), sample_weight=[1, 3, 0, 1]
        )
    assert found == 0.25


BAD = {
    "length": (
        {"sensitive_features": ["a"]},
        "sensitive_features must have one entry.*expected 3, got 1",
    ),
    "none": ({"sensitive_features": None}, "sensitive_features must be given"),
    "missing": ({"sensitive_features": ["a", None, "b"]}, r"1 of 3 values .* are missing.*fillna"),
    "nan": ({"sensitive_features": [1.0, np.nan, np.nan]}, "2 of 3 values"),
    "polars null": ({"sensitive_features": pl.Series(["a", None, "b"])}, "1 of 3 values"),
    "category": ({"sensitive_features": pd.Series(["a", None, "b"], dtype="category")}, "1 of 3"),
    "nan in a list": ({"sensitive_features": [float("nan"), "a", "b"]}, "1 of 3 values"),
    "nan in a table": ({"sensitive_features": [["a", float("nan")], ["b", "c"], ["b", "c"]]}, "1 of 3"),
    "missing label": ({"y_true": [0.0, np.nan, 1.0]}, "y_true has 1 missing labels"),
    "no prediction": ({"y_pred": np.array([0, None, 1], dtype=object)}, "y_pred has 1 missing labels"),
    "scores": ({"y_pred": [0.1, 0.7, 0.4]}, "y_pred holds continuous values; take the argmax"),
    "object kinds": (
        {"y_true": np.array([0, 1, 1], dtype=object), "y_pred": np.array(["0", "1", "0"], dtype=object)},
        "y_true holds number labels and y_pred text labels",
    ),
    "text weights": ({"sample_weight": ["a", "b", "c"]}, "sample_weight must be numbers"),
    "rank": ({"sensitive_features": np.zeros((3, 1, 1))}, r"shape \(n,\) or \(n, k\)"),
    "no column": ({"sensitive_features": np.zeros((3, 0))}, "no column"),
    "prediction": ({"y_pred": [0, 1]}, "y_pred must have one entry.*expected 3, got 2"),
    "probabilities": ({"y_pred": np.zeros((3, 2))}, "take the argmax"),
    "kinds": ({"y_pred": ["a", "b", "a"]}, "y_true holds number labels and y_pred text labels"),
    "weights": ({"sample_weight": [1, 1]}, "sample_weight must have one entry.*expected 3, got 2"),
    "negative": ({"sample_weight": [1, -1, 1]}, "finite and >= 0"),
    "nan weight": ({"sample_weight": [1, np.nan, 1]}, "finite and >= 0"),
    "zero": ({"sample_weight": [0, 0, 0]}, "0 for every sample"),
    "empty": ({"y_true": [], "y_pred": [], "sensitive_features": []}, "y_true is empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    changes, message = BAD[case]
    arguments = {"y_true": [0, 1, 1], "y_pred": [0, 1, 0], "sensitive_features": list("aab")} | changes
    with pytest.raises(ValueError, match=message):
        fairness_violation_observed(**arguments)
