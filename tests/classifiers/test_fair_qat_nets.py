"""Nets, callbacks and classes that go around what the fine-tuning does, or start it anew."""

import numpy as np
import pytest
import torch
from nets import skorch_net, small
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    Initializer,
    LoadInitState,
    LRScheduler,
    TrainEndCheckpoint,
)
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import DataLoader

from skqfair import FairQATClassifier
from skqfair.networks._wrapped import Network


def test_classes_of_a_frozen_net_in_any_order(problem):
    X, y, groups = problem
    order = ["mid", "high", "low"]
    net = skorch_net(classes=order, max_epochs=40, lr=0.3)
    torch.manual_seed(0)
    net.fit(X, np.array([order.index(label) for label in y]))
    clf = FairQATClassifier(FrozenEstimator(net), weight_bits=8, accuracy_bound=1.0, finetune_epochs=5)
    clf.fit(X, y, sensitive_features=groups)
    before = np.array(order)[net.predict(X)] == y
    assert clf.score(X, y) > before.mean() - 0.05
    for g in "abc":
        own = before[groups == g].mean()
        assert clf.accuracy_bound_.loc[g, "float_accuracy"] == pytest.approx(own)


def test_an_initializer_does_not_start_anew(problem):
    X, y, _ = problem
    again = Initializer("*", fn=lambda p: nn.init.uniform_(p, -0.5, 0.5))
    clf = FairQATClassifier(small(callbacks=[again]), weight_bits=8, finetune_lr=1e-8, random_state=0)
    clf.fit(X, y)
    for tuned, trained in zip(
        clf.latent_module_.parameters(), clf.estimator_.module_.parameters(), strict=True
    ):
        torch.testing.assert_close(tuned, trained, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [Checkpoint, TrainEndCheckpoint])
def test_checkpoints_hold_the_float_net(problem, tmp_path, kind):
    X, y, _ = problem
    stored = kind(dirname=str(tmp_path), **({"monitor": None} if kind is Checkpoint else {}))
    clf = FairQATClassifier(small(callbacks=[stored]), calibration="learned", random_state=0).fit(X, y)
    trained = clf.estimator_.module_.state_dict()
    (path,) = tmp_path.glob("*params.pt")
    found = torch.load(path)
    assert found.keys() == trained.keys()
    assert all(torch.equal(found[name], value) for name, value in trained.items())


def test_a_stored_state_is_loaded_for_the_float_training_only(problem, tmp_path):
    X, y, _ = problem
    stored = Checkpoint(monitor=None, dirname=str(tmp_path))
    clf = FairQATClassifier(small(callbacks=[stored]), finetune_epochs=0, random_state=0).fit(X, y)
    again = small(callbacks=[LoadInitState(stored)], max_epochs=0)
    again = FairQATClassifier(again, calibration="learned", finetune_epochs=1, finetune_lr=1e-8).fit(
        X, y
    )
    for tuned, trained in zip(
        again.latent_module_.parameters(), clf.estimator_.module_.parameters(), strict=True
    ):
        torch.testing.assert_close(tuned, trained, atol=1e-5, rtol=0)


