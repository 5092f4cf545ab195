"""Soft labels in the fine-tuning: their gradient by hand, who teaches, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from nets import WithSoftmax, counting, skorch_net, small
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from torch import nn

from skqfair import FairQATClassifier, QuantizedClassifier
from skqfair.networks import Distillation, TorchClassifier

OPTIONS = {"weight_bits": 3, "finetune_epochs": 2, "random_state": 0}


def latent(clf):
    return np.concatenate([p.detach().numpy().ravel() for p in clf.latent_module_.parameters()])


def fit(problem, net=None, **options):
    X, y, groups = problem
    clf = FairQATClassifier(small() if net is None else net, **{**OPTIONS, **options})
    return clf.fit(X, y, sensitive_features=groups)


def soft_loss(z, teacher, y, alpha, temperature):
    """The loss of one sample, from logits and the teacher's probabilities, in floats."""
    q = [p ** (1 / temperature) for p in teacher]
    q = [v / sum(q) for v in q]
    log_p = log_softmax(z / temperature)
    kl = sum(v * (np.log(v) - log_p[c]) for c, v in enumerate(q))
    return -(1 - alpha) * log_softmax(z)[y] + alpha * temperature**2 * kl


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("alpha", "temperature"), [(0.9, 2.0), (0.3, 1.0), (1.0, 4.0)])
def test_loss_and_gradient_are_those_by_hand(alpha, temperature, known):
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(5, 3)), rng.integers(3, size=5)
    teacher = softmax(rng.normal(size=(5, 3)), axis=1)
    logs = torch.as_tensor(np.log(teacher))
    soft = Distillation(alpha, temperature, lambda X: logs, logs if known else None)
    outputs = torch.tensor(z, requires_grad=True)
    hard = nn.functional.cross_entropy(outputs, torch.as_tensor(y), reduction="none")
    batch = {"X": outputs, "teacher": soft.targets} if known else outputs
    losses = soft.mixed(hard, outputs, batch, 1)
    wanted = [soft_loss(z[i], teacher[i], y[i], alpha, temperature) for i in range(5)]
    np.testing.assert_allclose(losses.detach(), wanted, rtol=1e-5)
    losses.sum().backward()
    slopes = np.empty_like(z)
    for i, c in np.ndindex(*z.shape):
        ends = []
        for step in (1e-5, -1e-5):
            moved = z[i].copy()
            moved[c] += step
            ends.append(soft_loss(moved, teacher[i], y[i], alpha, temperature))
        slopes[i, c] = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(outputs.grad, slopes, atol=1e-6)
    by_formula = (1 - alpha) * (softmax(z, 1) - np.eye(3)[y])
    q = softmax(np.log(teacher) / temperature, 1)
    by_formula += alpha * temperature * (softmax(z / temperature, 1) - q)
    np.testing.assert_allclose(outputs.grad, by_formula, atol=1e-6)


def test_probabilities_are_taken_to_logits():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logs = torch.log_softmax(logits.flip(0), 1)
    options = (torch.zeros(4), {"teacher": Distillation(1, 2.0, None, logs).targets}, 1)
    by_logits = Distillation(1, 2.0, None, logs).mixed(options[0], logits, *options[1:])
    by_probabilities = Distillation(1, 2.0, None, logs, returns_logits=False)
    found = by_probabilities.mixed(options[0], logits.softmax(1), *options[1:])
    torch.testing.assert_close(found, by_logits)


@pytest.mark.parametrize("net", [None, skorch_net()])
def test_no_distillation_is_as_before_bit_for_bit(problem, net):
    before = fit(problem, net)
    other = fit(problem, net, temperature=7.0, teacher=frozen(problem))
    np.testing.assert_array_equal(latent(before), latent(other))
    assert (latent(fit(problem, net, distillation=0.5)) != latent(before)).any()


