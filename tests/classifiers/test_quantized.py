import copy

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from module_zoo import ZOO, build
from nets import CODES, Resized, Sizes, WithSoftmax, skorch_net, small, weights_of
from reference import numpy_clip, numpy_codes
from scipy.special import softmax
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping, LRScheduler
from torch import nn

from skqfair import QuantizedClassifier
from skqfair.exceptions import ModuleOutputError
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


def test_probabilities_of_a_net_with_nll_loss(problem):
    X, y, _ = problem
    net = NeuralNetClassifier(WithSoftmax, max_epochs=3, lr=0.1, verbose=0)
    clf = QuantizedClassifier(net, random_state=0).fit(X, y)
    with torch.no_grad():
        expected = clf.module_(torch.as_tensor(X)).numpy()
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-6)
    np.testing.assert_allclose(clf.predict_proba(X).sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(clf.decision_function(X), np.log(expected), atol=1e-4)
    assert type(clf.estimator_) is NeuralNetClassifier


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


@pytest.mark.parametrize("labels", [[0, 1, 2], [5, -1, 3], ["x", "y", "z"], [0.5, 1.5, 2.5][:2]])
def test_labels_of_any_type(problem, labels):
    X, y, _ = problem
    if isinstance(labels[0], float):
        pytest.importorskip("sklearn")
        labels = [0.0, 1.0]
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


class Clipped(NeuralNetClassifier):
    """Overrides what users override."""

    def infer(self, x, **fit_params):
        return super().infer(x.clamp(-1, 1), **fit_params)


def test_callbacks_that_set_sizes_when_training_begins(problem):
    X, y, _ = problem
    net = NeuralNetClassifier(
        Resized,
        criterion=nn.CrossEntropyLoss,
        verbose=0,
        max_epochs=20,
        lr=0.1,
        callbacks=[Sizes(), EarlyStopping(patience=2), LRScheduler()],
    )
    clf = QuantizedClassifier(net, random_state=0).fit(X, y)
    assert clf.module_.hidden0.in_features == 6
    assert "event_lr" in clf.estimator_.history[0]


def test_overridden_methods_run_in_training_and_prediction(problem):
    X, y, _ = problem
    net = skorch_net(Clipped, max_epochs=2)
    clf = QuantizedClassifier(net, activation_bits=8, random_state=0).fit(X * 100, y)
    assert clf.module_.hidden0._forward_pre_hooks
    (hook,) = clf.module_.hidden0._forward_pre_hooks.values()
    assert float(hook.scale) <= 1 / 127 * 1.01  # the ranges are those of the clamped inputs
    np.testing.assert_array_equal(clf.predict_proba(X * 100), clf.predict_proba(np.clip(X * 100, -1, 1)))


class Cooler(Clipped):
    def predict_proba(self, X):
        return super().predict_proba(X) * 0 + np.array([0.2, 0.7, 0.1])


def test_overridden_predict_proba(problem):
    X, y, _ = problem
    net = skorch_net(Cooler)
    clf = QuantizedClassifier(net, random_state=0).fit(X, y)
    np.testing.assert_allclose(clf.predict_proba(X), np.tile([0.2, 0.7, 0.1], (400, 1)), atol=1e-6)
    assert set(clf.predict(X)) == {"low"}


def test_sample_weight_moves_the_training(problem):
    X, y, _ = problem
    weight = np.where(y == "mid", 20.0, 1.0)
    plain = QuantizedClassifier(small(), random_state=0).fit(X, y)
    weighted = QuantizedClassifier(small(), random_state=0).fit(X, y, sample_weight=weight)
    ones = QuantizedClassifier(small(), random_state=0).fit(X, y, sample_weight=np.ones(400))
    np.testing.assert_allclose(weights_of(ones), weights_of(plain), atol=1e-5)
    assert (weighted.predict(X) == "mid").mean() > (plain.predict(X) == "mid").mean() + 0.1


def test_batchnorm_is_reestimated_on_a_balanced_sample(problem):
    X, y, groups = problem
    X = X + 5 * (groups == "c")[:, None]  # the smallest group lies elsewhere
    net = make_classifier(module__hidden_sizes=(8,), module__batch_norm=True, max_epochs=3)
    clf = QuantizedClassifier(
        net, weight_bits=2, recalibrate_batchnorm=True, calibration_size=240, random_state=0
    )
    plain = clone(clf).set_params(recalibrate_batchnorm=False).fit(X, y, sensitive_features=groups)
    random = clone(clf).fit(X, y)
    balanced = clone(clf).fit(X, y, sensitive_features=groups)

    def first_mean(c):
        return c.module_.norm0.running_mean.numpy()

    # by hand: the mean of the quantized first layer over equally many of each group
    weight, bias = (
        p.detach().numpy() for p in (plain.module_.hidden0.weight, plain.module_.hidden0.bias)
    )
    by_group = [(X[groups == g] @ weight.T + bias).mean(0) for g in "abc"]
    spread = np.abs(np.array(by_group) - first_mean(random)).max()
    assert np.abs(first_mean(balanced) - np.mean(by_group, axis=0)).max() < 0.25 * spread
    assert not np.allclose(first_mean(random), first_mean(plain))
    np.testing.assert_array_equal(weights_of(plain), weights_of(balanced))  # the float net is the same


def test_calibration_sample_is_seeded_and_bounded(problem):
    X, y, _groups = problem
    X = X.copy()
    X[7] = 1000
    inside = QuantizedClassifier(small(), activation_bits=8, calibration="minmax", random_state=0)
    scale = {}
    for size in (10, 400, 10_000):
        clf = clone(inside).set_params(calibration_size=size).fit(X, y)
        (hook,) = clf.module_.hidden0._forward_pre_hooks.values()
        scale[size] = float(hook.scale)
    assert scale[400] == scale[10_000] == pytest.approx(1000 / 127)
    assert scale[10] < 0.1


def test_frozen_networks_are_not_trained(problem):
    X, y, _ = problem
    codes = np.array([CODES[label] for label in y])
    net = small().fit(X, codes)
    before = {key: value.clone() for key, value in net.module_.state_dict().items()}
    history = len(net.history)
    clf = QuantizedClassifier(FrozenEstimator(net), weight_bits=2, activation_bits=8).fit(X, codes)
    assert clf.classes_.tolist() == [0, 1, 2]
    assert clf.estimator_ is not net
    assert len(clf.estimator_.history) == len(net.history) == history
    for key, value in net.module_.state_dict().items():
        assert torch.equal(value, before[key])
    assert not any(m._forward_pre_hooks for m in net.module_.modules())
    assert clf.predict(X).dtype == codes.dtype


def test_modules_trained_without_skorch(problem):
    """Zero epochs keep the weights of an instance."""
    X, y, _ = problem
    torch.manual_seed(0)
    module = MLP(6, 3, hidden_sizes=(8,))
    before = copy.deepcopy(module.state_dict())
    clf = QuantizedClassifier(make_classifier(module, max_epochs=0), weight_bits=None, random_state=0)
    clf.fit(X, y)
    with torch.no_grad():
        np.testing.assert_allclose(clf.decision_function(X), module(torch.as_tensor(X)), atol=1e-5)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])


