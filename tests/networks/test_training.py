import contextlib
import copy
import pickle
import signal

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, GradientNormClipping
from skorch.dataset import Dataset, ValidSplit
from torch import nn
from torch.utils.data import default_collate

from skqfair.networks import MLP, TensorNetClassifier, tensor_training

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
OPTIONS = {
    "criterion": nn.CrossEntropyLoss,
    "module__n_features": 6,
    "module__n_classes": 2,
    "module__hidden_sizes": (8,),
    "max_epochs": 3,
    "lr": 0.1,
    "batch_size": 32,
    "verbose": 0,
    "iterator_train__shuffle": True,
}


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


def train(kind, *fit, **options):
    torch.manual_seed(0)
    return kind(MLP, **{**OPTIONS, **options}).fit(X, Y, *fit)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"train_split": None},
        {"module__dropout": 0.3, "module__batch_norm": True},
        {"optimizer": torch.optim.Adam, "optimizer__weight_decay": 0.01, "lr": 0.01},
        {"optimizer": torch.optim.LBFGS, "max_epochs": 1},
        {"criterion__label_smoothing": 0.1},
        {"iterator_train__drop_last": True},
        {"callbacks": [EarlyStopping(patience=1)], "max_epochs": 20},
        {"callbacks": [GradientNormClipping(0.1)], "optimizer__momentum": 0.9},
        {"batch_size": -1},
    ],
)
def test_bitwise_the_network_that_skorch_trains(options):
    ours, plain = train(TensorNetClassifier, **options), train(NeuralNetClassifier, **options)
    assert torch.equal(weights(ours), weights(plain))
    assert [h["train_loss"] for h in ours.history] == [h["train_loss"] for h in plain.history]
    np.testing.assert_array_equal(ours.predict_proba(X), plain.predict_proba(X))


def test_weights_equal_a_loop_by_hand():
    weight = RNG.random(300) * 5
    net = train(TensorNetClassifier, weight, train_split=None)
    torch.manual_seed(0)
    module = MLP(6, 2, hidden_sizes=(8,))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    scaled = torch.as_tensor(weight / weight.mean()).float()
    for _ in range(3):
        torch.empty((), dtype=torch.int64).random_()  # as torch's loader does
        generator = torch.Generator().manual_seed(int(torch.empty((), dtype=torch.int64).random_()))
        for rows in torch.randperm(300, generator=generator).split(32):
            optimizer.zero_grad()
            losses = nn.functional.cross_entropy(
                module(torch.as_tensor(X)[rows]), torch.as_tensor(Y)[rows], reduction="none"
            )
            (losses * scaled[rows]).mean().backward()
            optimizer.step()
    torch.testing.assert_close(
        weights(net), torch.cat([p.detach().flatten() for p in module.parameters()])
    )


def test_no_epochs_with_weights_is_no_error():
    assert train(TensorNetClassifier, np.ones(300), max_epochs=0).history == []


def test_only_ratios_of_weights_count():
    equal = train(TensorNetClassifier, np.full(300, 7.0))
    torch.testing.assert_close(weights(equal), weights(train(TensorNetClassifier)))
    weight = RNG.random(300)
    one, two = train(TensorNetClassifier, weight), train(TensorNetClassifier, weight * 8)
    assert torch.equal(weights(one), weights(two))


def test_weight_two_is_the_sample_twice_in_a_full_batch():
    weight = np.where(Y == 1, 2.0, 1.0)
    options = {"batch_size": -1, "train_split": None, "iterator_train__shuffle": False}
    weighted = train(TensorNetClassifier, weight, **options)
    torch.manual_seed(0)
    twice = np.concatenate([X, X[Y == 1]]), np.concatenate([Y, Y[Y == 1]])
    doubled = NeuralNetClassifier(MLP, **{**OPTIONS, **options}).fit(*twice)
    torch.testing.assert_close(weights(weighted), weights(doubled), rtol=1e-4, atol=1e-5)


def test_class_weights_of_the_criterion_keep_their_meaning():
    options = {"criterion__weight": torch.tensor([1.0, 3.0]), "train_split": None}
    plain, ones = (
        train(TensorNetClassifier, **options),
        train(TensorNetClassifier, np.ones(300), **options),
    )
    torch.testing.assert_close(weights(plain), weights(ones))
    options["criterion__reduction"] = "sum"
    options["lr"] = 0.001
    plain, ones = (
        train(TensorNetClassifier, **options),
        train(TensorNetClassifier, np.ones(300), **options),
    )
    torch.testing.assert_close(weights(plain), weights(ones))


class Penalised(NeuralNetClassifier):
    seen = None

    def get_loss(self, y_pred, y_true, X=None, training=False):
        Penalised.seen = X
        return super().get_loss(y_pred, y_true, X, training=training) + 0.01 * sum(
            p.square().sum() for p in self.module_.parameters()
        )


class Augmented(Dataset):
    def transform(self, X, y):
        return X * 1.5, y


def reverse(items):
    assert all(isinstance(x, torch.Tensor | np.ndarray) for x, _ in items)
    return default_collate(items[::-1])


