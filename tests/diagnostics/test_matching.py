"""Small groups look steeper and sharper because they are small; at matched sizes they do not."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator

from skqfair import QuantizationDiagnostics
from skqfair._groups import encode_groups
from skqfair.diagnostics import group_hessian_eigenvalues
from skqfair.diagnostics._matched_samples import draw_rows
from skqfair.networks import make_classifier


@pytest.fixture(scope="module")
def population():
    """One population, whose labels are noisy, and a net that was trained on another part of it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(9000, 20)).astype(np.float32)
    y = (X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(size=9000) > 0).astype(np.int64)
    torch.manual_seed(0)
    net = make_classifier(module__hidden_sizes=(32,), max_epochs=25, lr=0.01)
    return FrozenEstimator(net.fit(X[4000:], y[4000:])), X[:4000], y[:4000]


def compare(population, match, seed):
    """The report for the population cut at random into 3,936 and 64 samples."""
    frozen, X, y = population
    parts = np.where(np.random.default_rng(seed).permutation(4000) < 64, "small", "large")
    diagnostics = QuantizationDiagnostics(
        frozen, weight_bits=4, match_group_sizes=match, random_state=seed, max_samples=2000
    )
    return diagnostics.fit(X, y, sensitive_features=parts).group_report_.loc["float"]


@pytest.fixture(scope="module")
def reports(population):
    return {match: [compare(population, match, seed) for seed in range(6)] for match in (True, False)}


def ratio(reports, column):
    """Small over large, geometric mean over the cuts."""
    return np.exp(np.mean([np.log(r.loc["small", column] / r.loc["large", column]) for r in reports]))


def test_without_matching_the_small_part_looks_steeper_and_sharper(reports):
    assert ratio(reports[False], "gradient_norm") > 2
    assert ratio(reports[False], "hessian_max_eigenvalue") > 1.15


def test_at_matched_sizes_it_does_not(reports):
    assert 0.7 < ratio(reports[True], "gradient_norm") < 1.4
    assert 0.85 < ratio(reports[True], "hessian_max_eigenvalue") < 1.15
    for column in ("gradient_norm", "hessian_max_eigenvalue"):
        inside = [
            r.loc["large", f"{column}_low"] <= r.loc["small", column] <= r.loc["large", f"{column}_high"]
            for r in reports[True]
        ]
        assert sum(inside) >= 5  # the interval of another draw covers a small part of the same


def test_the_debiased_norm_takes_the_noise_off(reports):
    """Its square is unbiased: the mean over the cuts is near that of the large part."""
    small = np.mean([r.loc["small", "gradient_norm_debiased"] ** 2 for r in reports[False]])
    plain = np.mean([r.loc["small", "gradient_norm"] ** 2 for r in reports[False]])
    large = np.mean([r.loc["large", "gradient_norm_debiased"] ** 2 for r in reports[False]])
    assert plain > 4 * large
    assert abs(small - large) < 0.5 * (plain - large)


def test_draws():
    groups = encode_groups(np.repeat(["a", "b", "c"], [50, 7, 20]), 77)
    rng = np.random.default_rng(0)
    drawn = draw_rows(groups, 4, match=True, max_samples=None, rng=rng)
    assert [len(draws) for draws in drawn] == [4, 1, 4]
    for g, draws in enumerate(drawn):
        for rows in draws:
            assert len(set(rows)) == 7
            assert (groups.codes[rows] == g).all()
    assert not np.array_equal(drawn[0][0], drawn[0][1])
    drawn = draw_rows(groups, 4, match=False, max_samples=10, rng=rng)
    assert [[len(rows) for rows in draws] for draws in drawn] == [[10], [7], [10]]
    drawn = draw_rows(groups, 4, match=True, max_samples=5, rng=rng)
    assert [len(draws) for draws in drawn] == [4, 4, 4]


def test_intervals_hold_for_other_people(population):
    """The interval of draws of half a group covers the value of as many other people."""
    frozen, X, y = population
    inside, rng = [], np.random.default_rng(0)
    for seed in range(20):
        rows = rng.permutation(4000)
        groups = np.repeat(["large", "small"], [400, 200])
        rows = rows[: len(groups)]
        report = (
            QuantizationDiagnostics(frozen, weight_bits=4, random_state=seed)
            .fit(X[rows], y[rows], sensitive_features=groups)
            .group_report_.loc["float"]
        )
        for column in ("gradient_norm", "hessian_max_eigenvalue", "hessian_trace"):
            low, high = report.loc["large", [f"{column}_low", f"{column}_high"]]
            inside.append(low <= report.loc["small", column] <= high)
    assert np.mean(inside) >= 0.9


def test_residuals_in_large_networks_are_small_enough():
    """What the looser tolerances cost, against converged values."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 40)).astype(np.float32)
    y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(np.int64)
    torch.manual_seed(0)
    net = make_classifier(module__hidden_sizes=(128, 64), max_epochs=8).fit(X, y)
    diagnostics = QuantizationDiagnostics(FrozenEstimator(net), weight_bits=(4, 2), random_state=0)
    report = diagnostics.fit(X, y).group_report_
    groups = np.zeros(len(X))
    for version in diagnostics._versions:
        module = version.differentiable()
        assert sum(p.numel() for p in module.parameters()) > 10_000
        options = {"tol": 1e-5, "max_iter": 400}
        largest, smallest = (
            group_hessian_eigenvalues(module, X, y, groups, which=which, **options)[0, 0]
            for which in ("LA", "SA")
        )
        row = report.loc[(version.name, "all")]
        assert row["hessian_max_eigenvalue"] == pytest.approx(largest, rel=1e-3)
        assert row["hessian_min_eigenvalue"] == pytest.approx(smallest, rel=0.1)
