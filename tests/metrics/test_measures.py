"""Metrics by group, and how they and FVO change, against loops over scikit-learn and fairlearn."""

import itertools
import warnings

import fairlearn.metrics
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from scipy.optimize import linprog
from scipy.stats import binomtest, t
from sklearn.exceptions import UndefinedMetricWarning

from skqfair.metrics import change_report, compare_models, group_report, model_report
from skqfair.metrics._detectable import detectable_table
from skqfair.metrics._estimates import range_change_interval
from skqfair.metrics._measures import find_measures
from skqfair.metrics._samples import encode

RNG = np.random.default_rng(0)
N = 700
GROUPS = RNG.choice(["a", "b", "c"], N, p=[0.6, 0.3, 0.1])
Y = RNG.choice(["no", "yes"], N)
WEIGHTS = RNG.random(N) + 0.2


def noisy(strength, seed):
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-strength * ((Y == "yes") - 0.5) - rng.normal(size=N)))
    return np.column_stack([1 - p, p])


BEFORE, AFTER = noisy(3, 1), noisy(2, 2)
BY_HAND = {
    "selection_rate": lambda y, p, w: fairlearn.metrics.selection_rate(
        y, p.argmax(1), pos_label=1, sample_weight=w
    ),
    "true_positive_rate": lambda y, p, w: sklearn.metrics.recall_score(y, p.argmax(1), sample_weight=w),
    "false_positive_rate": lambda y, p, w: fairlearn.metrics.false_positive_rate(
        y, p.argmax(1), pos_label=1, sample_weight=w
    ),
    "log_loss": lambda y, p, w: sklearn.metrics.log_loss(y, p, sample_weight=w),
    "f1_score": lambda y, p, w: sklearn.metrics.f1_score(y, p.argmax(1), sample_weight=w),
    "roc_auc_score": lambda y, p, w: sklearn.metrics.roc_auc_score(y, p[:, 1], sample_weight=w),
    "brier_score_loss": lambda y, p, w: sklearn.metrics.brier_score_loss(y, p[:, 1], sample_weight=w),
}


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", BY_HAND)
def test_metrics_by_a_loop(name, weights):
    options = {"sensitive_features": GROUPS, "sample_weight": weights, "metrics": [name]}
    report = group_report(Y, BEFORE, random_state=0, **options)
    change = change_report(Y, BEFORE, AFTER, **options)
    values, changes = [], []
    for group in np.unique(GROUPS):
        m = group == GROUPS
        w = None if weights is None else weights[m]
        old, new = (BY_HAND[name]((Y == "yes")[m].astype(int), p[m], w) for p in (BEFORE, AFTER))
        values.append((old, new))
        changes.append(new - old)
    values = np.array(values)
    assert report[name].to_numpy() == pytest.approx(values[:, 0], abs=1e-12)
    assert change[f"{name}_change"].to_numpy() == pytest.approx(changes, abs=1e-12)
    assert (report[f"{name}_low"] <= report[name]).all()
    assert (report[name] < report[f"{name}_high"]).all()
    assert report[f"{name}_difference"].unique() == pytest.approx([np.ptp(values[:, 0])])
    growth = np.ptp(values[:, 1]) - np.ptp(values[:, 0])
    column = f"{name}_difference_change"
    assert change[column].iloc[0] == pytest.approx(growth, abs=1e-12)
    assert change[f"{column}_low"].iloc[0] < growth < change[f"{column}_high"].iloc[0]
    row = model_report(Y, {"a": BEFORE, "b": AFTER}, random_state=0, **options).loc["b"]
    whole = BY_HAND[name]((Y == "yes").astype(int), AFTER, weights)
    assert row[name] == pytest.approx(whole, abs=1e-12)
    assert row[f"{name}_difference"] == pytest.approx(np.ptp(values[:, 1]))


def ece(right, confidence, bins=15):
    """Guo et al.'s, in a loop."""
    total = 0.0
    for k in range(bins):
        m = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if m.any():
            total += m.sum() * abs(right[m].mean() - confidence[m].mean())
    return total / len(right)


