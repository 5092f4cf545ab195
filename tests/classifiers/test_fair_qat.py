"""Fine-tuning against a training loop written by hand, and what it must leave alone."""

import copy

import numpy as np
import pytest
import torch
from nets import CODES, Resized, Sizes, skorch_net, small, weights_of
from reference import numpy_clip, rows_of
from scipy.stats import chisquare
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn

from skqfair import FairQATClassifier, QuantizedClassifier
from skqfair.exceptions import (
    AccuracyBoundWarning,
    CompoundedMitigationWarning,
    DivergedTrainingError,
    SmallCellWarning,
)
from skqfair.mitigation import balancing_weights, make_cells
from skqfair.networks import MLP, make_classifier
from skqfair.networks._fine_tuning import LEARNING_RATE_RATIO
from skqfair.quantization import input_quantizers


@pytest.fixture
def frozen(problem):
    """A trained net that takes its batches in order."""
    X, y, _ = problem
    torch.manual_seed(0)
    net = small(lr=0.01, iterator_train__shuffle=False)
    return FrozenEstimator(net.fit(X, codes(y)))


def codes(y):
    return np.array([CODES[label] for label in y])


def latent(clf):
    return [p.detach().clone() for p in clf.latent_module_.parameters()]


def by_hand(net, X, y, *, bits, epochs, lr, weight=None, penalty=None):
    """Quantization-aware training spelled out: scales by search once an epoch, Adam, no skorch."""
    module = copy.deepcopy(net.module_)
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    names = [name for name, p in module.named_parameters() if p.ndim == 2]
    q, n_steps, step = 2 ** (bits - 1) - 1, epochs * -(-len(X) // 128), 0
    for _ in range(epochs):
        scales = {}
        for name in names:
            w = dict(module.named_parameters())[name].detach()
            largest = w.abs().amax(1, keepdim=True)
            tried = [largest * k / 100 / q for k in range(1, 101)]
            errors = torch.cat(
                [((w / s).round().clamp(-q, q) * s - w).square().sum(1, True) for s in tried], 1
            )
            best = errors.argmin(1, keepdim=True)
            scales[name] = torch.cat(tried, 1).gather(1, best)
        for start in range(0, len(X), 128):
            rows = slice(start, start + 128)
            values = dict(module.named_parameters())
            for name in names:
                w, s = values[name], scales[name]
                inside = (w / s).abs() <= q + 0.5
                passed = torch.where(inside, w, w.detach())
                values[name] = passed + ((w / s).round().clamp(-q, q) * s - w).detach()
            outputs = torch.func.functional_call(module, values, (torch.as_tensor(X[rows]),))
            losses = nn.functional.cross_entropy(outputs, torch.as_tensor(y[rows]), reduction="none")
            loss = losses.mean() if weight is None else (losses * torch.as_tensor(weight[rows])).mean()
            if penalty is not None:
                loss = loss + penalty(losses, rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = lr * (1 + np.cos(np.pi * step / n_steps)) / 2
            optimizer.step()
            step += 1
    return [p.detach() for p in module.parameters()]


@pytest.mark.parametrize("bits", [2, 4])
def test_plain_fine_tuning_is_the_loop_by_hand(problem, frozen, bits):
    X, y, _ = problem
    clf = FairQATClassifier(
        frozen, weight_bits=bits, finetune_epochs=3, finetune_lr=0.002, random_state=0
    )
    expected = by_hand(frozen.estimator, X, codes(y), bits=bits, epochs=3, lr=0.002)
    for found, value in zip(latent(clf.fit(X, codes(y))), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-5)


def test_weighted_fine_tuning_is_the_loop_by_hand(problem, frozen):
    X, y, groups = problem
    own = np.random.default_rng(0).exponential(size=len(y))
    clf = FairQATClassifier(
        frozen, mitigation_weight=0.7, finetune_epochs=2, finetune_lr=0.002, random_state=0
    )
    clf.fit(X, codes(y), sensitive_features=groups, sample_weight=own)
    factor = {g: (own.sum() / (3 * own[groups == g].sum())) ** 0.7 for g in "abc"}
    weight = own * np.array([factor[g] for g in groups])
    weight = (weight / weight.mean()).astype(np.float32)
    expected = by_hand(frozen.estimator, X, codes(y), bits=4, epochs=2, lr=0.002, weight=weight)
    for found, value in zip(latent(clf), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-5)


def test_gap_penalty_is_the_loop_by_hand(problem, frozen):
    X, y, groups = problem

    def gap(losses, rows):
        means = [losses[torch.as_tensor(groups[rows] == g)].mean() for g in np.unique(groups[rows])]
        return 0.5 * (max(means) - min(means))

    clf = FairQATClassifier(
        frozen, gap_penalty=0.5, finetune_epochs=2, finetune_lr=0.002, random_state=0
    )
    clf.fit(X, codes(y), sensitive_features=groups)
    expected = by_hand(frozen.estimator, X, codes(y), bits=4, epochs=2, lr=0.002, penalty=gap)
    for found, value in zip(latent(clf), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"activation_bits": 4}, {"layer_bits": {"output": 8}}])
