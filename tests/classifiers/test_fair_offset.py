"""Class offsets around any classifier: out of fold or on given samples, folded, saved, refused."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from nets import WithSoftmax, skorch_net, small
from saving import same, saved
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import (
    GridSearchCV,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_predict,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skqfair import (
    FairOffsetClassifier,
    FairQATClassifier,
    PrunedClassifier,
    QuantizedClassifier,
    make_fairness_scorer,
)
from skqfair.displays import OffsetFrontierDisplay
from skqfair.exceptions import LimitedOffsetsWarning, TrainingSamplesWarning
from skqfair.mitigation import STRENGTHS, class_offsets

X, Y = load_digits(return_X_y=True)
FIT_X, NEW_X, FIT_Y, NEW_Y = train_test_split(X, Y, random_state=0, stratify=Y)
WEAK = LogisticRegression(C=1e-4, max_iter=500)  # classes are learned unequally well


def figures(y, predicted, groups):
    each = [np.mean(predicted[groups == g] == y[groups == g]) for g in np.unique(groups)]
    return np.mean(predicted == y), max(each) - min(each), min(each)


@pytest.fixture(scope="module")
def fitted():
    return FairOffsetClassifier(WEAK, max_accuracy_drop=0.01, random_state=0).fit(FIT_X, FIT_Y)


@pytest.mark.parametrize("metric", ["fvo", "worst_group"])
@pytest.mark.parametrize("drop", [0.0, 0.01, 0.05])
def test_strength_is_that_of_a_scan_of_out_of_fold_predictions(metric, drop):
    options = {"max_accuracy_drop": drop, "metric": metric, "random_state": 3}
    clf = FairOffsetClassifier(WEAK, **options).fit(FIT_X, FIT_Y)
    folds = StratifiedKFold(5, shuffle=True, random_state=3)
    p = cross_val_predict(WEAK, FIT_X, FIT_Y, cv=folds, method="predict_proba")
    b, floor, best = class_offsets(p, FIT_Y, FIT_Y), None, None
    for t in STRENGTHS:
        accuracy, fvo, worst = figures(FIT_Y, (np.log(p) + t * b).argmax(1), FIT_Y)
        floor = accuracy - drop if floor is None else floor
        gain = worst if metric == "worst_group" else -fvo
        if accuracy >= floor - 1e-12 and (best is None or gain > best[0]):
            best = gain, t
    assert clf.strength_ == best[1]
    np.testing.assert_allclose(clf.offsets_, best[1] * b, atol=1e-9)
    assert clf.strength_ > 0


def test_with_confidence_the_bound_of_the_paired_drop_is_within_the_allowed():
    weak = LogisticRegression(C=1e-4, max_iter=500).fit(FIT_X[:400], FIT_Y[:400])
    rows = FIT_X[400:], FIT_Y[400:]
    before = weak.predict(rows[0]) == rows[1]
    strengths = []
    for confidence, z in ((None, 0.0), (0.8, 0.8416), (0.95, 1.6449)):
        clf = FairOffsetClassifier(FrozenEstimator(weak), max_accuracy_drop=0.002)
        clf.set_params(confidence=confidence, random_state=0).fit(*rows, sensitive_features=rows[1])
        lost = before.astype(float) - (clf.predict(rows[0]) == rows[1])
        assert lost.mean() + z * lost.std() / len(lost) ** 0.5 <= 0.002 + 1e-6
        strengths.append(clf.strength_)
    assert strengths[0] >= strengths[1] >= strengths[2]
    assert strengths[0] > strengths[2]


def test_the_estimator_is_fitted_to_all_and_its_probabilities_are_shifted(fitted):
    plain = WEAK.fit(FIT_X, FIT_Y).predict_proba(NEW_X)
    np.testing.assert_allclose(fitted.estimator_.predict_proba(NEW_X), plain)
    wanted = plain * np.exp(fitted.offsets_)
    wanted /= wanted.sum(1, keepdims=True)
    np.testing.assert_allclose(fitted.predict_proba(NEW_X), wanted)
    np.testing.assert_array_equal(fitted.predict(NEW_X), wanted.argmax(1))
    np.testing.assert_allclose(softmax(fitted.decision_function(NEW_X), axis=1), wanted)


def test_frontier_and_moved_errors_are_those_of_predictions(fitted):
    frozen = FrozenEstimator(WEAK.fit(FIT_X, FIT_Y))
    clf = FairOffsetClassifier(frozen, max_accuracy_drop=0.01, random_state=0).fit(NEW_X, NEW_Y)
    p, b = frozen.predict_proba(NEW_X), clf.offsets_ / clf.strength_
    for _, row in clf.frontier_.iloc[::20].iterrows():
        predicted = (np.log(p) + row["strength"] * b).argmax(1)
        wanted = figures(NEW_Y, predicted, NEW_Y)
        assert (row["accuracy"], row["fvo"], row["worst_accuracy"]) == pytest.approx(wanted)
    before, after = p.argmax(1), clf.predict(NEW_X)
    for digit, row in clf.moved_.iterrows():
        mine = digit == NEW_Y
        assert row["count"] == mine.sum()
        assert row["wrong_before"] == (before[mine] != digit).sum()
        assert row["wrong_after"] == (after[mine] != digit).sum()
        assert row["lost"] - row["gained"] == row["wrong_after"] - row["wrong_before"]
    pd.testing.assert_frame_equal(clf.moved_, clf.moved_classes_)
    assert OffsetFrontierDisplay.from_estimator(clf).strength == clf.strength_


def test_other_groups_get_a_warning_with_figures(problem):
    X, y, groups = problem
    with pytest.warns(
        LimitedOffsetsWarning, match=r"not the classes.*FVO from 0\.\d+ to .*chance alone"
    ):
        clf = FairOffsetClassifier(LogisticRegression(), random_state=0).fit(
            pd.DataFrame(X).assign(g=pd.factorize(groups)[0]).set_axis([*"abcdefg"], axis=1),
            pd.Series(y),
            sensitive_features="g",
        )
    assert clf.moved_.index.name == "g"
    assert clf.moved_classes_.index.tolist() == ["high", "low", "mid"]
    assert clf.feature_names_in_.tolist() == [*"abcdefg"]
    assert set(clf.predict(pd.DataFrame(X).assign(g=0).set_axis([*"abcdefg"], axis=1))) <= {*y}


class Margins(ClassifierMixin, BaseEstimator):
    """Its X are the log odds of the second class."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return softmax(np.column_stack([0 * X[:, 0], X[:, 0]]), axis=1)


