"""Fine-tuning of pruned networks against a loop by hand; zeros stay zeros."""

import copy

import numpy as np
import pytest
import torch
from nets import CODES, skorch_net, small
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, GradientNormClipping, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn

from skqfair import PrunedClassifier
from skqfair.exceptions import DivergedTrainingError
from skqfair.networks import MLP
from skqfair.quantization import prune

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


def by_hand(net, X, y, masks, *, epochs, lr, weight):
    """Adam on the weights that are left, the rate falling along a cosine; no skorch."""
    module = copy.deepcopy(net.module_)
    values = dict(module.named_parameters())
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    n_steps, step = epochs * -(-len(X) // 128), 0
    for _ in range(epochs):
        for start in range(0, len(X), 128):
            rows = slice(start, start + 128)
            masked = {n: v * ~masks[n] if n in masks else v for n, v in values.items()}
            outputs = torch.func.functional_call(module, masked, (torch.as_tensor(X[rows]),))
            losses = nn.functional.cross_entropy(outputs, torch.as_tensor(y[rows]), reduction="none")
            optimizer.zero_grad()
            (losses * torch.as_tensor(weight[rows])).mean().backward()
            optimizer.param_groups[0]["lr"] = lr * (1 + np.cos(np.pi * step / n_steps)) / 2
            optimizer.step()
            step += 1
    return {n: (v * ~masks[n] if n in masks else v).detach() for n, v in values.items()}


@pytest.mark.parametrize("lr", [None, 0.02])
@pytest.mark.parametrize("weighted", [False, True])
def test_fine_tuning_is_the_loop_by_hand(problem, frozen, weighted, lr):
    X, y, _ = problem
    weight = np.random.default_rng(0).exponential(size=400) if weighted else None
    clf = PrunedClassifier(frozen, amount=0.5, finetune_epochs=3, finetune_lr=lr, random_state=0)
    clf.fit(X, codes(y), sample_weight=weight)
    masks = prune(frozen.estimator.module_, 0.5).masks
    weight = np.ones(400) if weight is None else weight / weight.mean()
    expected = by_hand(
        frozen.estimator, X, codes(y), masks, epochs=3, lr=lr or 0.003, weight=weight.astype(np.float32)
    )
    for name, value in clf.module_.named_parameters():
        torch.testing.assert_close(value.detach(), expected[name], rtol=1e-3, atol=1e-5)
        assert not torch.equal(value, dict(frozen.estimator.module_.named_parameters())[name])
    assert len(clf.history_) == 3


class Noise(Callback):
    """Moves every weight after each batch."""

    def on_batch_end(self, net, training=False, **kwargs):
        with torch.no_grad():
            for parameter in net.module_.parameters():
                parameter += 0.01


OPTIMIZERS = {
    "momentum": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "lr": 0.01},
    "decay": {"optimizer": torch.optim.AdamW, "optimizer__weight_decay": 0.1, "lr": 0.01},
    "lbfgs": {"optimizer": torch.optim.LBFGS, "lr": 0.1},
    "noise": {"callbacks": [Noise()]},
    "schedule": {"callbacks": [LRScheduler("StepLR", step_size=1)]},
    "validation": {"train_split": ValidSplit(5)},
}


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_zeros_stay_zeros_and_the_rest_learns(problem, case):
    X, y, _ = problem
    net = skorch_net(max_epochs=2, **{"train_split": None, **OPTIMIZERS[case]})
    clf = PrunedClassifier(net, amount=0.8, finetune_epochs=2, random_state=0).fit(X, y)
    pruned = prune(clf.estimator_.module_, 0.8)
    before = dict(pruned.module.named_parameters())
    for name, value in clf.module_.named_parameters():
        if name in pruned.masks:
            assert torch.equal(value == 0, pruned.masks[name])
            assert not torch.signbit(value[pruned.masks[name]]).any()
        assert not torch.equal(value, before[name])
        assert value.grad is None
    assert clf.layer_amounts_ == {n: float(m.double().mean()) for n, m in pruned.masks.items()}


class Noticing(MLP):
    """Notes the share of zeros that each step of a training runs on."""

    zeros = []

    def forward(self, x):
        if self.training:
            self.zeros.append(float((self.hidden0.weight == 0).double().mean()))
        return super().forward(x)


