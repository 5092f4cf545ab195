"""Ctrl-C at any moment: raised, nothing truncated in ``memory``, the estimator as it was before."""

import signal
import time

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skqfair import FairQATClassifier, QuantizedClassifier
from skqfair.networks import make_classifier

MOMENTS = np.random.default_rng(0).uniform(0.02, 0.98, 20)


@pytest.fixture(scope="module")
def data():
    X = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


def classifier(folder, kind=FairQATClassifier):
    options = {"finetune_epochs": 8} if kind is FairQATClassifier else {}
    net = make_classifier(max_epochs=8, batch_size=32)
    return kind(
        net, weight_bits=4, memory=None if folder is None else str(folder), random_state=0, **options
    )


def interrupted(seconds, function):
    """Call a function and send SIGINT after some seconds; return whether it came before the end."""
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return False


def attributes(estimator):
    return {name: id(value) for name, value in vars(estimator).items()}


@pytest.fixture(scope="module")
def undisturbed(data):
    """What comes out, and after how many seconds."""
    X, y = data
    classifier(None).fit(X, y)
    start = time.perf_counter()
    fitted = classifier(None).fit(X, y)
    seconds = time.perf_counter() - start
    return fitted.predict_proba(X), seconds


@pytest.mark.parametrize("moment", MOMENTS[:14:2])
def test_in_training_and_fine_tuning(data, undisturbed, tmp_path, moment):
    X, y = data
    expected, seconds = undisturbed
    fitted = classifier(None).set_params(finetune_epochs=0, estimator__max_epochs=1).fit(X, y)
    fitted.set_params(memory=str(tmp_path), finetune_epochs=8, estimator__max_epochs=8)
    before, found = attributes(fitted), fitted.predict_proba(X)
    came = interrupted(moment * seconds, lambda: fitted.fit(X, y))
    if came:
        assert attributes(fitted) == before
        np.testing.assert_array_equal(fitted.predict_proba(X), found)
    again = clone(fitted).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), expected)
    np.testing.assert_array_equal(clone(fitted).fit(X, y).predict_proba(X), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A worker stopped")
@pytest.mark.parametrize("moment", MOMENTS[14:])
def test_in_a_search_with_workers(data, tmp_path, moment):
    X, y = data
    grid = {"weight_bits": [8, 4, 2]}

    def search(folder):
        own = classifier(folder, QuantizedClassifier)
        return GridSearchCV(own, grid, cv=3, n_jobs=2, error_score="raise")

    start = time.perf_counter()
    expected = search(None).fit(X, y).cv_results_["mean_test_score"]
    seconds = time.perf_counter() - start
    interrupted(moment * seconds, lambda: search(tmp_path).fit(X, y))
    for _ in range(2):  # anew, and from what is stored
        found = search(tmp_path).fit(X, y).cv_results_["mean_test_score"]
        np.testing.assert_array_equal(found, expected)
