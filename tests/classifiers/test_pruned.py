"""Pruned networks against numpy, and the contract of all classifiers."""

import copy
import inspect
import pickle

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from module_zoo import ZOO, build
from nets import CODES, counting, small, weights_of
from scipy.special import softmax
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_validate
from skorch import NeuralNetClassifier
from torch import nn

from skqfair import PrunedClassifier, QuantizedClassifier
from skqfair.networks import MLP, ConvNet, make_classifier
from skqfair.quantization import SparseTensor, amount_for_size, float_size, prune, sparse_size

WEIGHTS = ("hidden0.weight", "output.weight")


@pytest.fixture
def frozen(problem):
    """A trained net that takes its batches in order."""
    X, y, _ = problem
    torch.manual_seed(0)
    net = small(lr=0.01, iterator_train__shuffle=False)
    return FrozenEstimator(net.fit(X, codes(y)))


def codes(y):
    return np.array([CODES[label] for label in y])


def values_of(module):
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


# ------------------------------------------------------------------ pruning


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_prediction_is_that_of_a_numpy_network(problem, scope):
    X, y, _ = problem
    clf = PrunedClassifier(small(), amount=0.6, scope=scope, random_state=0).fit(X, y)
    values = {name: value.copy() for name, value in values_of(clf.estimator_.module_).items()}
    thresholds, zeros = {}, {}
    for name in WEIGHTS:
        pool = WEIGHTS if scope == "global" else (name,)
        magnitudes = np.sort(np.concatenate([np.abs(values[n]).ravel() for n in pool]))
        thresholds[name] = magnitudes[round(0.6 * len(magnitudes)) - 1]
    for name in WEIGHTS:
        values[name][np.abs(values[name]) <= thresholds[name]] = 0
        zeros[name] = np.mean(values[name] == 0)
    hidden = np.maximum(X @ values["hidden0.weight"].T + values["hidden0.bias"], 0)
    logits = hidden @ values["output.weight"].T + values["output.bias"]
    np.testing.assert_allclose(clf.decision_function(X), logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(clf.predict_proba(X), softmax(logits.astype(float), axis=1), atol=1e-5)
    np.testing.assert_array_equal(clf.predict(X), np.array(sorted(CODES))[logits.argmax(1)])
    assert clf.score(X, y) == np.mean(clf.predict(X) == y)
    assert clf.threshold_ == (thresholds if scope == "layer" else thresholds["output.weight"])
    assert clf.layer_amounts_ == zeros


def test_attributes(problem):
    X, y, _ = problem
    clf = PrunedClassifier(small(), amount=0.75, random_state=0).fit(X, y)
    assert clf.layer_bits_ == dict.fromkeys(WEIGHTS, 32)
    assert list(clf.layer_amounts_) == list(WEIGHTS)
    assert clf.classes_.tolist() == sorted(CODES)
    assert clf.n_features_in_ == 6
    assert not hasattr(clf, "feature_names_in_")
    assert not clf.module_.training
    assert len(clf.history_) == 0
    weights = values_of(clf.module_)
    assert sum((weights[name] == 0).sum() for name in WEIGHTS) == 54  # of 6 * 8 + 8 * 3
    packed = [SparseTensor.from_dense(weights[name]) for name in WEIGHTS]
    assert all(np.array_equal(p.unpack(), weights[n]) for n, p in zip(WEIGHTS, packed, strict=True))
    assert clf.model_size_ == sum(len(p.data) for p in packed) + 4 * (8 + 3)
    assert clf.compression_ratio_ == 4 * (48 + 8 + 24 + 3) / clf.model_size_ > 2


def test_nothing_pruned_is_the_float_network(problem):
    X, y, _ = problem
    clf = PrunedClassifier(small(), amount=0, random_state=0).fit(X, y)
    whole = QuantizedClassifier(small(), weight_bits=None, random_state=0).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), whole.predict_proba(X))
    assert clf.compression_ratio_ == 1
    assert clf.threshold_ == 0


def test_the_same_bytes_as_a_quantized_network(problem):
    X, y, _ = problem
    quantized = QuantizedClassifier(small(), weight_bits=4, random_state=0).fit(X, y)
    amount = amount_for_size(quantized.estimator_.module_, quantized.model_size_)
    pruned = PrunedClassifier(small(), amount=amount, random_state=0).fit(X, y)
    assert quantized.model_size_ - 5 < pruned.model_size_ <= quantized.model_size_


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", ZOO)
def test_every_kind_of_network(name, scope):
    module, data = build(name)
    X, y = np.tile(data.numpy(), (5, *[1] * (data.ndim - 1))), np.tile([0, 1, 2, 0, 1, 2], 5)
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=1, lr=0.01, verbose=0, train_split=None
    )
    clf = PrunedClassifier(net, amount=0.7, scope=scope, finetune_epochs=1, random_state=0).fit(X, y)
    with torch.no_grad():
        expected = clf.module_(torch.as_tensor(X)).numpy()
    np.testing.assert_allclose(clf.decision_function(X), expected, atol=1e-5)
    parameters = dict(clf.module_.named_parameters())
    assert list(clf.layer_bits_) == list(clf.layer_amounts_)
    zeros = {name: float((parameters[name] == 0).double().mean()) for name in clf.layer_bits_}
    masks = prune(clf.estimator_.module_, 0.7, scope=scope).masks
    assert clf.layer_amounts_ == zeros == {n: float(m.double().mean()) for n, m in masks.items()}
    assert not any((parameters[name][masks[name]] != 0).any() for name in masks)
    assert clf.model_size_ < float_size(clf.module_)
    stored = pickle.loads(pickle.dumps(clf.module_))
    assert sparse_size(stored) == clf.model_size_


