import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency

from skqfair.metrics import change_report, group_report
from skqfair.metrics._counts import count_groups
from skqfair.metrics._intervals import (
    equal_accuracy_draws,
    equal_accuracy_p,
    exact_interval,
    fvo_chance,
)


def test_exact_intervals_equal_scipy():
    for k, n, level in [(0, 5, 0.95), (3, 10, 0.99), (499, 500, 0.9), (7, 7, 0.983), (0, 1, 0.5)]:
        expected = binomtest(k, n).proportion_ci(level)
        low, high = exact_interval(np.array(k / n), n, level)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("gap", [0.0, 0.05, 0.1, 0.3])
def test_coverage_of_the_fvo_interval(gap):
    """Simulated: four groups of 2000, 400, 100 and 50; the true FVO is within in >= 95 % of draws."""
    rng = np.random.default_rng(int(gap * 100))
    sizes = np.array([2000, 400, 100, 50])
    truth = np.array([0.65 + gap, 0.65 + gap / 2, 0.65, 0.65 + gap])
    groups = np.repeat(np.arange(4), sizes)
    covered, draws = 0, 600
    for _ in range(draws):
        correct = rng.random(len(groups)) < truth[groups]
        report = group_report(np.ones(len(groups)), correct.astype(float), sensitive_features=groups)
        low, high = report.attrs["fvo_interval"]
        covered += low <= gap <= high
    assert covered / draws >= 0.95


def test_simultaneous_coverage_of_the_group_intervals():
    rng = np.random.default_rng(0)
    groups, truth = np.repeat(np.arange(5), [800, 200, 100, 60, 40]), np.linspace(0.6, 0.95, 5)
    covered = 0
    for _ in range(600):
        correct = rng.random(len(groups)) < truth[groups]
        report = group_report(np.ones(len(groups)), correct.astype(float), sensitive_features=groups)
        covered += bool(((report["accuracy_low"] <= truth) & (truth <= report["accuracy_high"])).all())
    assert covered / 600 >= 0.94


def brute_chance(groups, weights, accuracy, draws, rng):
    """FVO of correctness drawn sample by sample."""
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    found = []
    for _ in range(draws):
        correct = rng.random(len(groups)) < accuracy
        each = [np.average(correct[m], weights=weights[m]) for m in members]
        found.append(max(each) - min(each))
    return np.mean(found), np.quantile(found, 0.95)


@pytest.mark.parametrize("weighting", ["none", "two", "continuous"])
def test_chance_band_equals_draws_sample_by_sample(weighting):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), [300, 80, 40])
    weights = {
        "none": np.ones(420),
        "two": rng.choice([1.0, 4.0], 420),
        "continuous": rng.random(420) + 0.1,
    }[weighting]
    y, p = np.ones(420), (rng.random(420) < 0.8).astype(float)
    counts = count_groups(y, p, groups, None if weighting == "none" else weights)
    found = fvo_chance(equal_accuracy_draws(counts, random_state=0, n_draws=4000))
    expected = brute_chance(groups, weights, np.average(p, weights=weights), 4000, rng)
    assert found == pytest.approx(expected, rel=0.06)


def test_chance_of_equal_groups_is_not_exceeded_too_often():
    """An FVO beyond the 95 % quantile comes up in about 5 % of draws under equal accuracy."""
    rng = np.random.default_rng(1)
    groups, beyond = np.repeat(np.arange(4), [500, 300, 100, 50]), 0
    for i in range(400):
        correct = (rng.random(950) < 0.8).astype(float)
        counts = count_groups(np.ones(950), correct, groups)
        beyond += counts.fvo > fvo_chance(equal_accuracy_draws(counts, random_state=i)).quantile
    assert 0.02 <= beyond / 400 <= 0.09


def test_one_group_has_no_gap():
    report = group_report([1, 0], [1, 1], sensitive_features=["a", "a"])
    assert report.attrs["fvo"] == 0
    assert report.attrs["fvo_interval"] == (0, 0)
    assert report.attrs["fvo_chance"] == (0, 0)
    assert report.attrs["equal_accuracy_p"] == 1


def test_homogeneity_agrees_with_chi_square_where_groups_are_large():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(3), [4000, 2000, 1500])
    for truth in ([0.8, 0.8, 0.8], [0.8, 0.82, 0.79], [0.8, 0.81, 0.8]):
        correct = rng.random(len(groups)) < np.array(truth)[groups]
        counts = count_groups(np.ones(len(groups)), correct.astype(float), groups)
        expected = chi2_contingency([counts.correct, counts.count - counts.correct], correction=False)
        found = equal_accuracy_p(counts, equal_accuracy_draws(counts, n_draws=4000, random_state=0))
        assert found == pytest.approx(expected.pvalue, abs=0.03)


@pytest.mark.parametrize("weighted", [False, True])
def test_homogeneity_rejects_about_as_often_as_it_says(weighted):
    rng = np.random.default_rng(3)
    groups, rejected = np.repeat(np.arange(4), [500, 200, 60, 27]), 0
    for i in range(400):
        correct = (rng.random(787) < 0.85).astype(float)
        weight = rng.choice([1.0, 3.0], 787) if weighted else None
        counts = count_groups(np.ones(787), correct, groups, weight)
        rejected += (
            equal_accuracy_p(counts, equal_accuracy_draws(counts, n_draws=200, random_state=i)) <= 0.05
        )
    assert 0.02 <= rejected / 400 <= 0.09


def test_homogeneity_sees_what_the_maximum_loses_in_a_small_group():
    """A gap of ten points between two large groups, and one group of 20."""
    groups = np.repeat(["large", "other", "tiny"], [2000, 1500, 20])
    correct = np.concatenate([np.arange(2000) < 1800, np.arange(1500) < 1200, np.arange(20) < 17])
    report = group_report(np.ones(3520), correct, sensitive_features=groups, random_state=0)
    assert report.attrs["fvo"] < report.attrs["fvo_chance"].quantile
    assert report.attrs["equal_accuracy_p"] < 0.01
    assert report.attrs["fvo_interval"][0] > 0


def test_coverage_of_the_paired_changes():
    """Simulated: simultaneous intervals over groups of 800, 60 and 25, 95 % or more."""
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(3), [800, 60, 25])
    lose, gain = np.array([0.05, 0.1, 0.02]), np.array([0.03, 0.02, 0.05])
    covered = 0
    for _ in range(600):
        u = rng.random(len(groups))
        lost, gained = u < lose[groups], u > 1 - gain[groups]
        before, after = ~gained, ~lost
        report = change_report(
            np.ones(885), before.astype(float), after.astype(float), sensitive_features=groups
        )
        truth = gain - lose
        covered += bool(((report["change_low"] <= truth) & (truth <= report["change_high"])).all())
    assert covered / 600 >= 0.95
