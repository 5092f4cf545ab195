"""The study of the audit's intervals and tests at a small scale, and exact coverage of proportions."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from skqfair.metrics import compare_models
from skqfair.metrics._intervals import exact_interval

PATH = Path(__file__).parents[1] / "benchmarks" / "study_audit_intervals.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("study_audit_intervals", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("n_groups", [2, 5, 20])
def test_proportions_cover_whatever_they_are(n_groups):
    """All groups at once, by sums over the binomial: no simulation."""
    for n in (1, 5, 20, 50, 300):
        right = np.arange(n + 1)
        low, high = exact_interval(right / n, n, 1 - 0.05 / n_groups)
        for accuracy in np.linspace(0.01, 0.99, 25):
            missed = binom.pmf(right, n, accuracy)[(accuracy < low) | (accuracy > high)].sum()
            assert n_groups * missed <= 0.05 + 1e-9


def test_the_truth_of_a_population_is_that_of_all_its_samples(study):
    population = study.Population(3, 0, size=500)
    everyone = np.repeat(np.arange(3), 500)
    p = [np.concatenate([group[model] for group in population.p]) for model in (0, 1)]
    predictions = {model: np.column_stack([1 - q, q]) for model, q in enumerate(p)}
    tables = compare_models(
        np.concatenate(population.y), predictions, sensitive_features=everyone, metrics=study.METRICS
    )
    for name, values in population.truth().items():
        for model in (0, 1):
            assert tables.groups.loc[model, name].to_numpy() == pytest.approx(values[model])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize(("n_groups", "smallest", "draws"), [(2, 20, 40), (20, 20, 15)])
def test_every_interval_covers(study, n_groups, smallest, draws):
    held = study.coverage(n_groups, smallest, draws, seed=1)
    assert len(held) == 30
    assert min(held.values()) >= 0.86
    by_group = [share for (_, what), share in held.items() if what == "by group"]
    assert np.mean(by_group) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("smallest", [20, 100])
@pytest.mark.parametrize("n_groups", [2, 5, 20])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_every_interval_covers_at_length(study, n_groups, smallest):
    """400 draws are sure to 0.022, two standard errors."""
    held = study.coverage(n_groups, smallest, 400, seed=2)
    assert min(held.values()) >= 0.95 - 0.022 * 1.5


def test_tests_keep_their_size_and_power(study):
    found = study.rejections(5, 100, 60, seed=1)
    sizes = [share for name, share in found.items() if name.startswith("size")]
    powers = [share for name, share in found.items() if name.startswith("power")]
    assert (len(sizes), len(powers)) == (4, 2)
    assert max(sizes) <= 0.12
    assert powers == pytest.approx([0.8, 0.8], abs=0.13)
