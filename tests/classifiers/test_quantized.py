import copy

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from module_zoo import ZOO, build
from nets import CODES, small, weights_of
from reference import numpy_codes
from scipy.special import softmax
from skorch import NeuralNetClassifier
from torch import nn

from skqfair import QuantizedClassifier
from skqfair.networks import MLP, ConvNet, make_classifier


def test_prediction_is_that_of_a_numpy_network(problem):
    X, y, _ = problem
    clf = QuantizedClassifier(small(), weight_bits=4, random_state=0).fit(X, y)
    hidden, values = X, dict(clf.module_.named_parameters())
    for layer in ("hidden0", "output"):
        float_weight = dict(clf.estimator_.module_.named_parameters())[f"{layer}.weight"].detach()
        scale = clf.quantized_weights_[f"{layer}.weight"].scale.numpy()
        weight = numpy_codes(float_weight, scale, 4) * scale
        hidden = hidden @ weight.T + values[f"{layer}.bias"].detach().numpy()
        hidden = np.maximum(hidden, 0) if layer == "hidden0" else hidden
    np.testing.assert_allclose(clf.decision_function(X), hidden, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(clf.predict_proba(X), softmax(hidden.astype(float), axis=1), atol=1e-5)
    np.testing.assert_array_equal(clf.predict(X), np.array(sorted(CODES))[hidden.argmax(1)])
    assert clf.score(X, y) == np.mean(clf.predict(X) == y) > 0.6


def test_attributes(problem):
    X, y, _ = problem
    clf = QuantizedClassifier(small(), weight_bits=4, layer_bits={"output": 8}, random_state=0).fit(X, y)
    assert clf.layer_bits_ == {"hidden0.weight": 4, "output.weight": 8}
    assert clf.classes_.tolist() == sorted(CODES)
    assert clf.n_features_in_ == 6
    assert not hasattr(clf, "feature_names_in_")
    size = (6 * 8 // 2 + 4 * 8) + (8 * 3 + 4 * 3) + 4 * (8 + 3)
    assert clf.model_size_ == size
    assert clf.compression_ratio_ == 4 * (48 + 8 + 24 + 3) / size
    assert not clf.module_.training
    for name, weight in clf.module_.named_parameters():
        if name.endswith("weight"):
            assert all(len(row.unique()) <= 2 ** clf.layer_bits_[name] for row in weight)


def test_float_is_the_float_network(problem):
    X, y, _ = problem
    clf = QuantizedClassifier(small(), weight_bits=None, random_state=0).fit(X, y)
    assert set(clf.layer_bits_.values()) == {32}
    assert clf.compression_ratio_ == 1
    np.testing.assert_allclose(clf.predict_proba(X), clf.estimator_.predict_proba(X), atol=1e-6)


def test_decision_function_of_two_classes(problem):
    X, y, _ = problem
    clf = QuantizedClassifier(small(), random_state=0).fit(X, y == "low")
    decision, proba = clf.decision_function(X), clf.predict_proba(X)
    assert decision.shape == (400,)
    np.testing.assert_allclose(decision, np.log(proba[:, 1] / proba[:, 0]), atol=1e-9)
    np.testing.assert_array_equal(clf.predict(X), decision > 0)
    assert clf.classes_.dtype == bool


@pytest.mark.parametrize("activation_bits", [None, 8])
@pytest.mark.parametrize("name", ZOO)
def test_every_kind_of_network(name, activation_bits):
    module, data = build(name)
    X, y = np.tile(data.numpy(), (5, *[1] * (data.ndim - 1))), np.tile([0, 1, 2, 0, 1, 2], 5)
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=1, lr=0.01, verbose=0, train_split=None
    )
    clf = QuantizedClassifier(net, weight_bits=8, activation_bits=activation_bits, random_state=0).fit(
        X, y
    )
    with torch.no_grad():
        expected = clf.module_(torch.as_tensor(X)).numpy()
    np.testing.assert_allclose(clf.decision_function(X), expected, atol=1e-5)
    assert set(clf.layer_bits_) <= set(dict(clf.module_.named_parameters()))
    assert net.module is module
    assert clf.estimator_.module_ is not module


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("calibration", ["minmax", "percentile", "mse"])
def test_schemes_reach_the_core(problem, granularity, calibration):
    X, y, _ = problem
    clf = QuantizedClassifier(
        small(),
        weight_bits=3,
        activation_bits=4,
        granularity=granularity,
        calibration=calibration,
        random_state=0,
    ).fit(X, y)
    scales = [w.scale.numel() for w in clf.quantized_weights_.values()]
    assert scales == ([8, 3] if granularity == "per_channel" else [1, 1])
    assert clf.score(X, y) > 0.4


def test_images(problem):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (60, 3, 9, 7), dtype=np.uint8)
    y = np.array(["cat", "dog"])[rng.integers(0, 2, 60)]
    net = make_classifier(ConvNet, module__widths=(4, 8), max_epochs=1)
    clf = QuantizedClassifier(net, activation_bits=8, random_state=0).fit(X, y)
    assert clf.n_features_in_ == 3
    assert clf.predict(X[:1]).shape == (1,)
    np.testing.assert_array_equal(clf.predict(X), clf.predict(X.astype(np.float64)))
    with pytest.raises(
        ValueError, match=r"shape \(3, 9, 6\), but QuantizedClassifier was fitted on .*\(3, 9, 7\)"
    ):
        clf.predict(X[..., :6])
    assert QuantizedClassifier(random_state=0).fit(X, y).module_.hidden0.in_features == 3 * 9 * 7