def test_no_epochs_is_post_training_quantization(problem, options):
    X, y, groups = problem
    tuned = FairQATClassifier(small(), weight_bits=3, finetune_epochs=0, random_state=0, **options)
    once = QuantizedClassifier(small(), weight_bits=3, random_state=0, **options)
    tuned.fit(X, y, sensitive_features=groups)
    once.fit(X, y, sensitive_features=groups)
    np.testing.assert_array_equal(weights_of(tuned), weights_of(once))
    np.testing.assert_array_equal(tuned.predict_proba(X), once.predict_proba(X))
    assert len(tuned.history_) == 0
    assert tuned.model_size_ == once.model_size_


def test_no_mitigation_is_plain_bitwise(problem):
    X, y, groups = problem
    clf = FairQATClassifier(small(module__dropout=0.2), weight_bits=3, finetune_epochs=2, random_state=0)
    plain = weights_of(clone(clf).fit(X, y))
    for balance in ("group", "group_class", "class"):
        clf.set_params(mitigation_weight=0.0, gap_penalty=0.0, balance=balance)
        np.testing.assert_array_equal(plain, weights_of(clf.fit(X, y, sensitive_features=groups)))


@pytest.mark.parametrize(
    "options",
    [
        {"weight_bits": 2},
        {"weight_bits": 3, "calibration": "learned"},
        {"weight_bits": 4, "activation_bits": 4, "calibration": "learned"},
        {"layer_bits": "fairquant", "bit_budget": 3},
        {"layer_bits": {"hidden0": [2, 3, 4, 5, 6, 7, 8, 2]}, "calibration": "learned"},
        {"weight_bits": 3, "granularity": "per_tensor"},
        {"weight_bits": 3, "sampling": "oversample", "gap_penalty": 1.0},
    ],
)
def test_weights_stay_on_the_grid_of_their_bits(problem, options):
    X, y, groups = problem
    clf = FairQATClassifier(small(), finetune_epochs=2, random_state=0, **options)
    clf.fit(X, y, sensitive_features=groups)
    parameters = dict(clf.module_.named_parameters())
    latents = dict(clf.latent_module_.named_parameters())
    assert parameters.keys() == latents.keys()
    for name, bits in clf.layer_bits_.items():
        rows = parameters[name].detach()
        for row, width in zip(rows, np.broadcast_to(bits, len(rows)), strict=True):
            assert len(row.unique()) <= 2**width - 1
        scale = clf.quantized_weights_[name].scale
        inside = (latents[name] / scale).abs() <= 2 ** (torch.as_tensor(bits) - 1).view(-1, 1) - 1
        assert ((latents[name] - rows).abs() <= scale / 2 * 1.001)[inside].all()