def test_embeddings_images_and_float64():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 11, (60, 7)), rng.integers(0, 3, 60)
    net = NeuralNetClassifier(
        ZOO["embedding"][0], criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0
    )
    clf = PrunedClassifier(net, random_state=0).fit(X, y)
    assert list(clf.layer_amounts_) == ["embedding.weight", "out.weight"]
    assert clf.predict(X.astype(np.int32)).shape == (60,)

    X, y = rng.integers(0, 256, (60, 3, 9, 7), dtype=np.uint8), rng.integers(0, 2, 60)
    net = make_classifier(ConvNet, module__widths=(4, 8), max_epochs=1)
    clf = PrunedClassifier(net, amount=0.8, finetune_epochs=1, random_state=0).fit(X, y)
    assert clf.n_features_in_ == 3
    with pytest.raises(ValueError, match=r"but PrunedClassifier was fitted on .*\(3, 9, 7\)"):
        clf.predict(X[..., :6])

    class Double(MLP):
        def __init__(self):
            super().__init__(6, 2, hidden_sizes=(4,))
            self.double()

    net = NeuralNetClassifier(Double, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0)
    X, y = rng.normal(size=(50, 6)), np.arange(50) % 2
    clf = PrunedClassifier(net, amount=0.9, finetune_epochs=1, random_state=0).fit(X, y)
    assert clf.module_.output.weight.dtype == torch.float64
    assert clf.model_size_ <= 4 * (3 + 6) + 4 + 4  # counted in float32, 3 of 32 weights left


# ----------------------------------------------------------------- contract

PARAMETERS = {
    **{f"amount={v!r}": ({"amount": v}, "'amount' parameter") for v in (-0.1, 1.0, 2, np.nan, "x")},
    "scope": ({"scope": "row"}, "'scope' parameter.*'row'"),
    **{f"finetune_epochs={v!r}": ({"finetune_epochs": v}, "'finetune_epochs'") for v in (-1, 1.5, None)},
    "memory": ({"memory": 3}, "'memory' parameter"),
    "random_state": ({"random_state": "x"}, "'random_state' parameter"),
}


@pytest.mark.parametrize("case", PARAMETERS)
def test_parameters(problem, case):
    X, y, _ = problem
    changes, message = PARAMETERS[case]
    with pytest.raises(ValueError, match=message):
        PrunedClassifier(small(), **{"random_state": 0, **changes}).fit(X, y)


DATA = {
    "groups length": ({"sensitive_features": [0, 1]}, "sensitive_features must have one entry for each"),
    "groups missing": ({"sensitive_features": [None] * 400}, "sensitive_features.*missing"),
    "weights": ({"sample_weight": -np.ones(400)}, "sample_weight must be finite and >= 0"),
    "fit params": ({"costs": np.ones(400)}, "fit parameter costs.*put such data into X"),
    "one class": ({"y": np.zeros(400)}, "y has one class only"),
    "nan": ({"X": np.full((400, 6), np.nan)}, "Input X contains NaN"),
}


@pytest.mark.parametrize("case", DATA)
def test_data(problem, case):
    X, y, _ = problem
    changes, message = DATA[case]
    arguments = {"X": X, "y": y, **changes}
    clf = PrunedClassifier(small(), random_state=0)
    with pytest.raises(ValueError, match=message):
        clf.fit(arguments.pop("X"), arguments.pop("y"), **arguments)
    assert not hasattr(clf, "module_")


def test_networks_without_weights(problem):
    X, y, _ = problem

    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x[:, :3] * self.scale

    net = NeuralNetClassifier(Scales, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0)
    with pytest.raises(ValueError, match="Scales has no quantizable weight"):
        PrunedClassifier(net, random_state=0).fit(X, y)


def test_groups_change_nothing(problem):
    X, y, groups = problem
    clf = PrunedClassifier(small(), finetune_epochs=1, random_state=0)
    alone = clone(clf).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(clf.fit(X, y, sensitive_features=groups).predict_proba(X), alone)


