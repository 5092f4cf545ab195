"""Ctrl-C at any moment: raised, nothing truncated is stored, the estimator is as before."""

import shutil
import signal

import numpy as np
import pytest
import torch
from nets import counting, skorch_net, small, weights_of
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from skqfair import FairQATClassifier, PrunedClassifier, QuantizedClassifier
from skqfair.exceptions import DivergedTrainingError


class Interrupts(Callback):
    """Sends SIGINT at one of the moments of all trainings since ``at`` was set."""

    at, seen = None, 0

    @classmethod
    def set(cls, at):
        cls.at, cls.seen = at, 0

    def _moment(self):
        Interrupts.seen += 1
        if Interrupts.seen == Interrupts.at:
            signal.raise_signal(signal.SIGINT)

    def on_batch_end(self, net, **kwargs):
        self._moment()

    def on_epoch_begin(self, net, **kwargs):
        self._moment()

    def on_train_begin(self, net, **kwargs):
        self._moment()


class Own(NeuralNetClassifier):
    """Has a loop of its own."""

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        return super().fit_loop(X, y, epochs, **fit_params)

    def train_step(self, batch, **fit_params):
        return super().train_step(batch, **fit_params)


KINDS = {
    "quantized": QuantizedClassifier,
    "qat": FairQATClassifier,
    "pruned": lambda net, **options: PrunedClassifier(net, finetune_epochs=5, **options),
}


@pytest.mark.parametrize(
    "net", [small, lambda **o: skorch_net(Own, max_epochs=3, **o)], ids=["ours", "own"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_at_many_moments(problem, tmp_path, kind, net):
    X, y, _ = problem
    callbacks = [("interrupts", Interrupts())]
    clf = KINDS[kind](net(callbacks=callbacks), memory=str(tmp_path), random_state=0)
    Interrupts.set(None)
    whole = weights_of(clone(clf).set_params(memory=None).fit(X, y))
    n_moments = Interrupts.seen
    clf.set_params(estimator__lr=0.03)
    other = clf.fit(X[:300], y[:300])
    before = dict(vars(other))
    clf.set_params(estimator__lr=net().lr)
    before["estimator"] = clf.estimator
    for at in np.unique(np.random.default_rng(0).integers(1, n_moments + 1, 7)):
        Interrupts.set(at)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(X, y)
        assert vars(clf).keys() == before.keys()
        assert all(vars(clf)[name] is before[name] for name in before)
        # what an interrupted fine-tuning has left in memory is a whole float net
        Interrupts.set(None)
        fresh = clone(clf).set_params(random_state=0).fit(X, y)
        np.testing.assert_array_equal(weights_of(fresh), whole)
        shutil.rmtree(tmp_path / "joblib")  # the float net is trained anew at the next moment
    Interrupts.set(None)


def test_a_search_stops_and_stores_whole_networks_only(problem, tmp_path):
    X, y, _ = problem
    net, _ = counting(tmp_path / "log")
    net.set_params(callbacks=[("interrupts", Interrupts())])
    clf = QuantizedClassifier(net, memory=str(tmp_path / "memory"), random_state=0)
    search = GridSearchCV(clf, {"weight_bits": [8, 2]}, cv=3, error_score="raise")
    Interrupts.set(None)
    expected = clone(search).set_params(estimator__memory=None).fit(X, y).cv_results_
    Interrupts.set(9)
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, y)
    Interrupts.set(None)
    found = search.fit(X, y).cv_results_
    np.testing.assert_array_equal(found["mean_test_score"], expected["mean_test_score"])


def test_a_failed_refit_leaves_the_first_fit(problem):
    X, y, _ = problem
    for kind in (QuantizedClassifier, FairQATClassifier, PrunedClassifier):
        clf = kind(small(), random_state=0).fit(X, y)
        predicted = clf.predict(X)
        with pytest.raises(ValueError, match="one class only"):
            clf.fit(X[:, :4], np.repeat("low", len(X)))
        assert clf.n_features_in_ == 6
        np.testing.assert_array_equal(clf.predict(X), predicted)


def test_a_diverged_fine_tuning_leaves_its_float_net(problem):
    X, y, _ = problem
    clf = FairQATClassifier(small(), finetune_lr=1e30, random_state=0)
    with pytest.raises(DivergedTrainingError):
        clf.fit(X, y)
    assert hasattr(clf, "estimator_")


def test_early_stopping_is_no_interrupt(problem, tmp_path):
    """It ends its training by the same exception, without a signal."""
    X, y, _ = problem
    stop = EarlyStopping(monitor="train_loss", patience=1, threshold=10.0)
    clf = QuantizedClassifier(small(max_epochs=50, callbacks=[stop]), memory=tmp_path, random_state=0)
    assert 1 < len(clf.fit(X, y).estimator_.history) < 10


def test_handlers_of_signals_are_given_back(problem):
    X, y, _ = problem
    before = signal.getsignal(signal.SIGINT)
    QuantizedClassifier(small(), random_state=0).fit(X, y)
    assert signal.getsignal(signal.SIGINT) is before


class Kept(nn.Module):
    """A network whose norm stays as it was made, whatever the mode: as in a frozen backbone."""

    def __init__(self, n_features=6, n_classes=3):
        super().__init__()
        self.norm, self.out = nn.BatchNorm1d(n_features), nn.Linear(n_features, n_classes)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.out(self.norm(x))


@pytest.mark.parametrize("inside", [False, True])
def test_the_modules_own_train_is_called(problem, inside):
    X, y, _ = problem
    codes = np.unique(y, return_inverse=True)[1]
    module = nn.Sequential(Kept()) if inside else Kept()
    net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, max_epochs=2, verbose=0)
    clf = FairQATClassifier(net, random_state=0).fit(X, y)
    plain = clone(net).fit(X, codes)
    state = clf.estimator_.module_.state_dict()
    for name, value in plain.module_.state_dict().items():
        assert torch.equal(state[name], value)
    for name, value in clf.module_.state_dict().items():
        if "running" in name:
            assert torch.equal(value, state[name])
            assert torch.equal(value, torch.full_like(value, float("var" in name)))