def test_no_better_offsets_within_the_drop_keep_none():
    """Every shift to the second class costs five of the first for each that it wins."""
    X = np.concatenate([np.linspace(-2, -0.005, 200), np.linspace(-1, 1, 40)])[:, None]
    y = np.repeat(["a", "b"], [200, 40])
    frozen = FrozenEstimator(Margins().fit(X, y))
    with pytest.warns(
        LimitedOffsetsWarning,
        match=r"max_accuracy_drop=0 are better than none.* FVO 0\.500, worst group 0\.500.* for 0\.\d+",
    ):
        clf = FairOffsetClassifier(frozen, max_accuracy_drop=0).fit(X, y)
    assert clf.strength_ == 0
    np.testing.assert_allclose(clf.predict_proba(X), frozen.predict_proba(X), rtol=1e-12)


KINDS = [
    QuantizedClassifier(small(), weight_bits=3, random_state=0),
    QuantizedClassifier(small(), weight_bits=4, activation_bits=8, random_state=0),
    QuantizedClassifier(skorch_net(module=WithSoftmax, criterion=nn.NLLLoss), random_state=0),
    FairQATClassifier(small(), weight_bits=3, finetune_epochs=1, random_state=0),
    PrunedClassifier(small(), random_state=0),
]
IGNORED = pytest.mark.filterwarnings("ignore::skqfair.exceptions.LimitedOffsetsWarning")


class WithoutBias(nn.Sequential):
    def __init__(self, n_features=6, n_classes=3):
        super().__init__(nn.Linear(n_features, 8), nn.ReLU(), nn.Linear(8, n_classes, bias=False))


@IGNORED
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_folded_is_the_same_as_unfolded(problem, kind):
    X, y, _ = problem
    clf = FairOffsetClassifier(kind, max_accuracy_drop=0.2, cv=2, random_state=0).fit(X, y)
    assert clf.strength_ > 0
    p = clf.estimator_.predict_proba(X) * np.exp(clf.offsets_)
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(clf.predict_proba(X), p, atol=1e-6)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[p.argmax(1)])
    assert clf.model_size_ == clf.estimator_.model_size_
    assert clf.module_ is not clf.estimator_.module_
    assert clf.layer_bits_ == clf.estimator_.layer_bits_
    copied = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(copied.predict_proba(X), clf.predict_proba(X))


