import copy
import pickle

import joblib
import numpy as np
import pytest
import torch
from nets import CODES, small
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from skqfair import FairQATClassifier, QuantizedClassifier


@pytest.fixture(params=[QuantizedClassifier, FairQATClassifier])
def fitted(problem, request):
    X, y, _ = problem
    return request.param(small(), weight_bits=3, activation_bits=6, random_state=0).fit(X, y)


@pytest.mark.parametrize("library", ["pickle", "joblib"])
def test_same_predictions_in_a_new_process(problem, fitted, tmp_path, new_processes, library):
    X, _, _ = problem
    with (tmp_path / "model").open("wb") as file:
        {"pickle": pickle, "joblib": joblib}[library].dump(fitted, file)
    np.save(tmp_path / "X.npy", X)
    code = f"""
import {library} as library, numpy as np, torch
torch.set_num_threads(1)
with open("model", "rb") as file:
    model = library.load(file)
np.save("found.npy", model.predict_proba(np.load("X.npy")))
"""
    new_processes.run(code, tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), fitted.predict_proba(X))


def test_copies(problem, fitted):
    X, y, _ = problem
    other = copy.deepcopy(fitted)
    np.testing.assert_array_equal(other.predict_proba(X), fitted.predict_proba(X))
    assert other.module_ is not fitted.module_
    fresh = clone(fitted)
    assert not hasattr(fresh, "module_")
    np.testing.assert_array_equal(fresh.fit(X, y).predict_proba(X), fitted.predict_proba(X))


def test_clone_keeps_a_frozen_network(problem):
    X, y, _ = problem
    frozen = FrozenEstimator(small().fit(X, np.array([CODES[label] for label in y])))
    clf = clone(QuantizedClassifier(frozen, weight_bits=4))
    assert clf.estimator is frozen


def test_quantized_weights_rebuild_the_module(fitted):
    parameters = dict(fitted.module_.named_parameters())
    for name, weight in pickle.loads(pickle.dumps(fitted.quantized_weights_)).items():
        assert torch.equal(weight.dequantize(), parameters[name])
