"""Rules that choose bits, against loops written by hand."""

import copy

import numpy as np
import pytest
import torch
from nets import CODES, counting, skorch_net, small
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from skqfair import FairQATClassifier, QuantizedClassifier
from skqfair.networks import MLP
from skqfair.quantization import CHOICES, allocate_bits, quantize

ESTIMATORS = [QuantizedClassifier, FairQATClassifier]


def fast(kind, net, **options):
    extra = {"finetune_epochs": 1} if kind is FairQATClassifier else {}
    return kind(net, random_state=0, **extra, **options)


@pytest.fixture
def frozen(problem):
    X, y, _ = problem
    torch.manual_seed(0)
    net = small(module__hidden_sizes=(8, 6), max_epochs=6)
    return FrozenEstimator(net.fit(X, np.array([CODES[label] for label in y])))


def measured(module, X, y, groups):
    """The loss increase of each group, one layer and width at a time."""
    names = [name for name, p in module.named_parameters() if p.ndim == 2]
    result = np.zeros((len(names), len(CHOICES), 3))

    def group_losses(changed):
        with torch.no_grad():
            logits = changed(torch.as_tensor(X)).double()
            each = nn.functional.cross_entropy(logits, torch.as_tensor(y), reduction="none").numpy()
        return np.array([each[groups == g].mean() for g in "abc"])

    for i, name in enumerate(names):
        for j, bits in enumerate(CHOICES):
            changed = copy.deepcopy(module)
            codes, scale = quantize(dict(changed.named_parameters())[name], bits)
            dict(changed.named_parameters())[name].data = codes * scale
            result[i, j] = group_losses(changed) - group_losses(module)
    return names, result


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("budget", [2.5, 4.0])
def test_auto_is_the_minimax_of_measured_sensitivities(problem, frozen, kind, budget):
    X, y, groups = problem
    y = np.array([CODES[label] for label in y])
    clf = fast(kind, frozen, layer_bits="auto", bit_budget=budget, calibration_size=300)
    clf.fit(X, y, sensitive_features=groups)
    trained = type("Trained", (), {"X": X, "seed": None, "groups": None})
    trained.seed = int(np.random.RandomState(0).randint(2**31 - 1))
    trained.groups = type("Groups", (), {"codes": np.searchsorted(list("abc"), groups), "index": "abc"})
    rows = clf._calibration_rows(trained)
    assert len(rows) == 300
    np.testing.assert_array_equal(np.unique(groups[rows], return_counts=True)[1], [100] * 3)
    module = frozen.estimator.module_
    names, omega = measured(module, X[rows], y[rows], groups[rows])
    sizes = [dict(module.named_parameters())[name].numel() for name in names]
    expected = allocate_bits(omega, sizes, budget=budget)
    index = [list(CHOICES).index(clf.layer_bits_[name]) for name in names]
    best = [list(CHOICES).index(b) for b in expected]
    layers = np.arange(len(names))
    found, optimum = (omega[layers, i].sum(0).max() for i in (index, best))
    assert found == pytest.approx(optimum, rel=1e-4)
    assert np.dot(sizes, list(clf.layer_bits_.values())) <= budget * np.sum(sizes)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_fairquant_follows_its_paper(problem, frozen, kind):
    """(g w)² by group and batch, divided by the group's share, the largest group, mean per channel."""
    X, y, groups = problem
    y = np.array([CODES[label] for label in y])
    options = {"layer_bits": "fairquant", "bit_budget": 4, "calibration_size": 300}
    clf = fast(kind, frozen, **options).fit(X, y, sensitive_features=groups)
    assert all(set(np.unique(bits)) <= {2, 4, 8} for bits in clf.layer_bits_.values())
    weights = [p for p in frozen.estimator.module_.parameters() if p.ndim == 2]
    spent = sum(
        (bits * p.shape[1]).sum() for bits, p in zip(clf.layer_bits_.values(), weights, strict=True)
    )
    total = sum(p.numel() for p in weights)
    assert 0.9 * 4 <= spent / total <= 4

    trained = type("Trained", (), {"X": X, "seed": int(np.random.RandomState(0).randint(2**31 - 1))})
    trained.groups = type("Groups", (), {"codes": np.searchsorted(list("abc"), groups), "index": "abc"})
    rows = clf._calibration_rows(trained)
    X, y, groups = X[rows], y[rows], groups[rows]
    maps = {g: [np.zeros(p.shape) for p in weights] for g in "abc"}
    for start in range(0, len(X), 128):
        for g in "abc":
            members = np.flatnonzero(groups[start : start + 128] == g) + start
            logits = frozen.estimator.module_(torch.as_tensor(X[members]))
            loss = nn.functional.cross_entropy(logits, torch.as_tensor(y[members]))
            for total, gradient, p in zip(
                maps[g], torch.autograd.grad(loss, weights), weights, strict=True
            ):
                total += (gradient * p).detach().numpy() ** 2
    totals = {g: sum(m.sum() for m in maps[g]) for g in "abc"}
    shares = {g: totals[g] / sum(totals.values()) for g in "abc"}
    scores = np.concatenate(
        [np.max([maps[g][i] / shares[g] for g in "abc"], axis=0).mean(1) for i in range(len(weights))]
    )
    found = np.concatenate(list(clf.layer_bits_.values()))
    assert scores[found == 8].min() >= scores[found == 4].max() * (1 - 1e-4)
    assert scores[found == 4].min() >= scores[found == 2].max() * (1 - 1e-4)


