import itertools

import numpy as np
import pytest

from skqfair.quantization import CHOICES, allocate_bits

BITS = np.array(CHOICES)


def worst(omega, chosen):
    """The objective, by hand."""
    return max(sum(omega[i, c, a] for i, c in enumerate(chosen)) for a in range(omega.shape[2]))


def brute_force(omega, sizes, budget):
    fits = (
        worst(omega, chosen)
        for chosen in itertools.product(range(len(BITS)), repeat=len(omega))
        if (sizes * BITS[list(chosen)]).sum() <= budget * sizes.sum() * (1 + 1e-9)
    )
    return min(fits)


@pytest.mark.parametrize("size", [1, 1e-3, 1e-7, 1e4])
@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("shift", [0, -0.1])
def test_as_good_as_brute_force(size, falling, shift):
    """Small and large sensitivities, with zeros and negative ones among them."""
    for seed in range(13):
        rng = np.random.default_rng(seed)
        n_layers, n_groups = rng.integers(1, 6), rng.integers(1, 4)
        omega = rng.exponential(size=(n_layers, 5, n_groups)) * size
        omega *= rng.random(omega.shape) < 0.9
        omega = (-np.sort(-omega, axis=1) if falling else omega) + shift * size
        sizes, budget = rng.integers(1, 1000, n_layers), rng.uniform(2, 8)
        bits, gap = allocate_bits(omega, sizes, budget=budget, return_gap=True)
        assert gap < 1e-12, seed
        assert (sizes * bits).sum() <= budget * sizes.sum() * (1 + 1e-9), seed
        found = worst(omega, np.searchsorted(BITS, bits))
        best = brute_force(omega, sizes, budget)
        assert found == pytest.approx(best, rel=1e-6, abs=1e-9 * size), seed


def test_sensitivities_of_very_different_size():
    """They fall 16-fold with each bit: the solver's tolerances are absolute."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        omega = rng.exponential(size=(4, 5, 2)) * 16.0 ** -np.array(CHOICES, dtype=float)[:, None]
        sizes, budget = rng.integers(1, 1000, 4), rng.uniform(5, 7.5)
        found = worst(omega, np.searchsorted(BITS, allocate_bits(omega, sizes, budget=budget)))
        assert found == pytest.approx(brute_force(omega, sizes, budget), rel=1e-3), seed


@pytest.mark.parametrize("scale", [1, 1e-7])
def test_many_layers_within_a_proven_percent(scale):
    rng = np.random.default_rng(0)
    omega = -np.sort(-rng.exponential(size=(200, 5, 10)), axis=1)
    omega *= 10.0 ** rng.uniform(-3, 0, (200, 1, 1)) * scale
    sizes = rng.integers(100, 1_000_000, 200)
    bits, gap = allocate_bits(omega, sizes, budget=3, return_gap=True)
    assert gap <= 0.01
    assert (sizes * bits).sum() <= 3 * sizes.sum()
    uniform = worst(omega, np.full(200, list(BITS).index(3)))
    assert worst(omega, np.searchsorted(BITS, bits)) < 0.8 * uniform


def test_one_group_is_the_usual_allocation():
    omega = np.array([[4.0, 1.0], [7.0, 0.0]])  # two layers, at 2 and at 4 bits
    bits = allocate_bits(omega, [10, 10], budget=3, choices=(2, 4))
    np.testing.assert_array_equal(bits, [2, 4])
    np.testing.assert_array_equal(allocate_bits(omega, [10, 10], budget=4, choices=(4, 4)), [4, 4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 1.9}, "budget=1.9 must be within the choices, 2 to 8"),
        ({"budget": 8.1}, "budget=8.1"),
        ({"sensitivity": np.zeros((2, 4, 1))}, r"sensitivity must have shape \(layers, 5 choices"),
        ({"sensitivity": np.full((2, 5, 1), np.nan)}, "sensitivity must be finite"),
        ({"n_weights": [1]}, "n_weights must be 2 positive numbers"),
        ({"n_weights": [1, 0]}, "n_weights must be 2 positive numbers"),
        ({"choices": (1, 2, 3, 4, 5)}, "choices must be an integer from 2 to 16"),
    ],
)
def test_bad_input(change, message):
    good = {"sensitivity": np.zeros((2, 5, 1)), "n_weights": [1, 2], "budget": 4, "choices": CHOICES}
    with pytest.raises(ValueError, match=message):
        allocate_bits(**{**good, **change})