ROWS = []


CONSTANT = LRScheduler("StepLR", step_size=1000)


class Noting(Callback):
    """Keeps the first feature of every row that a net is trained on."""

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        if training:
            X = batch[0]["X"] if isinstance(batch[0], dict) else batch[0]
            ROWS.append(X[:, 0].numpy().copy())


def trained_on(X):
    """Positions of the rows that the nets have seen since the last call."""
    order = np.argsort(X[:, 0])
    rows = order[np.searchsorted(X[order, 0], np.concatenate(ROWS))]
    ROWS.clear()
    return rows


@pytest.mark.parametrize("balance", ["group", "group_class", "class"])
@pytest.mark.parametrize("split", [None, "default"])
def test_balanced_sampling_draws_cells_equally(problem, balance, split):
    X, y, groups = problem
    options = {} if split is None else {"train_split": ValidSplit(5)}
    net = small(callbacks=[Noting()], max_epochs=1, **options)
    clf = FairQATClassifier(
        net, sampling="balanced", balance=balance, finetune_epochs=20, finetune_lr=1e-4, random_state=0
    )
    ROWS.clear()
    clf.fit(X, y, sensitive_features=groups)
    seen = trained_on(X)
    n_train = len(clf.estimator_.history) * (400 if split is None else 320)
    drawn = seen[n_train:]
    assert len(drawn) == 20 * n_train
    name = {"group": groups, "class": y, "group_class": groups + y}[balance]
    _, counts = np.unique(name[drawn], return_counts=True)
    assert chisquare(counts).pvalue > 1e-3
    assert len(counts) == len(clf.cell_weights_)
    np.testing.assert_allclose(clf.cell_weights_["draws"].sum(), 400)


def test_validation_rows_are_never_trained_on(problem):
    X, y, groups = problem
    net = small(callbacks=[Noting()])
    ROWS.clear()
    clf = FairQATClassifier(net, validation_fraction=0.25, sampling="oversample", random_state=0)
    clf.fit(X, y, sensitive_features=groups)
    unseen = np.setdiff1d(np.arange(400), trained_on(X))
    assert 90 <= len(unseen) <= 110
    for g in "abc":  # of every group its share
        assert 0.2 <= np.mean(groups[unseen] == g) / np.mean(groups == g) <= 2
    history = clf.history_[:, "validation_loss"]
    assert clf.best_epoch_ == np.argmin(history) + 1
    logits = torch.as_tensor(clf.decision_function(X[unseen]))
    each = nn.functional.cross_entropy(logits, torch.as_tensor(codes(y)[unseen]), reduction="none")
    means = [each.numpy()[groups[unseen] == g].mean() for g in "abc"]
    assert np.mean(means) == pytest.approx(min(history), rel=1e-5)


@pytest.mark.parametrize("calibration", ["mse", "learned"])
@pytest.mark.parametrize("activation_bits", [None, 3])
def test_the_best_epoch_is_the_one_that_is_kept(problem, calibration, activation_bits):
    X, y, groups = problem
    clf = FairQATClassifier(
        small(module__batch_norm=True, callbacks=[CONSTANT]),
        weight_bits=2,
        activation_bits=activation_bits,
        calibration=calibration,
        finetune_lr=0.3,  # wild: the last epoch is not the best
        finetune_epochs=6,
        validation_fraction=0.3,
        random_state=0,
    ).fit(X, y, sensitive_features=groups)
    assert clf.best_epoch_ < 6
    shorter = clone(clf).set_params(finetune_epochs=clf.best_epoch_).fit(X, y, sensitive_features=groups)
    np.testing.assert_array_equal(weights_of(clf), weights_of(shorter))
    np.testing.assert_array_equal(clf.predict_proba(X), shorter.predict_proba(X))