def test_a_grid_over_amounts_trains_once_for_each_fold_and_the_refit(problem, tmp_path):
    X, y, _ = problem
    net, count = counting(tmp_path / "log")
    grid = {"amount": [0, 0.5, 0.9], "scope": ["global", "layer"], "finetune_epochs": [0]}
    options = {"cv": 3, "error_score": "raise"}
    clf = PrunedClassifier(net, memory=tmp_path / "cache", random_state=0)
    cached = GridSearchCV(clf, grid, **options).fit(X, y)
    assert count() == 4
    clone(clf).set_params(finetune_epochs=1).fit(X, y)
    assert count() == 4  # fine-tuning goes through partial_fit
    plain = GridSearchCV(clone(clf).set_params(memory=None), grid, n_jobs=2, **options).fit(X, y)
    for key in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(cached.cv_results_[key], plain.cv_results_[key])


def test_the_float_network_is_shared_with_quantized_classifiers(problem, tmp_path):
    X, y, _ = problem
    net, count = counting(tmp_path / "log")
    QuantizedClassifier(net, memory=tmp_path / "cache", random_state=0).fit(X, y)
    PrunedClassifier(net, memory=tmp_path / "cache", random_state=0).fit(X, y)
    assert count() == 1


NET = small(module__dropout=0.2, module__batch_norm=True)


def test_same_seed_same_bits(problem):
    X, y, _ = problem
    clf = PrunedClassifier(NET, finetune_epochs=2, random_state=0)
    before = torch.get_rng_state()
    one, two = (clone(clf).fit(X, y) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))
    other = clone(clf).set_params(random_state=1).fit(X, y)
    assert not np.array_equal(weights_of(one), weights_of(other))
    assert not np.array_equal(one.predict_proba(X), other.predict_proba(X))
    frozen = clone(clf).set_params(estimator=FrozenEstimator(one.estimator_))
    tuned = [clone(frozen).set_params(random_state=seed).fit(X, codes(y)) for seed in (0, 0, 1)]
    first, again, different = (clf.predict_proba(X) for clf in tuned)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, different)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_same_bits_in_workers(problem, backend):
    X, y, _ = problem
    clf = PrunedClassifier(NET, finetune_epochs=2, random_state=0)
    options = {"cv": 4, "return_estimator": True, "error_score": "raise"}
    serial = cross_validate(clf, X, y, **options)
    with joblib.parallel_backend(backend, n_jobs=2):
        parallel = cross_validate(clf, X, y, n_jobs=2, **options)
    for one, two in zip(serial["estimator"], parallel["estimator"], strict=True):
        np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))


def test_frozen_networks_are_left_as_they_were(problem, frozen):
    X, y, _ = problem
    before = copy.deepcopy(frozen.estimator.module_.state_dict())
    clf = PrunedClassifier(frozen, amount=0.9, finetune_epochs=2, random_state=0).fit(X, codes(y))
    for key, value in frozen.estimator.module_.state_dict().items():
        assert torch.equal(value, before[key])
        assert torch.equal(clf.estimator_.module_.state_dict()[key], value)
    assert clone(clf).estimator is frozen


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames(problem, library):
    X, y, groups = problem
    frame = pd.DataFrame(X, columns=[f"feature {i}" for i in range(6)])
    sensitive = pd.DataFrame({"g": groups, "h": y})
    if library == "polars":
        frame, sensitive = pl.from_pandas(frame), pl.from_pandas(sensitive)
    clf = PrunedClassifier(small(), random_state=0).fit(frame, y, sensitive_features=sensitive)
    assert clf.feature_names_in_.tolist() == [f"feature {i}" for i in range(6)]
    plain = PrunedClassifier(small(), random_state=0).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(frame), plain.predict_proba(X))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda clf: pickle.loads(pickle.dumps(clf))])
def test_copies(problem, copied):
    X, y, _ = problem
    clf = PrunedClassifier(small(), scope="layer", finetune_epochs=1, random_state=0).fit(X, y)
    other = copied(clf)
    np.testing.assert_array_equal(other.predict_proba(X), clf.predict_proba(X))
    assert other.module_ is not clf.module_
    assert (other.threshold_, other.model_size_) == (clf.threshold_, clf.model_size_)


def test_signature():
    assert str(inspect.signature(PrunedClassifier)) == (
        "(estimator=None, *, amount=0.5, scope='global', finetune_epochs=0, finetune_lr=None, "
        "memory=None, random_state=None, verbose=0)"
    )
    assert inspect.signature(PrunedClassifier.fit) == inspect.signature(QuantizedClassifier.fit)


def test_reprs(problem):
    assert repr(PrunedClassifier(amount=0.9)) == "PrunedClassifier(amount=0.9)"
    X, y, _ = problem
    html = PrunedClassifier(small(), random_state=0).fit(X, y)._repr_html_()
    assert "TensorNetClassifier" in html
