"""Whatever users do with skorch keeps working: callbacks, overridden methods, frozen nets."""

import copy

import numpy as np
import pytest
import torch
from nets import CODES, Resized, Sizes, WithSoftmax, skorch_net, small, weights_of
from scipy.special import softmax
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping, LRScheduler
from torch import nn

from skqfair import QuantizedClassifier
from skqfair.exceptions import ModuleOutputError
from skqfair.networks import MLP, make_classifier


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


def test_verbose_of_the_net_prints_epochs(problem, capsys):
    X, y, _ = problem
    QuantizedClassifier(small(verbose=1), random_state=0).fit(X, y)
    assert capsys.readouterr().out.count("train_loss") == 1


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


class FrozenNorms(NeuralNetClassifier):
    """Keeps its BatchNorm layers in eval mode while it trains."""

    def _set_training(self, training=True):
        super()._set_training(training)
        for module in self.module_.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()


def test_an_overridden_switch_of_modes_holds(problem):
    X, y, _ = problem
    net = skorch_net(FrozenNorms, module__batch_norm=True)
    clf = QuantizedClassifier(net, random_state=0).fit(X, y)
    assert not clf.estimator_.module_.norm0.running_mean.any()


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