@IGNORED
def test_a_bias_that_was_not_there_is_counted(problem):
    X, y, _ = problem
    net = QuantizedClassifier(skorch_net(module=WithoutBias), random_state=0)
    clf = FairOffsetClassifier(net, max_accuracy_drop=0.2, cv=2, random_state=0).fit(X, y)
    assert clf.model_size_ == clf.estimator_.model_size_ + 4 * 3
    assert clf.estimator_.module_[2].bias is None


class Shuffled(WithSoftmax):
    """What comes out is no softmax of the last layer."""

    def forward(self, x):
        return super().forward(x).flip(1)


@IGNORED
def test_where_there_is_no_last_bias_nothing_is_folded(problem):
    X, y, _ = problem
    net = QuantizedClassifier(skorch_net(module=Shuffled, criterion=nn.NLLLoss), random_state=0)
    clf = FairOffsetClassifier(net, max_accuracy_drop=0.2, cv=2, random_state=0).fit(X, y)
    assert not hasattr(clf, "module_")
    p = clf.estimator_.predict_proba(X) * np.exp(clf.offsets_)
    np.testing.assert_allclose(clf.predict_proba(X), p / p.sum(1, keepdims=True))


@IGNORED
def test_saved_without_pickle(problem, fitted):
    X, y, _ = problem
    net = QuantizedClassifier(small(), weight_bits=3, random_state=0)
    plain, scaled = net, make_pipeline(StandardScaler(), net)
    for clf, rows, inside in (
        (FairOffsetClassifier(plain, cv=2, random_state=0).fit(X, y), X, ()),
        (FairOffsetClassifier(scaled, cv=2, random_state=0).fit(X, y), X, (QuantizedClassifier,)),
        (fitted, NEW_X, ()),
    ):
        loaded = saved(clf, FairOffsetClassifier, *inside)
        np.testing.assert_array_equal(loaded.predict_proba(rows), clf.predict_proba(rows))
        same(loaded.frontier_, clf.frontier_)
        same(loaded.moved_, clf.moved_)


@IGNORED
def test_frozen_on_samples_that_it_was_trained_on(problem):
    X, y, _ = problem
    net = QuantizedClassifier(small(), random_state=0).fit(X[:200], y[:200])
    pipe = make_pipeline(StandardScaler(), QuantizedClassifier(small(), random_state=0))
    pipe.fit(X[:200], y[:200])
    tuned = FairQATClassifier(FrozenEstimator(net.estimator_), finetune_epochs=1, random_state=0)
    tuned.fit(X[:200], positions := net.classes_.searchsorted(y[:200]))
    for frozen, labels in ((net, y), (pipe, y), (tuned, net.classes_.searchsorted(y))):
        with pytest.warns(TrainingSamplesWarning, match="about 50% of the samples in X"):
            FairOffsetClassifier(FrozenEstimator(frozen)).fit(X, labels)
        clf = FairOffsetClassifier(FrozenEstimator(frozen)).fit(X[200:], labels[200:])  # no warning
        assert clf.estimator_ is not frozen
    assert len(positions) == 200


@IGNORED
def test_pipeline_and_search(problem):
    X, y, groups = problem
    inner = make_pipeline(StandardScaler(), LogisticRegression())
    pipe = make_pipeline(FairOffsetClassifier(inner, cv=2, random_state=0))
    fvo = make_fairness_scorer(sensitive_features=pd.Series(groups))
    search = GridSearchCV(
        pipe,
        {"fairoffsetclassifier__max_accuracy_drop": [0.0, 0.1]},
        scoring={"fvo": fvo, "accuracy": "accuracy"},
        refit="accuracy",
        cv=2,
        error_score="raise",
    )
    search.fit(pd.DataFrame(X, columns=[*"abcdef"]), y, fairoffsetclassifier__sensitive_features=groups)
    assert len(search.cv_results_["mean_test_fvo"]) == 2
    assert search.best_estimator_[-1].moved_.index.tolist() == ["a", "b", "c"]


seen = []


class Watching(QuantizedClassifier):
    def fit(self, X, y, *, sensitive_features=None, sample_weight=None, **fit_params):
        weights = None if sample_weight is None else len(sample_weight)
        seen.append((len(X), len(sensitive_features), weights))
        return super().fit(X, y, sensitive_features=sensitive_features, sample_weight=sample_weight)