def test_calibration_error_by_a_loop():
    report = group_report(Y, BEFORE, sensitive_features=GROUPS, metrics=["calibration_error"])
    right = (BEFORE.argmax(1) == 1) == (Y == "yes")
    for group in np.unique(GROUPS):
        m = group == GROUPS
        assert report.loc[group, "calibration_error"] == pytest.approx(ece(right[m], BEFORE.max(1)[m]))


def test_intervals_of_rates_and_losses_by_hand():
    level = 1 - 0.05 / 3
    metrics = ["true_positive_rate", "log_loss"]
    report = group_report(Y, BEFORE, sensitive_features=GROUPS, metrics=metrics, random_state=0)
    for group in np.unique(GROUPS):
        m = (group == GROUPS) & (Y == "yes")
        hits = int((BEFORE.argmax(1) == 1)[m].sum())
        expected = binomtest(hits, int(m.sum())).proportion_ci(level, method="wilson")
        row = report.loc[group]
        assert row["true_positive_rate_count"] == m.sum()
        assert (row["true_positive_rate_low"], row["true_positive_rate_high"]) == pytest.approx(expected)
        m = group == GROUPS
        losses = -np.log(np.where(Y == "yes", BEFORE[:, 1], BEFORE[:, 0]))[m]
        half = t.ppf(0.5 + level / 2, m.sum() - 1) * losses.std(ddof=1) / np.sqrt(m.sum())
        assert row["log_loss_high"] - row["log_loss"] == pytest.approx(half)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    """With as many samples as blocks, or fewer, it is exactly Student's interval."""
    y, groups = np.zeros(26), np.repeat(["a", "b"], [20, 6])
    values = np.random.default_rng(3).normal(size=26)
    metric = {"mean": lambda y_true, y_pred: y_pred.mean()}
    y[0], predictions = 1, values.round(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = group_report(y, predictions, sensitive_features=groups, metrics=metric)
    for group, n in (("a", 20), ("b", 6)):
        own = predictions[groups == group]
        half = t.ppf(0.5 + 0.975 / 2, n - 1) * own.std(ddof=1) / np.sqrt(n)
        assert report.loc[group, "mean_high"] == pytest.approx(own.mean() + half)


def test_undefined_is_nan_with_a_warning():
    y, groups = np.array([0, 1, 0, 1, 0, 0]), list("aaaabb")
    with pytest.warns(UndefinedMetricWarning, match=r"true_positive_rate is undefined in .* b,"):
        report = group_report(y, y, sensitive_features=groups, metrics="true_positive_rate")
    assert np.isnan(report.loc["b", "true_positive_rate"])
    assert report.loc["a", "true_positive_rate"] == 1
    with pytest.warns(UndefinedMetricWarning, match=r"f1_score is undefined in .* b,"):
        report = group_report(y, y, sensitive_features=groups, metrics="f1_score")
    assert np.isnan(report.loc["b", "f1_score"])


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("no_such", "'no_such' is none of"),
        (["log_loss"], "log_loss needs probabilities"),
        ([fairlearn.metrics.demographic_parity_difference], "compares groups itself"),
        ([3], "names or callables"),
        (["f1_score", "f1_score"], "more than once"),
    ],
)
def test_metrics_that_cannot_be(metrics, message):
    with pytest.raises(ValueError, match=message):
        group_report([0, 1, 1, 0], [0, 1, 0, 0], sensitive_features=list("aabb"), metrics=metrics)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 3), 1 / 3), "3 columns of probabilities, but y_true 2 classes"),
        (np.full((4, 2), 0.6), "rows sum to 1.2"),
        ([0.5, 1.5, 0.2, 0.1], "between 0 and 1"),
    ],
)
def test_probabilities_that_are_none(values, message):
    with pytest.raises(ValueError, match=message):
        group_report([0, 1, 1, 0], values, sensitive_features=list("aabb"))


def test_probabilities_of_one_class_and_frames():
    options = {"sensitive_features": GROUPS, "metrics": None, "random_state": 0}
    reports = [
        group_report(Y, values, **options)
        for values in (BEFORE, BEFORE[:, 1], pd.DataFrame(BEFORE[:, ::-1], columns=["yes", "no"]))
    ]
    for report in reports[1:]:
        pd.testing.assert_frame_equal(report, reports[0])
    assert {"selection_rate", "log_loss", "calibration_error"} <= set(reports[0])


