"""Estimators that are fitted, or predict, in several threads at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from nets import skorch_net, small

from skqfair import FairQATClassifier, PrunedClassifier, QuantizedClassifier

ESTIMATORS = {
    "quantized": (QuantizedClassifier, {"activation_bits": 8}),
    "fair": (FairQATClassifier, {"activation_bits": 8, "finetune_epochs": 2}),
    "pruned": (PrunedClassifier, {"finetune_epochs": 2}),
}


def nets():
    """Two nets of which the modules differ between training and evaluation."""
    options = {"module__dropout": 0.5, "module__batch_norm": True}
    return small(**options), skorch_net(**options)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_fits_in_threads_equal_fits_in_turn(problem, name):
    X, y, _ = problem
    kind, options = ESTIMATORS[name]

    def fit(net, seed):
        return kind(net, random_state=seed, **options).fit(X, y).predict_proba(X)

    jobs = [(net, seed) for net in nets() for seed in (0, 1)]
    expected = [fit(*job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: fit(*job), jobs))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_one_estimator_predicts_in_threads(problem, name):
    X, y, _ = problem
    kind, options = ESTIMATORS[name]
    for net in nets():
        clf = kind(net, random_state=0, **options).fit(X, y)
        expected = clf.predict_proba(X)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(clf.predict_proba, [X] * 40))
        assert all(np.array_equal(one, expected) for one in found)
        assert not any(m.training for m in clf.module_.modules())