def test_a_step_of_the_training_is_the_step_by_hand(problem):
    """One full batch of SGD in float: the weights move by the gradient of the mixed loss."""
    X, y, groups = problem
    options = {"optimizer": torch.optim.SGD, "batch_size": -1, "max_epochs": 1, "lr": 0.1}
    weight = np.random.default_rng(0).uniform(0.2, 2, 400)
    clf = FairQATClassifier(
        small(**options),
        weight_bits=None,
        finetune_epochs=1,
        finetune_lr=0.5,
        distillation=0.7,
        temperature=3.0,
        mitigation_weight=1.0,
        gap_penalty=0.2,
        random_state=0,
    ).fit(X, y, sensitive_features=groups, sample_weight=weight)
    module = clf.estimator_.module_
    module.zero_grad()  # that of the float training
    logits = module(torch.as_tensor(X))
    labels = torch.as_tensor(clf.classes_.searchsorted(y))
    hard = nn.functional.cross_entropy(logits, labels, reduction="none")
    q = (logits.detach() / 3).softmax(1)
    soft = (q * (q.log() - (logits / 3).log_softmax(1))).sum(1)
    w = weight.copy()
    for g in "abc":
        w[groups == g] *= weight.sum() / 3 / weight[groups == g].sum()
    means = torch.stack([hard[torch.as_tensor(groups == g)].mean() for g in "abc"])
    loss = ((0.3 * hard + 0.7 * 9 * soft) * torch.as_tensor(w / w.mean())).mean()
    (loss + 0.2 * (means.max() - means.min())).backward()
    for before, after in zip(module.parameters(), clf.latent_module_.parameters(), strict=True):
        torch.testing.assert_close(after, before - 0.5 * before.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"sampling": "balanced"},
        {"sampling": "undersample", "calibration": "learned"},
        {"gap_penalty": 0.5},
        {"accuracy_bound": 0.2},
        {"validation_fraction": 0.2, "mitigation_weight": 0.5, "activation_bits": 8},
    ],
    ids=str,
)
def test_with_every_mitigation(problem, options):
    soft, plain = (fit(problem, distillation=a, **options) for a in (0.9, 0.0))
    assert (latent(soft) != latent(plain)).any()
    again = fit(problem, distillation=0.9, **options)
    np.testing.assert_array_equal(latent(soft), latent(again))


@pytest.mark.parametrize("kind", [NeuralNetClassifier])
def test_nets_that_return_probabilities_and_class_weights(problem, kind):
    for net in (
        skorch_net(kind, module=WithSoftmax, criterion=nn.NLLLoss),
        skorch_net(kind, criterion__weight=torch.tensor([1.0, 2.0, 0.5])),
        skorch_net(kind, criterion__label_smoothing=0.1),
    ):
        clf = fit(problem, net, distillation=1.0)
        assert np.isfinite(latent(clf)).all()
        assert (latent(clf) != latent(fit(problem, net))).any()


def frozen(problem, **options):
    X, y, _ = problem
    return FrozenEstimator(LogisticRegression(**options).fit(X, y))


def test_a_student_comes_closer_to_its_teacher(problem):
    X, y, _ = problem
    teacher = FrozenEstimator(LogisticRegression().fit(X, (np.roll(y, 1))))  # it teaches nonsense
    options = {"teacher": teacher, "finetune_epochs": 30, "finetune_lr": 0.02}
    taught = [fit(problem, distillation=a, **options).predict_proba(X) for a in (0.0, 0.5, 1.0)]
    distance = [np.abs(p - teacher.predict_proba(X)).max(1) for p in taught]
    assert distance[0].mean() > 2 * distance[1].mean() > 2 * distance[2].mean()


def test_several_teach_the_mean_of_their_probabilities(problem):
    X, y, _ = problem
    one, two = frozen(problem), frozen(problem, C=1e-3)

    class Mean(LogisticRegression):
        def predict_proba(self, X):
            return (one.predict_proba(X) + two.predict_proba(X)) / 2

    both = FrozenEstimator(Mean().fit(X, y))
    by_list = fit(problem, distillation=0.8, teacher=[one, two])
    by_mean = fit(problem, distillation=0.8, teacher=both)
    np.testing.assert_allclose(latent(by_list), latent(by_mean), atol=1e-6)
    assert clone(by_list).teacher[0].estimator is one.estimator