def test_weights_of_samples_that_count_twice():
    twice = np.r_[np.arange(N), np.arange(0, N, 2)]
    weights = np.where(np.arange(N) % 2, 1.0, 2.0)
    p, q = BEFORE.argmax(1), AFTER.argmax(1)
    y = (Y == "yes").astype(int)
    weighted = change_report(y, p, q, sensitive_features=GROUPS, sample_weight=weights)
    repeated = change_report(y[twice], p[twice], q[twice], sensitive_features=GROUPS[twice])
    assert weighted["change"].to_numpy() == pytest.approx(repeated["change"].to_numpy())
    models = model_report(y, {0: p, 1: q}, sensitive_features=GROUPS, sample_weight=weights)
    expected = model_report(y[twice], {0: p[twice], 1: q[twice]}, sensitive_features=GROUPS[twice])
    for column in ("accuracy", "fvo", "flip_rate", "excess_accuracy_gap", "fvo_change"):
        assert models[column].to_numpy() == pytest.approx(expected[column].to_numpy())


def largest_growth_by_programs(before, change, after):
    """For each pair of groups, a linear program over p, d, max p and min p."""
    n = len(before[0])
    rows, ends = [], []
    for k in range(n):
        for sign, extra in ((1, (2 * n, -1)), (-1, (2 * n + 1, 1))):  # p_k <= M, m <= p_k
            row = np.zeros(2 * n + 2)
            row[k], row[extra[0]] = sign, extra[1]
            rows.append(row)
            ends.append(0)
        for sign, end in ((1, after[1][k]), (-1, -after[0][k])):  # p + d within
            row = np.zeros(2 * n + 2)
            row[[k, n + k]] = sign
            rows.append(row)
            ends.append(end)
    bounds = [*zip(*before, strict=True), *zip(*change, strict=True), (None, None), (None, None)]
    found = []
    for i, j in itertools.permutations(range(n), 2):
        cost = np.zeros(2 * n + 2)
        cost[[i, n + i]] -= 1
        cost[[j, n + j]] += 1
        cost[-2:] = 1, -1
        result = linprog(cost, np.array(rows), ends, bounds=bounds)
        found.append(-result.fun)
    return max(found)


def test_bounds_of_the_change_of_a_range_by_linear_programs():
    rng = np.random.default_rng(5)
    for trial in range(40):
        n = rng.integers(2, 5)
        p, d = rng.random(n) * (0.1 if trial % 2 else 1), rng.normal(size=n) / 10
        boxes = [(v - rng.random(n) / 10, v + rng.random(n) / 10) for v in (p, d, p + d)]
        low, high = range_change_interval(*boxes)
        before, (least, most), after = boxes
        back = (after, (-most, -least), before)
        assert high == pytest.approx(largest_growth_by_programs(*boxes), abs=1e-7)
        assert low == pytest.approx(-largest_growth_by_programs(*back), abs=1e-7)
    assert range_change_interval(*[(np.zeros(1), np.ones(1))] * 3) == (0, 0)


def fvo_change_coverage(n_groups, smallest, draws, seed):
    """Share of draws in which the interval holds the true change of FVO; and of the paired changes."""
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(smallest, 40 * smallest, n_groups).astype(int)
    truth = rng.uniform(0.7, 0.9, n_groups)
    lose, gain = rng.uniform(0, 0.12, n_groups), rng.uniform(0, 0.2, n_groups)
    after = truth * (1 - lose) + (1 - truth) * gain
    expected = np.ptp(after) - np.ptp(truth)
    groups = np.repeat(np.arange(n_groups), sizes)
    y, covered = np.ones(len(groups), int), 0
    for _ in range(draws):
        right = rng.random(len(groups)) < truth[groups]
        flip = rng.random(len(groups)) < np.where(right, lose[groups], gain[groups])
        report = change_report(
            y, right.astype(int), (right ^ flip).astype(int), sensitive_features=groups
        )
        covered += bool(
            report["fvo_change_low"].iloc[0] <= expected <= report["fvo_change_high"].iloc[0]
        )
    return covered / draws