def test_epochs_of_fit_are_for_the_float_training(problem):
    X, y, _ = problem
    rates = []

    class Rates(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            rates.append(net.optimizer_.param_groups[0]["lr"])

    net = small(callbacks=[Rates()])
    clf = FairQATClassifier(net, finetune_epochs=3, finetune_lr=0.1, random_state=0).fit(X, y, epochs=4)
    assert len(clf.estimator_.history) == 4
    assert len(clf.history_) == 3
    assert rates[-1] < 0.01


def lambdas(*factors):
    return {"policy": "LambdaLR", "lr_lambda": [lambda epoch, f=f: f**epoch for f in factors]}


@pytest.mark.parametrize(
    ("options", "schedule", "expected"),
    [
        ({}, lambdas(0.5), [0.5, 0.5]),
        ({"optimizer__param_groups": [("hidden*", {})]}, lambdas(0.1, 0.5), [0.1, 0.5, 0.5]),
        ({}, {"policy": "MultiStepLR", "milestones": [1], "gamma": 0.5}, [0.5, 0.5]),
    ],
)
def test_schedules_by_group_know_the_group_of_learned_scales(problem, options, schedule, expected):
    X, y, _ = problem
    rates = []

    class Rates(Callback):
        def on_epoch_begin(self, net, **kwargs):
            rates.append(np.array([group["lr"] for group in net.optimizer_.param_groups]))

    callbacks = [Rates(), ("schedule", LRScheduler(**schedule))]
    net = small(callbacks=callbacks, optimizer__weight_decay=0.1, **options)
    clf = FairQATClassifier(net, calibration="learned", finetune_epochs=2, random_state=0).fit(X, y)
    np.testing.assert_allclose(rates[-1] / rates[-2], expected)
    assert len(clf.estimator_.history) == len(rates) - 2


class OwnStep(NeuralNetClassifier):
    def train_step(self, batch, **fit_params):
        self._set_training(True)
        self.optimizer_.zero_grad()
        outputs = self.infer(batch[0])
        loss = self.get_loss(outputs, batch[1], X=batch[0], training=True)
        loss.backward()
        self.optimizer_.step()
        return {"loss": loss, "y_pred": outputs}


class OwnLoader(NeuralNetClassifier):
    def get_iterator(self, dataset, training=False):
        return DataLoader(dataset, batch_size=64)


def test_what_has_no_effect_is_an_error(problem):
    X, y, groups = problem
    with pytest.raises(ValueError, match="OwnStep has a train_step that does not call"):
        FairQATClassifier(skorch_net(OwnStep)).fit(X, y)
    clf = FairQATClassifier(skorch_net(OwnLoader), sampling="balanced")
    with pytest.raises(ValueError, match="get_iterator of OwnLoader returns a loader without it"):
        clf.fit(X, y, sensitive_features=groups)
    net = small(iterator_train__drop_last=True, batch_size=200)
    clf = FairQATClassifier(net, sampling="undersample")
    with pytest.raises(ValueError, match="no batch is full while drop_last"):
        clf.fit(X, y, sensitive_features=groups)


@pytest.mark.parametrize("seed", range(3))
def test_learned_scales_are_positive_after_the_last_step(problem, seed):
    X, y, _ = problem
    clf = FairQATClassifier(
        small(lr=0.3), weight_bits=8, activation_bits=8, calibration="learned", random_state=seed
    )
    assert all((w.scale > 0).all() for w in clf.fit(X, y).quantized_weights_.values())


class Keeping(Callback):
    """Keeps losses with their graphs, which cannot be copied."""

    def on_batch_end(self, net, loss=None, **kwargs):
        self.kept_ = [*getattr(self, "kept_", []), loss]


def test_callbacks_that_keep_tensors(problem):
    X, y, _ = problem
    clf = FairQATClassifier(small(callbacks=[Keeping()]), finetune_epochs=1).fit(X, y)
    assert clf.predict(X).shape == y.shape


def test_callbacks_beside_one_that_cannot_be_copied_stay(problem):
    X, y, _ = problem
    stop = EarlyStopping(monitor="train_loss", patience=1, threshold=10.0)
    net = small(callbacks=[Keeping(), ("stop", stop)], max_epochs=20)
    clf = FairQATClassifier(net, finetune_epochs=6, random_state=0).fit(X, y)
    alone = clone(clf).set_params(estimator__callbacks=[("stop", stop)]).fit(X, y)
    assert len(clf.history_) == len(alone.history_) < 6


def test_rates_fall_to_zero_with_one_batch_and_a_split(problem):
    X, y, groups = problem
    rates = []

    class Rates(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            if training:
                rates.append(net.optimizer_.param_groups[0]["lr"])

    for options in ({"batch_size": -1}, {"train_split": ValidSplit(3)}):
        rates.clear()
        clf = FairQATClassifier(
            small(callbacks=[Rates()], **options), sampling="oversample", finetune_lr=0.1
        )
        clf.fit(X, y, sensitive_features=groups)
        tuned = [rate for rate in rates if rate != 0.02]
        assert tuned[0] == 0.1
        assert np.all(np.diff(tuned) < 0)
        assert 0 < tuned[-1] < 0.02


def test_other_models_do_not_change_the_key(problem, tmp_path, monkeypatch):
    X, y, _ = problem
    train, trained, kept = Network.train, [], []
    monkeypatch.setattr(Network, "train", lambda self, *a: trained.append(1) or train(self, *a))
    for bits in (8, 4, 2):
        clf = FairQATClassifier(small(), weight_bits=bits, memory=str(tmp_path), random_state=0)
        kept.append(clf.fit(X, y))
    assert len(trained) == 1