FACTORS = torch.logspace(-1.5, 1.5, 6)


class ScalingNet(NeuralNetClassifier):
    def infer(self, x, **fit_params):
        return super().infer(x * FACTORS, **fit_params)


class ScalingModule(MLP):
    def forward(self, x):
        return super().forward(x * FACTORS)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_fairquant_asks_the_net_not_its_module(problem, kind):
    X, y, groups = problem
    bits = []
    for net in (skorch_net(ScalingNet), skorch_net(module=ScalingModule)):
        clf = fast(kind, net, layer_bits="fairquant", bit_budget=4)
        clf.fit(X, y, sensitive_features=groups)
        bits.append(np.concatenate(list(clf.layer_bits_.values())))
    np.testing.assert_array_equal(*bits)


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("budget", [2, 6.5, 8])
def test_fairquant_keeps_every_budget(problem, kind, budget):
    X, y, _ = problem
    clf = fast(kind, small(), layer_bits="fairquant", bit_budget=budget).fit(X, y)
    spent = sum(w.codes.numel() * np.mean(w.bits) for w in clf.quantized_weights_.values())
    total = sum(w.codes.numel() for w in clf.quantized_weights_.values())
    assert budget - 0.5 <= spent / total <= budget


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_first_and_last_layer_at_8_bits(problem, kind):
    X, y, _ = problem
    net = small(module__hidden_sizes=(8, 8))
    clf = fast(kind, net, weight_bits=2, layer_bits="first_last_8").fit(X, y)
    assert list(clf.layer_bits_.values()) == [8, 2, 8]


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("rule", ["auto", "fairquant"])
def test_sensitivities_are_measured_once(problem, tmp_path, kind, rule, monkeypatch):
    X, y, groups = problem
    from skqfair.classifiers import _layer_bits

    calls = []
    for name in ("_measured", "_channel_importance"):
        original = getattr(_layer_bits, name)
        monkeypatch.setattr(
            _layer_bits, name, lambda *a, original=original: calls.append(1) or original(*a)
        )
    net, count = counting(tmp_path / "log")
    clf = fast(kind, net, layer_bits=rule, bit_budget=4, memory=str(tmp_path))
    for budget in (3, 4, 5):
        clone(clf).set_params(bit_budget=budget).fit(X, y, sensitive_features=groups)
    assert count() == len(calls) == 1


BAD = {
    "no budget": ({"layer_bits": "auto"}, "layer_bits='auto' needs bit_budget.*e.g. bit_budget=4"),
    "below": (
        {"layer_bits": "auto", "bit_budget": 1.5},
        "bit_budget=1.5 must be within the choices",
    ),
    "above": ({"layer_bits": "auto", "bit_budget": 9}, "bit_budget=9 must be within the choices"),
    "without auto": ({"bit_budget": 4}, 'bit_budget=4 is for layer_bits="auto" or "fairquant" only'),
    "with patterns": ({"bit_budget": 4, "layer_bits": {"output": 2}}, "bit_budget=4 is for"),
    "first_last_8": ({"layer_bits": "first_last_8", "weight_bits": None}, "needs weight_bits"),
    "another rule": ({"layer_bits": "best"}, "layer_bits"),
}


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("case", BAD)
def test_bad_budgets_are_found_before_the_training(problem, kind, case, tmp_path):
    X, y, _ = problem
    options, message = BAD[case]
    net, count = counting(tmp_path / "log")
    with pytest.raises(ValueError, match=message):
        kind(net, **options).fit(X, y)
    assert count() == 0


@pytest.mark.parametrize("rule", ["auto", "fairquant"])
def test_the_cache_knows_the_sample(problem, frozen, tmp_path, rule):
    """A frozen net with other labels or groups has other sensitivities."""
    X, y, groups = problem
    y = np.array([CODES[label] for label in y])

    def bits(labels, groups, memory):
        clf = fast(QuantizedClassifier, frozen, layer_bits=rule, bit_budget=3, memory=memory)
        clf.fit(X, labels, sensitive_features=groups)
        return np.concatenate([np.atleast_1d(b) for b in clf.layer_bits_.values()])

    for labels, names in ((y, groups), ((y + 1) % 3, groups), (y, np.roll(groups, 7))):
        np.testing.assert_array_equal(bits(labels, names, str(tmp_path)), bits(labels, names, None))


def test_fairquant_needs_channels(problem):
    X, y, _ = problem
    clf = QuantizedClassifier(layer_bits="fairquant", bit_budget=4, granularity="per_tensor")
    with pytest.raises(ValueError, match='needs granularity="per_channel"'):
        clf.fit(X, y)