@pytest.mark.parametrize(("n_groups", "smallest"), [(2, 50), (5, 20), (20, 30)])
def test_coverage_of_the_change_of_fvo(n_groups, smallest):
    assert fvo_change_coverage(n_groups, smallest, 200, n_groups) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("smallest", [5, 30, 200])
@pytest.mark.parametrize("n_groups", [2, 3, 5, 10, 20])
def test_coverage_of_the_change_of_fvo_at_length(n_groups, smallest):
    for seed in range(5):
        assert fvo_change_coverage(n_groups, smallest, 1000, seed) >= 0.95


def test_detectable_gaps_and_losses_have_power_as_said():
    rng = np.random.default_rng(1)
    sizes = np.array([1500, 400, 200])
    groups = np.repeat(list("abc"), sizes)
    y, n = np.ones(sizes.sum(), int), sizes.sum()
    right = rng.random(n) < 0.7
    table = detectable(y, right, right)
    loss, gap = table.loc["c", ["loss", "gap"]]
    shown = {"loss": 0, "gap": 0}
    for seed in range(300):
        right = rng.random(n) < 0.7
        lost = right & (groups == "c") & (rng.random(n) < loss / 0.7)
        changes = change_report(
            y, right.astype(int), (right & ~lost).astype(int), sensitive_features=groups
        )
        shown["loss"] += changes.loc["c", "change_high"] < 0
        worse = (rng.random(n) < np.where(groups == "c", 0.7 - gap, 0.7)).astype(int)
        report = group_report(y, worse, sensitive_features=groups, random_state=seed)
        shown["gap"] += report.attrs["equal_accuracy_p"] <= 0.05
    assert {name: round(count / 300, 1) for name, count in shown.items()} == {"loss": 0.8, "gap": 0.8}


def detectable(y, before, after):
    predictions = {"a": before.astype(int), "b": after.astype(int)}
    samples, outcomes = encode(y, predictions, np.repeat(list("abc"), [1500, 400, 200]))
    assert find_measures((), samples, outcomes) == []
    return detectable_table(samples, *outcomes, 0.95)


def test_detectable_is_nan_where_nothing_can_be_shown():
    y = np.array([0, 1] * 8)
    tables = compare_models(
        y, {"a": y, "b": 1 - y}, sensitive_features=list("aab" + "a" * 13), metrics=()
    )
    assert np.isnan(tables.detectable.loc[("b", "b"), "loss"])


def test_one_model_has_no_changes():
    tables = compare_models(Y, {"float": BEFORE}, sensitive_features=GROUPS)
    assert tables.changes.empty
    assert tables.detectable.empty
    assert tables.groups.index.names == ["model", "sensitive_feature_0"]


def test_bounds_of_losses_and_flips():
    p, q = BEFORE.argmax(1), AFTER.argmax(1)
    y = (Y == "yes").astype(int)
    row = model_report(y, {"a": p, "b": q}, sensitive_features=GROUPS, random_state=0).loc["b"]
    one = change_report(y, p, q, sensitive_features=np.full(N, "all")).iloc[0]
    for name in ("", "_low", "_high"):
        assert row[f"accuracy_change{name}"] == pytest.approx(one[f"change{name}"])
    flips = binomtest(int((p != q).sum()), N).proportion_ci(0.95, method="wilson")
    assert (row["flip_rate_low"], row["flip_rate_high"]) == pytest.approx((flips.low, flips.high))
    changes = change_report(y, p, q, sensitive_features=GROUPS)
    losses = np.random.default_rng(0).uniform(
        -changes["change_high"], -changes["change_low"], (20000, 3)
    )
    excess = (losses - (losses @ changes["count"] / N)[:, None]).max(axis=1)
    assert row["excess_accuracy_gap_low"] <= excess.min()
    assert excess.max() <= row["excess_accuracy_gap_high"] < excess.max() + 0.02