def test_integers_go_to_an_embedding_as_they_are():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 11, (60, 7)), rng.integers(0, 3, 60)
    module = ZOO["embedding"][0]
    net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0)
    clf = QuantizedClassifier(net, weight_bits=4, random_state=0).fit(X, y)
    assert clf.layer_bits_ == {"embedding.weight": 4, "out.weight": 4}
    assert clf.predict(X.astype(np.int32)).shape == (60,)


def test_float64_modules():
    class Double(MLP):
        def __init__(self):
            super().__init__(6, 2, hidden_sizes=(4,))
            self.double()

    X = np.random.default_rng(0).normal(size=(50, 6))
    net = NeuralNetClassifier(Double, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0)
    clf = QuantizedClassifier(net, random_state=0).fit(X, np.arange(50) % 2)
    assert clf.module_.output.weight.dtype == torch.float64


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames(problem, library):
    X, y, groups = problem
    names = [f"feature {i}" for i in range(6)]
    frame = pd.DataFrame(X, columns=names)
    sensitive = pd.DataFrame({"g": groups, "h": y})
    if library == "polars":
        frame, sensitive = pl.from_pandas(frame), pl.from_pandas(sensitive)
    clf = QuantizedClassifier(small(), random_state=0).fit(frame, y, sensitive_features=sensitive)
    assert clf.feature_names_in_.tolist() == names
    plain = QuantizedClassifier(small(), random_state=0).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(frame), plain.predict_proba(X))
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(
            frame.rename(columns={"feature 0": "a"})
            if library == "pandas"
            else frame.rename({"feature 0": "a"})
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda X: X.astype(np.float64),
        lambda X: np.asfortranarray(X),
        lambda X: X[::-1][::-1],
        lambda X: np.lib.stride_tricks.as_strided(X, X.shape, X.strides, writeable=False),
        lambda X: X.tolist(),
    ],
)
def test_layouts_of_arrays(problem, change):
    X, y, _ = problem
    clf = QuantizedClassifier(small(), random_state=0).fit(X, y)
    other = QuantizedClassifier(small(), random_state=0).fit(change(X), y)
    np.testing.assert_array_equal(clf.predict_proba(X), other.predict_proba(change(X)))


@pytest.mark.parametrize("labels", [[0, 1, 2], [5, -1, 3], ["x", "y", "z"], [0.0, 1.0]])
def test_labels_of_any_type(problem, labels):
    X, y, _ = problem
    codes = np.array([CODES[label] for label in y]) % len(labels)
    expected = QuantizedClassifier(small(), random_state=0).fit(X, codes)
    order = np.sort(np.array(labels))
    clf = QuantizedClassifier(small(), random_state=0).fit(X, order[codes])
    np.testing.assert_array_equal(clf.predict(X), order[expected.predict(X)])


def test_rows_do_not_depend_on_their_neighbours(problem):
    X, y, _ = problem
    clf = QuantizedClassifier(small(), activation_bits=8, random_state=0).fit(X, y)
    whole = clf.decision_function(X)
    np.testing.assert_array_equal(
        np.concatenate([clf.decision_function(X[i : i + 1]) for i in range(50)]), whole[:50]
    )
    np.testing.assert_array_equal(clf.decision_function(X[::-1])[::-1], whole)


def test_sample_weight_moves_the_training(problem):
    X, y, _ = problem
    weight = np.where(y == "mid", 20.0, 1.0)
    plain = QuantizedClassifier(small(), random_state=0).fit(X, y)
    weighted = QuantizedClassifier(small(), random_state=0).fit(X, y, sample_weight=weight)
    ones = QuantizedClassifier(small(), random_state=0).fit(X, y, sample_weight=np.ones(400))
    np.testing.assert_allclose(weights_of(ones), weights_of(plain), atol=1e-5)
    assert (weighted.predict(X) == "mid").mean() > (plain.predict(X) == "mid").mean() + 0.1


def test_the_users_objects_are_left_alone(problem):
    X, y, groups = problem
    net = small()
    params, copies = copy.deepcopy(net.get_params()), [a.copy() for a in (X, y, groups)]
    QuantizedClassifier(net, random_state=0).fit(
        X, y, sensitive_features=groups, sample_weight=np.ones(400)
    )
    assert not net.initialized_
    for key, value in net.get_params().items():
        assert callable(value) or hasattr(value, "get_params") or value == params[key]
    for before, after in zip(copies, (X, y, groups), strict=True):
        np.testing.assert_array_equal(before, after)


def test_reprs(problem):
    assert repr(QuantizedClassifier(weight_bits=4)) == "QuantizedClassifier(weight_bits=4)"
    X, y, _ = problem
    html = QuantizedClassifier(small(), random_state=0).fit(X, y)._repr_html_()
    assert "TensorNetClassifier" in html


def test_failing_fits_leave_no_half_fitted_model(problem):
    X, y, _ = problem
    clf = QuantizedClassifier(small(), layer_bits={"nothing": 4}, random_state=0)
    with pytest.raises(ValueError, match="matches no quantizable weight"):
        clf.fit(X, y)
    assert not hasattr(clf, "module_")
    assert not hasattr(clf, "classes_")


def test_fractions_are_not_tokens():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 11, (60, 7)), rng.integers(0, 3, 60)
    net = NeuralNetClassifier(
        ZOO["embedding"][0], criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0
    )
    clf = QuantizedClassifier(net, random_state=0).fit(X, y)
    np.testing.assert_array_equal(clf.predict(X.astype(float)), clf.predict(X))
    with pytest.raises(ValueError, match="whole numbers: the network starts with an embedding"):
        clf.predict(X + 0.5)
