"""Offsets of classes against loops by hand, scans and full grids."""

import itertools

import numpy as np
import pytest

from skqfair.mitigation import STRENGTHS, class_offsets, correct_by_strength, drop_by_strength


def problem(n_classes, n=600, seed=0):
    """Probabilities of classes that are learned unequally well, and their labels."""
    rng = np.random.default_rng(seed)
    y = rng.choice(n_classes, n, p=np.arange(n_classes, 0, -1) / np.arange(n_classes + 1).sum())
    logits = rng.normal(size=(n, n_classes))
    logits[np.arange(n), y] += np.linspace(2.5, 0.8, n_classes)[y]
    e = np.exp(logits)
    return e / e.sum(1, keepdims=True), y


def group_rates(p, y, codes, b, weight):
    """Mean probability of the own class, by group, sample by sample."""
    sums, totals = {}, {}
    for row, label, group, w in zip(p, y, codes, weight, strict=True):
        shifted = [row[c] * np.exp(b[c]) for c in range(len(row))]
        sums[group] = sums.get(group, 0) + w * shifted[label] / sum(shifted)
        totals[group] = totals.get(group, 0) + w
    return np.array([sums[g] / totals[g] for g in sorted(sums)])


@pytest.mark.parametrize("weighted", [False, True])
def test_where_the_groups_are_the_classes_their_rates_meet(weighted):
    p, y = problem(4)
    weight = np.random.default_rng(1).uniform(0.5, 2, len(y)) if weighted else None
    b = class_offsets(p, y, y, weight)
    assert abs(b.mean()) < 1e-12
    rates = group_rates(p, y, y, b, np.ones(len(y)) if weight is None else weight)
    assert np.ptp(rates) < 1e-3 < 0.1 < np.ptp(group_rates(p, y, y, 0 * b, np.ones(len(y))))


def test_other_groups_end_where_no_class_is_moved():
    """At the end M'(mean - r) is the same for all classes: a shift of all changes nothing."""
    p, y = problem(3)
    codes = (np.random.default_rng(2).random(len(y)) < 0.2 + 0.3 * y).astype(int)
    b = class_offsets(p, y, codes)
    rates = group_rates(p, y, codes, b, np.ones(len(y)))
    shares = np.array([[np.mean(y[codes == k] == c) for c in range(3)] for k in range(2)])
    assert np.ptp(shares.T @ (rates.mean() - rates)) < 1e-4


def test_groups_of_the_same_classes_give_no_offsets():
    p, y = problem(3)
    p, y = np.concatenate([p, p]), np.concatenate([y, y])
    np.testing.assert_allclose(class_offsets(p, y, np.repeat([0, 1], 600)), 0, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_counts_are_those_of_predictions_at_every_strength(weighted):
    p, y = problem(4)
    codes = np.random.default_rng(3).integers(3, size=len(y))
    weight = np.random.default_rng(4).uniform(0.5, 2, len(y)) if weighted else None
    b = class_offsets(p, y, y)
    found = correct_by_strength(np.log(p), y, codes, b, sample_weight=weight)
    for t, row in zip(STRENGTHS, found, strict=True):
        predicted = [max(range(4), key=lambda c: np.log(q[c]) + t * b[c]) for q in p]
        right = (np.array(predicted) == y) * (1 if weight is None else weight)
        np.testing.assert_allclose(row, [right[codes == g].sum() for g in range(3)])


@pytest.mark.parametrize("weighted", [False, True])
def test_drops_and_their_errors_are_those_of_paired_differences(weighted):
    p, y = problem(4)
    weight = np.random.default_rng(4).uniform(0.5, 2, len(y)) if weighted else np.ones(len(y))
    b = class_offsets(p, y, y)
    drops, errors = drop_by_strength(np.log(p), y, b, sample_weight=weight if weighted else None)
    before = p.argmax(1) == y
    for t, drop, error in zip(STRENGTHS[::10], drops[::10], errors[::10], strict=True):
        after = (np.log(p) + t * b).argmax(1) == y
        difference = before.astype(float) - after
        mean = np.average(difference, weights=weight)
        spread = np.sqrt(np.sum(weight**2 * (difference - mean) ** 2)) / weight.sum()
        np.testing.assert_allclose([drop, error], [mean, spread], rtol=1e-10, atol=1e-12)
        if not weighted:  # the textbook's standard error, but for n - 1
            textbook = difference.std(ddof=1) / len(y) ** 0.5 * np.sqrt(1 - 1 / len(y))
            np.testing.assert_allclose(error, textbook, rtol=1e-10, atol=1e-12)


def figures(p, y, b):
    right = (np.log(p) + b).argmax(1) == y
    each = [right[y == k].mean() for k in np.unique(y)]
    return right.mean(), max(each) - min(each)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_distance_to_a_full_grid_of_offsets(n_classes, record_property):
    """The scaled direction comes close to the best of all offsets within the same drop."""
    distances = []
    for seed in range(3):
        p, y = problem(n_classes, seed=seed)
        floor = figures(p, y, np.zeros(n_classes))[0] - 0.02
        b = class_offsets(p, y, y)
        scanned = [figures(p, y, t * b) for t in STRENGTHS]
        axis = np.linspace(-2.5, 2.5, 101)
        grid = [
            figures(p, y, np.array([*free, 0])) for free in itertools.product(axis, repeat=n_classes - 1)
        ]
        best, full = (min(f for a, f in found if a >= floor) for found in (scanned, grid))
        distances.append(float(best - full))
    record_property("distances", distances)
    print(f"FVO above that of a full grid, {n_classes} classes: {np.round(distances, 4).tolist()}")
    assert max(distances) < 0.03