def test_the_float_net_stays_as_it_was(problem, frozen):
    X, y, groups = problem
    before = copy.deepcopy(frozen.estimator.module_.state_dict())
    epochs = len(frozen.estimator.history)
    clf = FairQATClassifier(frozen, sampling="balanced", gap_penalty=1.0, activation_bits=4)
    clf.fit(X, codes(y), sensitive_features=groups)
    for net in (frozen.estimator, clf.estimator_):
        for name, value in net.module_.state_dict().items():
            assert torch.equal(value, before[name])
        assert len(net.history) == epochs
        assert not net.module_._forward_pre_hooks
        assert not any(m._forward_pre_hooks for m in net.module_.modules())
        assert not any("tuning_" in name or "sampler" in name for name in vars(net))
    assert len(clf.history_) == 5
    assert not any(m._forward_pre_hooks for m in clf.latent_module_.modules())
    assert all(p.grad is None for p in clf.latent_module_.parameters())


def scored(net, X, y):
    return net.score(X, y)


def test_callbacks_and_the_split_of_the_net_see_the_quantized_net(problem):
    X, y, _ = problem
    scoring = EpochScoring(scored, name="by_predict", use_caching=False, lower_is_better=False)
    net = make_classifier(
        module__hidden_sizes=(8,),
        max_epochs=2,
        train_split=ValidSplit(4),
        callbacks=[("by_predict", scoring), ("lr", LRScheduler("StepLR", step_size=1, gamma=0.5))],
    )
    clf = FairQATClassifier(
        net, weight_bits=2, finetune_epochs=3, finetune_lr=0.001, random_state=0
    ).fit(X, y)
    history = clf.history_
    # both validate on the same rows with the quantized weights: one through skorch's cache, one not
    np.testing.assert_allclose(history[:, "valid_acc"], history[:, "by_predict"])
    np.testing.assert_allclose(history[:, "event_lr"], [0.001, 0.0005, 0.00025])


def test_early_stopping_ends_the_fine_tuning_and_may_restore_the_best(problem):
    X, y, _ = problem
    stop = EarlyStopping(monitor="valid_loss", patience=2, load_best=True)
    net = small(callbacks=[stop, CONSTANT], train_split=ValidSplit(4), max_epochs=2)
    clf = FairQATClassifier(net, weight_bits=2, finetune_epochs=30, finetune_lr=0.5, random_state=0).fit(
        X, y
    )
    assert len(clf.history_) < 30
    best = int(np.argmin(clf.history_[:, "valid_loss"])) + 1
    shorter = clone(clf).set_params(finetune_epochs=best).fit(X, y)
    np.testing.assert_array_equal(weights_of(clf), weights_of(shorter))


def test_a_callback_that_sets_sizes_does_not_lose_the_weights(problem):
    X, y, _ = problem
    net = skorch_net(module=Resized, callbacks=[Sizes()], max_epochs=8, lr=0.3)
    clf = FairQATClassifier(net, weight_bits=8, finetune_epochs=1, finetune_lr=1e-6, random_state=0).fit(
        X, y
    )
    for tuned, trained in zip(
        clf.latent_module_.parameters(), clf.estimator_.module_.parameters(), strict=True
    ):
        torch.testing.assert_close(tuned, trained, atol=1e-3, rtol=0)


def test_learning_rates_keep_their_ratios(problem):
    X, y, _ = problem
    rates = []

    class Rates(Callback):
        def on_epoch_begin(self, net, **kwargs):
            rates.append([(g["lr"], g["weight_decay"]) for g in net.optimizer_.param_groups])

    net = small(
        lr=0.02,
        callbacks=[Rates()],
        optimizer__weight_decay=0.1,
        optimizer__param_groups=[("hidden0*", {"lr": 0.04})],
    )
    clf = FairQATClassifier(net, calibration="learned", random_state=0).fit(X, y)
    expected = [(0.04, 0.1), (0.02, 0.1)]
    assert sorted(rates[0]) == sorted(expected)
    ratio = LEARNING_RATE_RATIO
    expected = [(0.02 * ratio, 0.0), (0.02 * ratio, 0.1), (0.04 * ratio, 0.1)]
    np.testing.assert_allclose(sorted(rates[3]), expected)
    rates.clear()
    clf.set_params(finetune_lr=0.004).fit(X, y)
    np.testing.assert_allclose(sorted(rates[3])[:2], [(0.004, 0.0), (0.004, 0.1)])


