import random

import joblib
import numpy as np
import pytest
import torch
from nets import skorch_net, small, weights_of
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate
from skorch.dataset import Dataset

from skqfair import FairQATClassifier, QuantizedClassifier

NET = small(module__dropout=0.2, module__batch_norm=True)


@pytest.fixture(params=["quantized", "tuned"])
def clf(request):
    if request.param == "quantized":
        return QuantizedClassifier(NET, activation_bits=8, recalibrate_batchnorm=True, random_state=0)
    options = {"activation_bits": 8, "sampling": "balanced", "balance": "class", "finetune_epochs": 2}
    return FairQATClassifier(
        NET, calibration="learned", validation_fraction=0.2, random_state=0, **options
    )


def test_same_seed_same_bits(problem, clf):
    X, y, groups = problem
    one, two = (clone(clf).fit(X, y, sensitive_features=groups) for _ in range(2))
    np.testing.assert_array_equal(weights_of(one), weights_of(two))
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))
    other = clone(clf).set_params(random_state=1).fit(X, y, sensitive_features=groups)
    assert not np.array_equal(weights_of(one), weights_of(other))


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_same_bits_in_workers(problem, clf, backend):
    X, y, _ = problem
    options = {"cv": 4, "return_estimator": True, "error_score": "raise"}
    serial = cross_validate(clf, X, y, **options)
    with joblib.parallel_backend(backend, n_jobs=2):
        parallel = cross_validate(clf, X, y, n_jobs=2, **options)
    np.testing.assert_array_equal(serial["test_score"], parallel["test_score"])
    for one, two in zip(serial["estimator"], parallel["estimator"], strict=True):
        np.testing.assert_array_equal(weights_of(one), weights_of(two))
        np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))


class OwnData(Dataset):
    """Takes a net off the fast path: its predictions run through torch's loader."""


def test_predictions_do_not_disturb_trainings_in_other_threads(problem):
    X, y, _ = problem
    net = skorch_net(module__dropout=0.3, dataset=OwnData, max_epochs=3, iterator_train__shuffle=True)
    clf = QuantizedClassifier(net, random_state=0)
    options = {"cv": 4, "return_estimator": True, "return_train_score": True, "error_score": "raise"}
    serial = cross_validate(clf, X, y, **options)
    with joblib.parallel_backend("threading", n_jobs=4):
        threads = cross_validate(clf, X, y, n_jobs=4, **options)
    for one, two in zip(serial["estimator"], threads["estimator"], strict=True):
        np.testing.assert_array_equal(weights_of(one), weights_of(two))


def test_global_generators_are_left_as_they_were(problem, clf):
    X, y, groups = problem
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    clf.fit(X, y, sensitive_features=groups, sample_weight=np.ones(400))
    clf.predict(X)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


def test_no_seed_draws_a_fresh_one(problem):
    X, y, _ = problem
    torch.manual_seed(0)
    one = QuantizedClassifier(NET).fit(X, y)
    torch.manual_seed(0)
    two = QuantizedClassifier(NET).fit(X, y)
    assert not np.array_equal(weights_of(one), weights_of(two))


def test_a_generator_as_seed_moves_on(problem):
    X, y, _ = problem
    state = np.random.RandomState(0)
    one, two = (QuantizedClassifier(NET, random_state=state).fit(X, y) for _ in range(2))
    assert not np.array_equal(weights_of(one), weights_of(two))


def test_search_with_workers_equals_serial(problem, clf):
    X, y, _ = problem
    results = [
        GridSearchCV(clf, {"weight_bits": [2, 4, 8]}, cv=2, n_jobs=n, error_score="raise")
        .fit(X, y)
        .cv_results_
        for n in (1, 2)
    ]
    np.testing.assert_array_equal(results[0]["mean_test_score"], results[1]["mean_test_score"])
