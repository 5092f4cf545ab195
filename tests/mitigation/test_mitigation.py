"""Cells, weights and samplers against hand-written loops and against scipy's chi-square test."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from skqfair._groups import encode_groups
from skqfair.mitigation import CellSampler, balancing_weights, cell_report, make_cells

GROUPS = np.array(["a"] * 50 + ["b"] * 20 + ["c"] * 5)
Y = np.array([0, 1, 1] * 25)
CLASSES = np.array(["no", "yes"])


@pytest.fixture
def groups():
    return encode_groups(GROUPS, len(GROUPS))


@pytest.mark.parametrize("balance", ["group", "group_class", "class"])
def test_cells_are_a_partition(groups, balance):
    cells = make_cells(balance, Y, CLASSES, groups)
    names = {
        "group": list(GROUPS),
        "class": list(CLASSES[Y]),
        "group_class": list(zip(GROUPS, CLASSES[Y], strict=True)),
    }[balance]
    assert [cells.index[code] for code in cells.codes] == names
    assert list(cells.index) == sorted(set(names))
    np.testing.assert_array_equal(cells.counts, [names.count(name) for name in cells.index])


def test_only_cells_with_samples(groups):
    """With the target itself as the group, group_class has its diagonal only."""
    cells = make_cells("group_class", groups.codes, np.array(["a", "b", "c"]), groups)
    assert list(cells.index) == [("a", "a"), ("b", "b"), ("c", "c")]
    assert len(make_cells("class", np.zeros(5, int), CLASSES).index) == 1


def test_several_columns_become_levels():
    frame = pd.DataFrame({"sex": ["f", "m", "f", "m"], "race": ["x", "x", "y", "y"]})
    cells = make_cells("group_class", [0, 1, 0, 1], CLASSES, encode_groups(frame, 4))
    assert cells.index.names == ["sex", "race", "class"]
    assert len(cells.index) == 4


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_follow_their_formula(groups, strength, weighted):
    own = np.random.default_rng(0).exponential(size=len(Y)) if weighted else np.ones(len(Y))
    cells = make_cells("group_class", Y, CLASSES, groups)
    weights = balancing_weights(cells, strength, own if weighted else None)
    expected = []
    for i in range(len(Y)):
        same = [j for j in range(len(Y)) if cells.codes[j] == cells.codes[i]]
        n_a = sum(own[j] for j in same)
        expected.append(own[i] * (sum(own) / (len(cells.index) * n_a)) ** strength)
    expected = np.array(expected) / np.mean(expected)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    assert weights.mean() == pytest.approx(1)
    if strength == 1:
        sums = np.bincount(cells.codes, weights=weights)
        np.testing.assert_allclose(sums, sums[0])


def test_a_cell_without_weight_stays_without(groups):
    own = (GROUPS != "c").astype(float)
    weights = balancing_weights(make_cells("group", Y, CLASSES, groups), 1.0, own)
    assert (weights[GROUPS == "c"] == 0).all()
    assert np.isfinite(weights).all()


@pytest.mark.parametrize("seed", range(5))
def test_balanced_draws_every_cell_and_every_sample_equally_often(groups, seed):
    sampler = CellSampler(groups.codes, "balanced", seed)
    assert len(sampler) == len(GROUPS)
    drawn = np.concatenate([sampler.draw() for _ in range(200)])
    counts = np.bincount(drawn, minlength=len(GROUPS))
    assert chisquare(np.bincount(groups.codes[drawn])).pvalue > 1e-3
    for cell in range(3):
        assert chisquare(counts[groups.codes == cell]).pvalue > 1e-3


def test_oversampling_and_undersampling(groups):
    over, under = (CellSampler(groups.codes, s, 0) for s in ("oversample", "undersample"))
    drawn = over.draw()
    np.testing.assert_array_equal(np.bincount(groups.codes[drawn]), [50, 50, 50])
    assert len(over) == 150
    assert set(drawn) == set(range(75))  # every sample is there
    drawn = under.draw()
    np.testing.assert_array_equal(np.bincount(groups.codes[drawn]), [5, 5, 5])
    assert len(under) == len(set(drawn)) == 15
    assert sorted(under.draw()) != sorted(drawn)  # redrawn each epoch
    assert (over.expected, under.expected) == (50, 5)


def test_same_seed_same_draws(groups):
    one, two = (CellSampler(groups.codes, "balanced", 3) for _ in range(2))
    for _ in range(2):
        assert list(one) == list(two)
    assert list(one) != list(one)


def test_report_of_what_a_cell_counts(groups):
    cells = make_cells("group", Y, CLASSES, groups)
    plain = cell_report(cells, None, cells.counts)
    np.testing.assert_array_equal(plain["effective_weight"], 1)
    weights = balancing_weights(cells, 1.0)
    by_loss = cell_report(cells, weights, cells.counts)
    by_draws = cell_report(cells, None, np.full(3, 25.0))
    np.testing.assert_allclose(by_loss["effective_weight"], by_draws["effective_weight"])
    np.testing.assert_allclose(by_loss["effective_weight"], 25 / cells.counts)