@pytest.mark.parametrize("calibration", ["mse", "learned"])
def test_divergence_says_when_and_keeps_the_float_net(problem, calibration):
    X, y, _ = problem
    clf = FairQATClassifier(small(), finetune_lr=1e-3, calibration=calibration, random_state=0).fit(X, y)

    class Poison(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 2 and net.max_epochs == 5:
                net.module_.output.weight.data[:] = np.nan

    clf.set_params(estimator=small(callbacks=[Poison()]))
    with pytest.raises(DivergedTrainingError, match=r"loss is nan in epoch 2.*finetune_lr.*estimator_"):
        clf.fit(X, y)
    assert not hasattr(clf, "module_")
    assert clf.estimator_.score(X, codes(y)) > 0.4
    with pytest.raises(Exception, match="not fitted"):
        clf.predict(X)
    assert clf.set_params(estimator=small()).fit(X, y).predict(X).shape == y.shape


def test_accuracy_bound_holds_back_the_group_that_loses(problem):
    X, y, groups = problem
    net = small(max_epochs=15, module__hidden_sizes=(16,))
    options = {"weight_bits": 2, "finetune_epochs": 8, "finetune_lr": 0.01, "random_state": 0}
    clf = FairQATClassifier(net, accuracy_bound=0.1, **options)
    clf.fit(X, y, sensitive_features=groups)
    report = clf.accuracy_bound_
    assert list(report.index) == ["a", "b", "c"]
    for g in "abc":
        rows = groups == g
        assert report.loc[g, "accuracy"] == pytest.approx(np.mean(clf.predict(X)[rows] == y[rows]))
        own = np.mean(clf.estimator_.predict(X)[rows] == codes(y)[rows])
        assert report.loc[g, "float_accuracy"] == pytest.approx(own)
    assert (report["drop"] <= 0.1).all()
    clf.set_params(accuracy_bound=0.0, finetune_epochs=1, finetune_lr=1.0)
    with pytest.warns(AccuracyBoundWarning, match="not kept on the training data by"):
        clf.fit(X, y, sensitive_features=groups)


def test_warnings_of_balancing(problem):
    X, y, groups = problem
    alone = groups.copy()
    alone[0] = "z"
    clf = FairQATClassifier(small(), finetune_epochs=1, random_state=0)
    with pytest.warns(SmallCellWarning, match="cells \\['z'\\] have a single sample"):
        clf.set_params(sampling="balanced").fit(X, y, sensitive_features=alone)
    with pytest.warns(CompoundedMitigationWarning, match="see cell_weights_"):
        clf.set_params(mitigation_weight=1.0).fit(X, y, sensitive_features=groups)
    weights = clf.cell_weights_["effective_weight"]
    assert weights["c"] / weights["a"] > 5 * weights["b"] / weights["a"] / 4


def test_cell_weights_report_what_is_done(problem):
    X, y, groups = problem
    clf = FairQATClassifier(small(), finetune_epochs=0, mitigation_weight=1.0, random_state=0)
    clf.fit(X, y, sensitive_features=groups)
    cells = make_cells("group", codes(y), np.arange(3), None)
    assert list(cells.index) == ["all"]
    counts = np.array([np.sum(groups == g) for g in "abc"])
    np.testing.assert_array_equal(clf.cell_weights_["count"], counts)
    np.testing.assert_allclose(clf.cell_weights_["loss_weight"] * counts, 400 / 3)
    assert clf.fit(X, y, sensitive_features=groups).set_params(mitigation_weight=0.0).fit(
        X, y
    ).cell_weights_.index.tolist() == ["all"]
    assert balancing_weights(cells, 1.0).tolist() == [1.0] * 400


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.attention = nn.LSTM(2, 8, batch_first=True), nn.MultiheadAttention(8, 2)
        self.shared, self.out = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        hidden, _ = self.rnn(x.view(len(x), 3, 2))
        hidden = hidden.transpose(0, 1)
        hidden, _ = self.attention(hidden, hidden, hidden)
        hidden = torch.relu(self.shared(torch.relu(self.shared(hidden[-1]))))
        return self.out(hidden)


@pytest.mark.parametrize("calibration", ["mse", "learned"])
def test_recurrent_attention_shared_and_functional(problem, calibration):
    X, y, groups = problem
    net = make_classifier(Recurrent, max_epochs=2)
    clf = FairQATClassifier(
        net, weight_bits=3, activation_bits=6, calibration=calibration, finetune_epochs=3, random_state=0
    )
    clf.fit(X, y, sensitive_features=groups)
    assert len(clf.layer_bits_) == 6
    moved = [
        not torch.equal(a, b)
        for a, b in zip(
            clf.latent_module_.parameters(), clf.estimator_.module_.parameters(), strict=True
        )
    ]
    assert all(moved)
    assert clf.score(X, y) > 0.3


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": torch.optim.LBFGS, "lr": 0.1},
        {"criterion__weight": torch.tensor([1.0, 2.0, 3.0])},
        {"criterion__reduction": "sum", "lr": 1e-4},
        {"batch_size": -1},
        {"iterator_train__drop_last": True},
        {"callbacks": "disable"},
    ],
)
@pytest.mark.parametrize("calibration", ["mse", "learned"])
def test_nets_of_many_kinds(problem, options, calibration):
    X, y, groups = problem
    clf = FairQATClassifier(
        skorch_net(**options), calibration=calibration, activation_bits=6, sampling="balanced"
    )
    clf.set_params(gap_penalty=0.5, finetune_epochs=2, random_state=0)
    assert clf.fit(X, y, sensitive_features=groups).predict(X).shape == y.shape
    assert len(clf.history_) == 2