def test_frozen_networks_with_labels_of_their_own(problem):
    X, y, _ = problem
    codes = np.array([CODES[label] for label in y])
    net = small(classes=["high", "low", "mid"]).fit(X, codes)
    clf = QuantizedClassifier(FrozenEstimator(net), weight_bits=None).fit(X[:50], y[:50])
    assert set(clf.predict(X)) <= set(y)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[net.predict(X)])


def test_the_users_objects_are_left_alone(problem):
    X, y, groups = problem
    net = small()
    params, copies = copy.deepcopy(net.get_params()), [a.copy() for a in (X, y, groups)]
    QuantizedClassifier(net, random_state=0).fit(
        X, y, sensitive_features=groups, sample_weight=np.ones(400)
    )
    assert not net.initialized_
    for key, value in net.get_params().items():
        assert callable(value) or hasattr(value, "get_params") or repr(value) == repr(params[key])
    for before, after in zip(copies, (X, y, groups), strict=True):
        np.testing.assert_array_equal(before, after)


def test_verbose_of_the_net_prints_epochs(problem, capsys):
    X, y, _ = problem
    QuantizedClassifier(small(verbose=1), random_state=0).fit(X, y)
    assert capsys.readouterr().out.count("train_loss") == 1


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


def test_padding_does_not_enter_statistics(problem):
    """130 rows at batch 128: the second batch is two rows, whatever prediction pads it to."""
    X, y, _ = problem
    net = make_classifier(
        module__hidden_sizes=(8,), module__batch_norm=True, max_epochs=2, batch_size=128
    )
    clf = QuantizedClassifier(
        net,
        weight_bits=None,
        activation_bits=4,
        calibration="mse",
        recalibrate_batchnorm=True,
        random_state=0,
    ).fit(X[:130], y[:130])
    first = clf.estimator_.module_.hidden0
    data = torch.as_tensor(X[:130])
    (hook,) = clf.module_.hidden0._forward_pre_hooks.values()
    assert float(hook.scale) == pytest.approx(float(numpy_clip(X[:130], "mse", 7)) / 7, rel=1e-5)
    with torch.no_grad():
        hidden = first(hook.quantize(data))
    torch.testing.assert_close(clf.module_.norm0.running_mean, hidden.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(clf.module_.norm0.running_var, hidden.var(0), atol=1e-5, rtol=1e-4)


def test_modules_that_work_in_place_leave_the_data_alone(problem):
    X, y, _ = problem
    codes = np.array([CODES[label] for label in y])
    module = nn.Sequential(nn.LeakyReLU(0.5, inplace=True), nn.Linear(6, 3))
    options = {"criterion": nn.CrossEntropyLoss, "max_epochs": 3, "verbose": 0, "train_split": None}
    net = NeuralNetClassifier(module, **options)
    before = X.copy()
    clf = QuantizedClassifier(net, weight_bits=None, random_state=0).fit(X, y)
    clf.predict_proba(X)
    np.testing.assert_array_equal(X, before)
    plain = clone(net).fit(X.copy(), codes)
    np.testing.assert_array_equal(
        weights_of(clf), np.concatenate([p.detach().numpy().ravel() for p in plain.module_.parameters()])
    )


class Notified(NeuralNetClassifier):
    heard = []

    def notify(self, method_name, **kwargs):
        self.heard.append(method_name)
        return super().notify(method_name, **kwargs)


def test_an_overridden_notify_is_called(problem):
    X, y, _ = problem
    net = skorch_net(Notified)
    QuantizedClassifier(net, random_state=0).fit(X, y)
    assert {"on_batch_begin", "on_epoch_end", "on_train_end"} <= set(Notified.heard)


class OwnStep(NeuralNetClassifier):
    """Computes its loss without get_loss."""

    def train_step_single(self, batch, **fit_params):
        self._set_training(True)
        x, y = batch
        output = self.infer(x)
        loss = self.criterion_(output, y)
        loss.backward()
        return {"loss": loss, "y_pred": output}


def test_weights_that_would_have_no_effect_are_refused(problem):
    X, y, _ = problem
    net = skorch_net(OwnStep)
    QuantizedClassifier(net, random_state=0).fit(X, y)
    with pytest.raises(
        ValueError, match="sample_weight had no effect: OwnStep computes its loss without get_loss"
    ):
        QuantizedClassifier(net, random_state=0).fit(X, y, sample_weight=np.ones(400))


def test_predict_nonlinearity(problem):
    X, y, _ = problem
    expected = QuantizedClassifier(small(), random_state=0).fit(X, y).predict_proba(X)
    logits = small(predict_nonlinearity=None)  # the outputs are logits all the same
    np.testing.assert_array_equal(
        QuantizedClassifier(logits, random_state=0).fit(X, y).predict_proba(X), expected
    )
    cool = small(predict_nonlinearity=_cool)
    found = QuantizedClassifier(cool, random_state=0).fit(X, y).predict_proba(X)
    cooled = softmax(np.log(expected) / 2, axis=1)
    np.testing.assert_allclose(found, cooled, atol=1e-5)
    with pytest.raises(ModuleOutputError, match="does not return probabilities"):
        QuantizedClassifier(small(predict_nonlinearity=torch.sin), random_state=0).fit(X, y)


def _cool(logits):
    return torch.softmax(logits / 2, -1)


class Rejecting(NeuralNetClassifier):
    def predict(self, X):
        return np.full(len(X), -1)


def test_an_overridden_predict_must_return_positions(problem):
    X, y, _ = problem
    net = skorch_net(Rejecting)
    clf = QuantizedClassifier(net, random_state=0).fit(X, y)
    with pytest.raises(
        ValueError, match=r"predict of Rejecting must return positions .* 0 to 2; got \[-1\]"
    ):
        clf.predict(X)


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