def test_teachers_of_any_kind_and_order_of_classes(problem):
    X, y, _ = problem
    own = QuantizedClassifier(small(), weight_bits=None, random_state=0).fit(X, y)
    by_net = fit(problem, distillation=0.8, teacher=FrozenEstimator(own))
    by_itself = fit(problem, distillation=0.8)
    np.testing.assert_allclose(latent(by_net), latent(by_itself), atol=1e-4)

    class Reversed(LogisticRegression):
        def predict_proba(self, X):
            return super().predict_proba(X)[:, ::-1]

    turned = Reversed().fit(X, y)
    wanted = fit(problem, distillation=0.8, teacher=frozen(problem))
    turned.classes_ = turned.classes_[::-1]
    found = fit(problem, distillation=0.8, teacher=FrozenEstimator(turned))
    np.testing.assert_array_equal(latent(found), latent(wanted))


def test_a_skorch_net_teaches(problem):
    X, y, _ = problem
    codes = np.unique(y, return_inverse=True)[1]
    net = small().fit(X, codes)
    clf = FairQATClassifier(small(), distillation=0.5, teacher=FrozenEstimator(net), random_state=0)
    state = torch.get_rng_state()
    assert (clf.fit(X, codes).predict(X) == codes).mean() > 0.5
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("frozen_too", [False, True])
def test_plain_torch_modules_teach(problem, tmp_path, frozen_too):
    """The same as a classifier that returns the softmax of their outputs; nothing of them changes."""
    X, y, _ = problem
    modules = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        modules.append(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).eval())
    labels = np.unique(y)

    def probabilities(module):
        with torch.no_grad():
            return softmax(module(torch.as_tensor(X)).double().numpy(), 1)

    class Table(LogisticRegression):
        def predict_proba(self, X):
            return self.table[: len(X)]

    def table(values):
        fitted = Table().fit(X, y)
        fitted.table = values
        return FrozenEstimator(fitted)

    before = [p.detach().clone() for module in modules for p in module.parameters()]
    teachers = [TorchClassifier(module, classes=labels) for module in modules]
    given = [FrozenEstimator(teacher) for teacher in teachers] if frozen_too else teachers
    one = fit(problem, distillation=0.8, teacher=given[0], memory=str(tmp_path))
    both = fit(problem, distillation=0.8, teacher=given)
    by_table = fit(problem, distillation=0.8, teacher=table(probabilities(modules[0])))
    by_mean = np.mean([probabilities(module) for module in modules], 0)
    np.testing.assert_allclose(latent(one), latent(by_table), atol=1e-4)
    np.testing.assert_allclose(
        latent(both), latent(fit(problem, distillation=0.8, teacher=table(by_mean))), atol=1e-4
    )
    after = [p for module in modules for p in module.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert clone(one).fit(X, y).predict(X).shape == (400,)
    codes = np.unique(y, return_inverse=True)[1]
    by_codes = FairQATClassifier(
        small(), distillation=0.8, teacher=TorchClassifier(modules[0]), **OPTIONS
    )
    np.testing.assert_array_equal(latent(by_codes.fit(X, codes)), latent(clone(one).fit(X, y)))


def test_a_teacher_of_frames_gets_frames(problem):
    X, y, _ = problem
    frame = pd.DataFrame(X, columns=[*"abcdef"])
    teacher = FrozenEstimator(LogisticRegression().fit(frame, y))
    clf = FairQATClassifier(small(), distillation=0.5, teacher=teacher, **OPTIONS).fit(frame, y)
    plain = FairQATClassifier(small(), distillation=0.5, teacher=frozen(problem), **OPTIONS).fit(X, y)
    np.testing.assert_allclose(latent(clf), latent(plain), atol=1e-4)


asked = []


class Asked(LogisticRegression):
    """Notes what it is asked about."""

    def predict_proba(self, X):
        asked.append(np.array(X))
        return super().predict_proba(X)


def test_augmented_batches_are_shown_to_the_teacher(problem):
    X, y, _ = problem
    asked.clear()
    net = small(augment=lambda batch: batch + torch.randn_like(batch))
    clf = fit(problem, net, distillation=0.5, teacher=FrozenEstimator(Asked().fit(X, y)))
    assert [len(rows) for rows in asked] == [2] + 2 * [128, 128, 128, 16]
    known = {row.tobytes() for row in X}
    assert not any(row.tobytes() in known for rows in asked[1:] for row in rows)
    assert (latent(fit(problem, net, distillation=0.5)) != latent(clf)).any()


def test_without_augmentation_the_teacher_is_asked_once(problem, tmp_path):
    X, y, _ = problem
    asked.clear()
    net, n_trainings = counting(tmp_path / "log")
    options = {"teacher": FrozenEstimator(Asked().fit(X, y)), "distillation": 0.5}
    plain = fit(problem, net, **options)
    assert [len(rows) for rows in asked] == [400]
    stored = fit(problem, net, memory=tmp_path / "cache", **options)
    again = fit(problem, net, memory=tmp_path / "cache", temperature=3.0, **options)
    found = fit(problem, net, memory=tmp_path / "cache", **options)
    assert len(asked) == 2
    assert n_trainings() == 2
    np.testing.assert_array_equal(latent(plain), latent(stored))
    np.testing.assert_array_equal(latent(stored), latent(found))
    assert (latent(again) != latent(found)).any()
    options["teacher"] = FrozenEstimator(Asked(C=0.1).fit(X, y))
    fit(problem, net, memory=tmp_path / "cache", **options)
    assert len(asked) == 3


def test_in_a_search(problem):
    X, y, _ = problem
    clf = FairQATClassifier(small(max_epochs=1), teacher=[frozen(problem)], finetune_epochs=1)
    clf.set_params(random_state=0)
    search = GridSearchCV(clf, {"distillation": [0.0, 0.9]}, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["mean_test_score"]) == 2


class OwnLoss(NeuralNetClassifier):
    """Has a loss of its own, without get_loss."""

    def train_step_single(self, batch, **fit_params):
        X, y = batch
        loss = nn.functional.cross_entropy(self.infer(X), y)
        loss.backward()
        return {"loss": loss, "y_pred": None}


def test_bad_input(problem):
    X, y, _ = problem
    few = y != "low"
    codes = LogisticRegression().fit(X, np.unique(y, return_inverse=True)[1])
    for match, teacher in (
        (r"got LogisticRegression; wrap it, FrozenEstimator\(teacher\): clone", LogisticRegression()),
        (r"a list of them, got LogisticRegression", [frozen(problem), LogisticRegression().fit(X, y)]),
        ("teacher is an empty list", []),
        ("classes of y, .*LogisticRegression has .*0.*1.*2", FrozenEstimator(codes)),
        ("must have the classes", FrozenEstimator(LogisticRegression().fit(X[few], y[few]))),
        ("which SGDClassifier has not", FrozenEstimator(SGDClassifier().fit(X, y))),
        (r"fails on samples of shape \(6,\)", FrozenEstimator(LogisticRegression().fit(X[:, :3], y))),
    ):
        with pytest.raises(ValueError, match=match):
            fit(problem, distillation=0.5, teacher=teacher)
    with pytest.raises(NotFittedError, match="is not fitted; fit it before it is frozen"):
        fit(problem, distillation=0.5, teacher=FrozenEstimator(LogisticRegression()))
    for options in ({"distillation": 1.1}, {"distillation": -0.1}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match=f"The '{next(iter(options))}' parameter"):
            fit(problem, **options)
    with pytest.raises(ValueError, match=r"distillation=0\.5 had no effect: OwnLoss computes its loss"):
        fit(problem, skorch_net(OwnLoss), distillation=0.5)
