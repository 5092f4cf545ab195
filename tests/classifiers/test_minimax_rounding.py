"""calibration_groups="minimax": the group whose loss rises most weighs more in the rounding."""

import numpy as np
import pytest
import torch
from saving import same, saved
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV

from skqfair import QuantizedClassifier
from skqfair.networks import make_classifier
from skqfair.quantization import compensate_rounding


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32)[:1000] / 16
    rare = (y[:1000] < 8) | (np.arange(1000) % 4 == 0)
    return X[rare], y[:1000][rare]


@pytest.fixture(scope="module")
def net(digits):
    torch.manual_seed(0)
    return make_classifier(module__hidden_sizes=(24, 24), max_epochs=20).fit(*digits)


def classifier(net, groups="minimax", **options):
    return QuantizedClassifier(
        FrozenEstimator(net),
        **{
            "weight_bits": 2,
            "rounding": "least_squares",
            "calibration_groups": groups,
            "calibration_size": 400,
            "random_state": 0,
            **options,
        },
    )


def worst_increase(clf, X, y):
    """The loss increase of the worst class on the calibration sample, drawn here again."""
    rng, rows = np.random.default_rng(0), []
    for label in range(10):
        members = np.flatnonzero(y == label)
        rows.append(rng.choice(members, 40, replace=len(members) < 40))
    increases = []
    for members in rows:
        losses = [
            -log_softmax(c.decision_function(X[members]), axis=1)[np.arange(40), y[members]].mean()
            for c in (clf, clf.float_classifier_)
        ]
        increases.append(losses[0] - losses[1])
    return max(increases)


@pytest.mark.parametrize("rounding", ["gptq", "least_squares"])
def test_worst_group_loses_less(net, digits, rounding):
    X, y = digits
    balanced, minimax = (
        worst_increase(classifier(net, groups, rounding=rounding).fit(X, y, sensitive_features=y), X, y)
        for groups in ("balanced", "minimax")
    )
    assert minimax < 0.8 * balanced, (minimax, balanced)


def test_weight_rises_where_the_loss_does(net, digits, monkeypatch):
    """The weights of all rounds against the formula, from what each round's network loses."""
    X, y = digits
    weights, rounds = [], []

    def spy(quantized, original, runs, **options):
        weights.append([w for w, _ in runs])
        done = compensate_rounding(quantized, original, runs, **options)
        increase = []
        for _, run in runs:
            members = run.args[0]
            labels = torch.as_tensor([y[np.flatnonzero((row == X).all(1))[0]] for row in members])
            with torch.no_grad():
                after, before = (
                    torch.nn.functional.cross_entropy(m(torch.as_tensor(members)).double(), labels)
                    for m in (done.module, original)
                )
            increase.append(float(after - before))
        rounds.append((np.array(increase), done.module))
        return done

    monkeypatch.setattr("skqfair.classifiers._rounding.compensate_rounding", spy)
    clf = classifier(net).fit(X, y, sensitive_features=y % 3)
    expected = np.ones(3)
    for found, (increase, _) in zip(weights, rounds, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        lead = increase - increase.mean()
        expected = expected * np.exp(0.5 * lead / np.abs(lead).max())
        expected *= 3 / expected.sum()
    assert len(rounds) == 5
    best = min(rounds, key=lambda r: r[0].max())[1]
    assert torch.equal(best.hidden0.weight, clf.module_.hidden0.weight)


def test_one_group_is_as_balanced(net, digits):
    X, y = digits
    found = [
        classifier(net, groups).fit(X, y, sensitive_features=np.zeros(len(y))).decision_function(X)
        for groups in ("balanced", "minimax")
    ]
    assert np.array_equal(*found)


def test_is_repeatable_saved_and_cloned(net, digits):
    X, y = digits
    clf = classifier(net, activation_bits=8, bias_correction=True, rounding="gptq")
    clf.fit(X, y, sensitive_features=y % 3)
    again = clone(clf).fit(X, y, sensitive_features=y % 3)
    loaded = saved(clf, QuantizedClassifier)
    same(loaded.quantized_weights_, again.quantized_weights_)
    assert np.array_equal(loaded.decision_function(X), again.decision_function(X))


def test_search_trains_each_fold_once(digits, tmp_path):
    X, y = digits
    net = make_classifier(module__hidden_sizes=(8,), max_epochs=2)
    clf = QuantizedClassifier(
        net, weight_bits=2, rounding="least_squares", random_state=0, memory=str(tmp_path)
    )
    grid = {"calibration_groups": ["proportional", "balanced", "minimax"]}
    search = GridSearchCV(clf, grid, cv=2, error_score="raise").fit(X, y, sensitive_features=y % 3)
    assert len(list(tmp_path.rglob("*.pkl"))) == 3  # two folds, and all
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_without_groups(net, digits):
    X, y = digits
    with pytest.raises(ValueError, match=r"minimax.*sensitive_features is None; pass fit\(X, y, sens"):
        classifier(net).fit(X, y)
    balanced, proportional = (classifier(net, g).fit(X, y) for g in ("balanced", "proportional"))
    assert np.array_equal(balanced.decision_function(X), proportional.decision_function(X))


def test_nearest_is_refused(net, digits):
    X, y = digits
    with pytest.raises(ValueError, match=r"rounding='nearest' looks at no sample; set rounding='least"):
        classifier(net, rounding="nearest").fit(X, y, sensitive_features=y)
    clf = classifier(net, rounding="nearest", bias_correction=True)
    moved = clf.fit(X, y, sensitive_features=y).module_.hidden0.bias
    plain = clf.set_params(calibration_groups="balanced").fit(X, y, sensitive_features=y).module_
    assert not torch.equal(moved, plain.hidden0.bias)