def test_exemplars_by_a_loop():
    proba = {"float": BEFORE, "one": AFTER, "two": noisy(2, 3)}
    table = compare_models(Y, proba, sensitive_features=GROUPS, metrics=()).exemplars
    labels = {name: np.array(["no", "yes"])[p.argmax(1)] for name, p in proba.items()}
    expected = []
    for i in range(N):
        n = sum(labels[name][i] != labels["float"][i] for name in ("one", "two"))
        if n:
            expected.append((GROUPS[i], -n, -BEFORE[i].max(), i))
    kept = [row for g in "abc" for row in [e for e in sorted(expected) if e[0] == g][:100]]
    assert table.index.tolist() == [row[3] for row in kept]
    assert table["n_changed"].tolist() == [-row[1] for row in kept]
    assert table["predicted[two]"].tolist() == [labels["two"][row[3]] for row in kept]
    series = pd.Series(Y, index=np.arange(N) + 1000)
    named = compare_models(series, proba, sensitive_features=GROUPS, metrics=()).exemplars
    assert named.index.tolist() == [row[3] + 1000 for row in kept]


def test_exemplars_of_groups_without_weight_are_left_out():
    y, p = np.array([0, 1, 0, 1, 1]), np.array([1, 1, 1, 1, 0])
    with pytest.warns(UserWarning, match="b have no weight"):
        tables = compare_models(
            y,
            {"float": y, "other": p},
            sensitive_features=list("babaa"),
            sample_weight=[0, 1, 0, 1, 1],
            metrics=(),
        )
    assert tables.exemplars.index.tolist() == [4]
    assert tables.groups.loc["other", "accuracy"].tolist() == [pytest.approx(2 / 3)]


SIMULATED = ["true_positive_rate", "false_positive_rate", "log_loss", "brier_score_loss"]


def coverage_of_metrics(sizes, draws, seed, names=SIMULATED):
    """Share of draws in which the intervals of all groups, and of all changes, hold at once."""
    rng = np.random.default_rng(seed)

    def draw(groups):
        """Labels, and probabilities of two models that are noisier in some groups."""
        y = rng.integers(0, 2, len(groups))
        logit = (2 * y - 1) * 1.2 + rng.normal(size=len(groups))
        proba = [1 / (1 + np.exp(-logit + rng.normal(size=len(groups)) * s)) for s in (0.3, 0.8)]
        return y, [np.column_stack([1 - p, p]) for p in proba]

    y, proba = draw(np.zeros(400_000, int))
    everyone = compare_models(y, dict(enumerate(proba)), sensitive_features=y * 0, metrics=SIMULATED[:3])
    truth = {name: everyone.models[name].to_numpy() for name in SIMULATED[:3]}
    truth["brier_score_loss"] = [np.mean((p[:, 1] - y) ** 2) for p in proba]
    groups, held = np.repeat(np.arange(len(sizes)), sizes), dict.fromkeys(names, 0)
    changed = held.copy()
    for _ in range(draws):
        y, proba = draw(groups)
        tables = compare_models(y, dict(enumerate(proba)), sensitive_features=groups, metrics=names)
        for name in names:
            rows, change = tables.groups.loc[0], tables.changes
            within = rows[f"{name}_low"] <= truth[name][0], truth[name][0] <= rows[f"{name}_high"]
            held[name] += bool((within[0] & within[1]).all())
            step = truth[name][1] - truth[name][0]
            within = change[f"{name}_change_low"] <= step, step <= change[f"{name}_change_high"]
            changed[name] += bool((within[0] & within[1]).all())
    return {name: (held[name] / draws, changed[name] / draws) for name in names}


def test_coverage_of_metrics_and_their_changes():
    found = coverage_of_metrics([60, 150, 400], 100, 0, SIMULATED[:3])
    assert min(min(pair) for pair in found.values()) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[60, 150, 400], [400, 800, 1600]])
def test_coverage_of_metrics_at_length(sizes):
    """Those of losses and of the jackknife are approximate; 300 draws are sure to 0.025."""
    found = coverage_of_metrics(sizes, 300, 1)
    assert min(min(pair) for pair in found.values()) >= 0.91


def test_names_of_models_are_plain():
    with pytest.raises(ValueError, match=r"plain names as keys, e\.g\. strings; got \('a', 1\)"):
        compare_models(Y, {"float": BEFORE, ("a", 1): BEFORE}, sensitive_features=GROUPS)