@pytest.mark.parametrize(
    "options", [{}, {"dataset": Augmented}, {"iterator_train__collate_fn": reverse, "train_split": None}]
)
def test_any_skorch_net_carries_weights(options):
    """The user's get_loss still runs, on the batch without the weights, and its class comes back."""
    nets = []
    for weight in (None, np.full(300, 3.0)):
        torch.manual_seed(0)
        net = Penalised(MLP, **OPTIONS, **options)
        before = net.get_params()
        with tensor_training(net, weight):
            net.fit(X, Y)
        assert type(net) is Penalised
        assert isinstance(Penalised.seen, torch.Tensor)
        after = net.get_params()
        assert all(after[key] is before[key] for key in ("dataset", "iterator_train", "iterator_valid"))
        nets.append(net)
    torch.testing.assert_close(weights(nets[0]), weights(nets[1]))


def test_a_loss_that_cannot_be_weighted():
    class Mean(NeuralNetClassifier):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            return nn.functional.cross_entropy(y_pred, y_true)

    net = Mean(MLP, **OPTIONS)
    message = "sample_weight cannot be applied: get_loss of Mean"
    with pytest.raises(ValueError, match=message), tensor_training(net, np.ones(300)):
        net.fit(X, Y)
    assert type(net) is Mean


class Halved(NeuralNetClassifier):
    """Overrides a part of the step."""

    def _step_optimizer(self, step_fn):
        super()._step_optimizer(step_fn)
        with torch.no_grad():
            for parameter in self.module_.parameters():
                parameter.mul_(0.9)


class Accumulating(NeuralNetClassifier):
    """Overrides the whole step."""

    def train_step(self, batch, **fit_params):
        step = self.train_step_single(batch, **fit_params)
        if len(self.history[-1]["batches"]) % 2:
            self.optimizer_.step()
            self.optimizer_.zero_grad()
        return step


@pytest.mark.parametrize("kind", [Halved, Accumulating])
def test_steps_that_users_override(kind):
    nets = []
    for context in (contextlib.nullcontext, tensor_training):
        torch.manual_seed(0)
        net = kind(MLP, **OPTIONS)
        with context(net):
            net.fit(X, Y)
        nets.append(net)
    assert torch.equal(weights(nets[0]), weights(nets[1]))
    assert not torch.equal(weights(nets[0]), weights(train(NeuralNetClassifier)))


def test_callbacks_are_called():
    class Counter(Callback):
        calls = 0

        def on_grad_computed(self, net, named_parameters, **kwargs):
            self.calls += len(list(named_parameters)) == 4

    counter = Counter()
    train(TensorNetClassifier, train_split=None, callbacks=[counter])
    assert counter.calls == 3 * 10


def test_modes_are_restored_between_training_and_validation():
    class Modes(Callback):
        wrong = 0

        def on_batch_end(self, net, training, **kwargs):
            modes = {m.training for m in net.module_.modules()}
            self.wrong += modes != {training}

    modes = Modes()
    train(TensorNetClassifier, callbacks=[modes], module__dropout=0.1, train_split=ValidSplit(3))
    assert modes.wrong == 0


def test_a_net_pickles_while_it_is_extended():
    net = NeuralNetClassifier(MLP, **OPTIONS).initialize()
    with tensor_training(net):
        other = pickle.loads(pickle.dumps(net))
        copied = copy.deepcopy(net)
    assert type(other) is type(copied) is NeuralNetClassifier


class Interrupting(Callback):
    """Interrupts as Ctrl-C does, at some batch."""

    def __init__(self, batch):
        self.batch, self.n_batches = batch, 0

    def on_batch_end(self, net, **kwargs):
        self.n_batches += 1
        if self.n_batches == self.batch:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("kind", [NeuralNetClassifier, TensorNetClassifier])
@pytest.mark.parametrize("batch", [1, 17])
def test_an_interrupt_of_the_training_is_raised(kind, batch):
    net = kind(MLP, **OPTIONS, callbacks=[Interrupting(batch)])
    with pytest.raises(KeyboardInterrupt), tensor_training(net):
        net.fit(X, Y)
    assert type(net) is kind
    assert "interrupted_" not in vars(net)


class FrozenBackbone(nn.Sequential):
    """Keeps its BatchNorm in evaluation mode while the rest trains."""

    def train(self, mode=True):
        super().train(mode)
        self[0].eval()
        return self


@pytest.mark.parametrize("nested", [False, True])
def test_a_train_method_of_a_module_is_called(nested):
    def fit(kind):
        torch.manual_seed(0)
        module = FrozenBackbone(nn.BatchNorm1d(6), nn.Linear(6, 2))
        module = nn.Sequential(module) if nested else module
        options = {k: v for k, v in OPTIONS.items() if not k.startswith("module__")}
        return kind(module, **options).fit(X, Y)

    ours, plain = fit(TensorNetClassifier), fit(NeuralNetClassifier)
    for one, two in zip(
        ours.module_.state_dict().values(), plain.module_.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two)