def test_every_step_runs_on_the_pruned_weights(problem):
    X, y, _ = problem
    net = skorch_net(
        module=Noticing, callbacks=[Noise()], max_epochs=2, train_split=None, module__hidden_sizes=(8,)
    )
    Noticing.zeros.clear()
    clf = PrunedClassifier(net, amount=0.8, finetune_epochs=3, random_state=0).fit(X, y)
    n_steps = -(-400 // 128)
    assert Noticing.zeros[-3 * n_steps :] == [clf.layer_amounts_["hidden0.weight"]] * 3 * n_steps
    assert clf.layer_amounts_["hidden0.weight"] > 0.5
    assert Noticing.zeros[: 2 * n_steps] == [0] * 2 * n_steps


class Looking(NeuralNetClassifier):
    """Evaluates a batch between the forward and the backward pass of its step."""

    def get_loss(self, y_pred, y_true, X=None, training=False, **kwargs):
        if training:
            self.evaluation_step((X, y_true))
        return super().get_loss(y_pred, y_true, X, training=training, **kwargs)


def test_evaluating_within_a_step_changes_nothing(problem):
    X, y, _ = problem
    options = {"amount": 0.6, "finetune_epochs": 2, "random_state": 0}
    looking, plain = (
        PrunedClassifier(skorch_net(kind), **options).fit(X, y)
        for kind in (Looking, NeuralNetClassifier)
    )
    np.testing.assert_array_equal(looking.predict_proba(X), plain.predict_proba(X))


class SparseTokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.EmbeddingBag(11, 5, sparse=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.embedding(x))


def test_sparse_gradients():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 11, (60, 7)), rng.integers(0, 3, 60)
    net = NeuralNetClassifier(
        SparseTokens, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0, train_split=None
    ).fit(X, y)
    net.set_params(callbacks=[Gradients(1.0)])
    Gradients.zeros = []
    clf = PrunedClassifier(FrozenEstimator(net), finetune_epochs=2, random_state=0).fit(X, y)
    masks = prune(clf.estimator_.module_, 0.5).masks
    for name, mask in masks.items():
        assert torch.equal(dict(clf.module_.named_parameters())[name] == 0, mask)
        for zeros in Gradients.zeros:
            assert bool(zeros[name][mask].all())
            assert not bool(zeros[name].all())
    assert len(Gradients.zeros) == 2


class Gradients(GradientNormClipping):
    """Notes which gradients a bound on their norm sees."""

    zeros = []

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self.zeros.append({name: p.grad.to_dense() == 0 for name, p in named_parameters})


def test_callbacks_see_no_gradient_of_what_is_pruned(problem, frozen):
    X, y, _ = problem
    Gradients.zeros = []
    net = copy.deepcopy(frozen.estimator).set_params(callbacks=[Gradients(1.0)])
    clf = PrunedClassifier(FrozenEstimator(net), amount=0.7, finetune_epochs=1, random_state=0)
    clf.fit(X, codes(y))
    masks = prune(net.module_, 0.7).masks
    assert len(Gradients.zeros) == 4
    for zeros in Gradients.zeros:
        assert all(bool(zeros[name][masks[name]].all()) for name in WEIGHTS)
    assert not all(bool(zeros[name].all()) for name in WEIGHTS)


def test_fine_tuning_brings_accuracy_back(problem):
    X, y, _ = problem
    net = small(max_epochs=20)
    scores = [
        PrunedClassifier(net, amount=0.8, finetune_epochs=n, random_state=0).fit(X, y).score(X, y)
        for n in (0, 20)
    ]
    assert scores[1] > scores[0] + 0.05


def test_diverging_fine_tuning_says_so(problem, frozen):
    X, y, _ = problem
    net = copy.deepcopy(frozen.estimator).set_params(lr=1e30)
    clf = PrunedClassifier(FrozenEstimator(net), finetune_epochs=5, random_state=0)
    with pytest.raises(DivergedTrainingError, match=r"pruned network diverged.*lr=1e\+30.*memory"):
        clf.fit(X, codes(y))
    assert not hasattr(clf, "module_")


class Poison(Callback):
    """Spoils a weight at the very end of a fine-tuning."""

    def on_train_end(self, net, **kwargs):
        net.module_.output.bias.data[0] = torch.nan


def test_weights_that_end_up_infinite(problem, frozen):
    X, y, _ = problem
    net = copy.deepcopy(frozen.estimator).set_params(callbacks=[Poison()])
    clf = PrunedClassifier(FrozenEstimator(net), amount=0.95, finetune_epochs=1, random_state=0)
    with pytest.raises(DivergedTrainingError, match=r"weight output\.bias is not finite at its end"):
        clf.fit(X, codes(y))