@IGNORED
@pytest.mark.parametrize("routing", [False, True])
def test_metadata_reach_the_estimator_of_every_fold(problem, routing):
    X, y, groups = problem
    seen.clear()
    with sklearn.config_context(enable_metadata_routing=routing):
        net = Watching(small(max_epochs=1), random_state=0)
        if routing:
            net.set_fit_request(sample_weight=True)
        clf = FairOffsetClassifier(net, cv=4, random_state=0)
        clf.fit(X, y, sensitive_features=groups, sample_weight=np.ones(400))
    assert seen == [(400, 400, 400)] + 4 * [(300, 300, 300)]


def test_weights_are_repetitions_where_the_estimator_is_frozen():
    frozen = FrozenEstimator(WEAK.fit(FIT_X, FIT_Y))
    times = np.random.default_rng(0).integers(0, 4, len(NEW_Y))
    by_weight = FairOffsetClassifier(frozen).fit(NEW_X, NEW_Y, sample_weight=times)
    repeated = FairOffsetClassifier(frozen).fit(np.repeat(NEW_X, times, 0), np.repeat(NEW_Y, times))
    np.testing.assert_allclose(by_weight.offsets_, repeated.offsets_, atol=1e-9)
    same_columns = ["accuracy", "fvo", "worst_accuracy"]
    np.testing.assert_allclose(by_weight.frontier_[same_columns], repeated.frontier_[same_columns])


class Wrong(LogisticRegression):
    def predict_proba(self, X):
        return super().predict_proba(X) * 3


def test_bad_input(problem):
    X, y, groups = problem
    frozen, missing = FrozenEstimator(LogisticRegression().fit(X, y)), [None, *groups[1:]]
    for error, match, clf, data, options in (
        (ValueError, "estimator must have predict_proba, which SGD", SGDClassifier(), (X, y), {}),
        (ValueError, "must return finite probabilities", Wrong(), (X, y), {}),
        (ValueError, "one group only, 'all'", WEAK, (X, y), {"sensitive_features": ["all"] * 400}),
        (
            ValueError,
            "1 of 400 values .* are missing",
            WEAK,
            (X, y),
            {"sensitive_features": missing},
        ),
        (ValueError, "no sample of the classes \\['low'\\]", frozen, (X[y != "low"], y[y != "low"]), {}),
        (ValueError, "was not trained on: \\['new'\\]", frozen, (X, np.where(y == "low", "new", y)), {}),
        (ValueError, "one class only", WEAK, (X, ["a"] * 400), {}),
    ):
        with pytest.raises(error, match=match):
            FairOffsetClassifier(clf).fit(*data, **options)
    with pytest.raises(ValueError, match="max_accuracy_drop"):
        FairOffsetClassifier(WEAK, max_accuracy_drop=2).fit(X, y)
    with pytest.raises(ValueError, match="metric"):
        FairOffsetClassifier(WEAK, metric="accuracy").fit(X, y)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        FairOffsetClassifier(FrozenEstimator(LogisticRegression())).fit(X, y)


def test_confidence_out_of_range(problem):
    with pytest.raises(ValueError, match="'confidence' parameter"):
        FairOffsetClassifier(WEAK, confidence=0.3).fit(FIT_X, FIT_Y)


def test_folds_without_a_class_or_a_group(problem):
    X, y, groups = problem
    rare = np.where(np.arange(400) == 7, "rare", groups)
    few = ShuffleSplit(1, test_size=0.1, random_state=0)
    assert 7 not in next(few.split(X))[1]
    with pytest.raises(ValueError, match="no validation part has a sample of the group 'rare'"):
        FairOffsetClassifier(LogisticRegression(), cv=few).fit(X, y, sensitive_features=rare)
    labels = np.where(np.arange(400) == 7, "rare", y)
    with pytest.raises(ValueError, match="no validation part has a sample of the class 'rare'"):
        FairOffsetClassifier(LogisticRegression(), cv=few).fit(X, labels)
    alone = [(np.arange(8, 400), np.arange(8))]
    with pytest.raises(ValueError, match="training part has no sample of the classes \\['rare'\\]"):
        FairOffsetClassifier(LogisticRegression(), cv=alone).fit(X, labels)