def test_control_without_quantization(problem):
    X, y, groups = problem
    clf = FairQATClassifier(small(), weight_bits=None, sampling="balanced", random_state=0)
    clf.fit(X, y, sensitive_features=groups)
    assert set(clf.layer_bits_.values()) == {32}
    for a, b in zip(clf.module_.parameters(), clf.latent_module_.parameters(), strict=True):
        assert torch.equal(a, b)


def test_any_module_instance(problem):
    X, y, _ = problem
    module = MLP(6, 3, hidden_sizes=(4,))
    before = [p.detach().clone() for p in module.parameters()]
    FairQATClassifier(make_classifier(module, max_epochs=1), random_state=0).fit(X, y)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "mse"])
def test_scales_are_those_of_the_weights_at_the_start_of_the_epoch(problem, calibration):
    X, y, _ = problem
    options = {"weight_bits": 4, "activation_bits": 5, "random_state": 0}
    clf = FairQATClassifier(small(), calibration=calibration, finetune_epochs=1, **options).fit(X, y)
    for name, weight in clf.quantized_weights_.items():
        rows = rows_of(clf.estimator_.module_.get_parameter(name).detach().numpy(), 0)
        expected = [numpy_clip(row, calibration, 7) / np.float32(7) for row in rows]
        np.testing.assert_allclose(weight.scale.numpy().ravel(), expected, rtol=2e-6)
    at_rest = QuantizedClassifier(small(), calibration=calibration, **options).fit(X, y)
    for found, hook in zip(*(input_quantizers(c.module_).values() for c in (clf, at_rest)), strict=True):
        assert found.scale == hook.scale
