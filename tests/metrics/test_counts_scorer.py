import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    equalized_odds_difference,
    false_positive_rate,
    true_positive_rate,
)
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_validate,
)

from skqfair import fairness_violation_observed, make_fairness_scorer
from skqfair.displays import BitWidthDisplay
from skqfair.metrics import fairness_counts_scorer, group_report, pooled_report, smallest_within


class Given(ClassifierMixin, BaseEstimator):
    """Predicts what a column says, right with one probability in every group."""

    def __init__(self, weight_bits=8, broken=False):
        self.weight_bits, self.broken = weight_bits, broken

    def fit(self, X, y):
        if self.broken:
            raise ValueError("broken")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        column = "predicted" if self.weight_bits == 8 else "worse"
        return np.asarray(X[column])


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    n = 400
    y = rng.integers(0, 2, n)
    X = pd.DataFrame({"race": rng.choice(list("abcde"), n, p=[0.5, 0.2, 0.15, 0.1, 0.05])})
    X["predicted"] = np.where(rng.random(n) < 0.8, y, 1 - y)
    X["worse"] = np.where(rng.random(n) < np.where(X["race"] == "a", 0.8, 0.3), y, 1 - y)
    return X, y


def scorer(X, **options):
    return fairness_counts_scorer(sensitive_features="race", groups=X["race"].unique(), **options)


@pytest.mark.parametrize("cv", [KFold(3), KFold(10), StratifiedKFold(20), KFold(40, shuffle=True)])
def test_folds_add_up_to_all_out_of_fold_predictions(data, cv):
    X, y = data
    predicted = cross_val_predict(Given(), X, y, cv=cv)
    results = cross_validate(Given(), X, y, cv=cv, scoring=scorer(X), error_score="raise")
    report = pooled_report(results)
    assert report["fvo"][0] == fairness_violation_observed(y, predicted, sensitive_features=X["race"])
    assert report["accuracy"][0] == np.mean(predicted == y)
    by_group = MetricFrame(
        metrics=accuracy_score, y_true=y, y_pred=predicted, sensitive_features=X["race"]
    ).by_group
    for group, accuracy in by_group.items():
        assert report[f"accuracy[{group}]"][0] == pytest.approx(accuracy, abs=1e-15)
    expected = group_report(y, predicted, sensitive_features=X["race"], random_state=0)
    assert tuple(report.loc[0, ["fvo_low", "fvo_high"]]) == expected.attrs["fvo_interval"]
    assert report["fvo_chance"][0] == expected.attrs["fvo_chance"].quantile
    assert report["worst_accuracy"][0] == expected["accuracy"].min()


@pytest.mark.parametrize("labels", [(0, 1), ("no", "yes")])
@pytest.mark.parametrize("cv", [KFold(3), StratifiedKFold(20)])
def test_rates_of_two_classes_add_up_too(data, cv, labels):
    X, y = data
    y, X = np.array(labels)[y], X.assign(predicted=np.array(labels)[X["predicted"]])
    predicted = cross_val_predict(Given(), X, y, cv=cv)
    results = cross_validate(Given(), X, y, cv=cv, scoring=scorer(X), error_score="raise")
    found = pooled_report(results).loc[0]
    truth, chosen = (np.asarray(a) == labels[1] for a in (y, predicted))
    options = {"sensitive_features": X["race"]}
    expected = demographic_parity_difference(truth, chosen, **options)
    assert found["selection_rate_difference"] == pytest.approx(expected, abs=1e-12)
    for name, rate in (("true", true_positive_rate), ("false", false_positive_rate)):
        frame = MetricFrame(metrics=rate, y_true=truth, y_pred=chosen, **options)
        assert found[f"{name}_positive_rate_difference"] == pytest.approx(frame.difference(), abs=1e-12)
    both = [found[f"{name}_positive_rate_difference"] for name in ("true", "false")]
    assert max(both) == pytest.approx(equalized_odds_difference(truth, chosen, **options), abs=1e-12)


def test_a_group_without_positives_has_no_true_positive_rate():
    X = pd.DataFrame({"race": list("aabb") * 10, "predicted": [1, 0, 1, 0] * 10})
    y = np.array([1, 0, 0, 0] * 10)
    results = cross_validate(Given(), X, y, cv=2, scoring=scorer(X), error_score="raise")
    found = pooled_report(results).loc[0]
    assert found["true_positive_rate_difference"] == 0
    assert found["selection_rate_difference"] == 0
    assert found["false_positive_rate_difference"] == 0.5


def test_three_classes_have_no_rates(data):
    X, y = data
    X, y = X.assign(predicted=y), np.where(np.arange(len(y)) < 30, 2, y)
    results = cross_validate(Given(), X, y, cv=KFold(3, shuffle=True), scoring=scorer(X))
    assert not [key for key in results if "positive" in key]
    assert "selection_rate_difference" not in pooled_report(results)


def test_smallest_within_pooled_rates(data):
    X, y = data
    scoring = scorer(X, scoring={"size": lambda clf, X, y: -clf.weight_bits})
    search = GridSearchCV(Given(), {"weight_bits": [8, 2]}, scoring=scoring, refit=False, cv=5)
    results = search.fit(X, y).cv_results_
    pooled = pooled_report(results)["true_positive_rate_difference"]
    assert pooled[0] < pooled[1]
    limit = {"true_positive_rate_difference": -(pooled[0] + pooled[1]) / 2}
    assert smallest_within(accuracy_drop=None, at_least=limit)(results) == 0
    assert smallest_within(accuracy_drop=None)(results) == 1


def test_the_mean_over_folds_grows_with_their_number_and_the_pooled_does_not(data):
    X, y = data
    pooled, mean = [], []
    for n_splits in (2, 5, 20):
        results = cross_validate(Given(), X, y, cv=n_splits, scoring=scorer(X), error_score="raise")
        pooled.append(pooled_report(results)["fvo"][0])
        mean.append(-results["test_fvo"].mean())
    assert len(set(pooled)) == 1
    assert mean[0] + 0.05 < mean[1] < mean[2] - 0.05


@pytest.mark.parametrize("n_splits", [2, 10])
def test_the_choice_does_not_depend_on_the_number_of_folds(data, n_splits):
    X, y = data
    search = GridSearchCV(
        Given(),
        {"weight_bits": [8, 2]},
        scoring=scorer(X, scoring={"size": lambda model, X, y: -model.weight_bits}),
        refit=smallest_within(fvo=0.3),
        cv=n_splits,
        error_score="raise",
        n_jobs=1,
    ).fit(X, y)
    assert search.best_params_ == {"weight_bits": 8}
    report = pooled_report(search.cv_results_)
    assert report["fvo"][0] < 0.3 < report["fvo"][1]
    assert report["param_weight_bits"].tolist() == [8, 2]
    assert list(report)[:3] == ["param_weight_bits", "accuracy", "fvo"]
    display = BitWidthDisplay.from_cv_results(search.cv_results_)
    np.testing.assert_array_equal(display.table_["fvo"], report["fvo"])
    np.testing.assert_array_equal(display.table_["fvo_chance"], report["fvo_chance"])
    assert [ax.get_ylabel() for ax in display.axes_][1] == "FVO, folds pooled"


def test_names_are_the_same_in_every_fold(data):
    X, y = data
    X, y = X.sort_values("race").reset_index(drop=True), np.sort(y)  # folds of one group
    results = cross_validate(Given(), X, y, cv=KFold(8), scoring=scorer(X), error_score="raise")
    assert results["test_n_samples[a]"].sum() == (X["race"] == "a").sum()
    assert (results["test_n_samples[e]"][:4] == 0).all()
    assert np.isfinite(pooled_report(results).to_numpy()).all()


def test_intersections_integers_and_series(data):
    X, y = data
    X["sex"] = np.arange(len(X)) % 2
    model = Given().fit(X, y)
    both = [(race, sex) for race in "abcde" for sex in (0, 1)]
    scores = fairness_counts_scorer(sensitive_features=["race", "sex"], groups=both)(model, X, y)
    frame = X[["race", "sex"]]
    assert fairness_counts_scorer(sensitive_features=frame, groups=frame)(model, X, y) == scores
    assert scores["n_samples[b, 1]"] == ((X["race"] == "b") & (X["sex"] == 1)).sum()
    series = fairness_counts_scorer(sensitive_features=X["sex"].sample(frac=1), groups=[0, 1])
    assert series(model, X, y)["n_samples[1]"] == 200
    assert pickle.loads(pickle.dumps(series))(model, X, y) == series(model, X, y)
    assert "sensitive_features='sex', groups=[0, 1]" in repr(series)


def test_routed_groups():
    rng = np.random.default_rng(0)
    X, groups = rng.normal(size=(200, 3)), rng.choice(["x", "y"], 200)
    y = (X[:, 0] > 0).astype(int)
    with sklearn.config_context(enable_metadata_routing=True):
        scoring = fairness_counts_scorer(sensitive_features=None, groups=["x", "y"])
        search = GridSearchCV(
            LogisticRegression(),
            {"C": [0.01, 1.0]},
            scoring=scoring,
            refit="accuracy",
            error_score="raise",
        ).fit(X, y, sensitive_features=groups)
        with pytest.raises(ValueError, match="did not reach the scorer"):
            scoring(search, X, y)
    predicted = cross_val_predict(LogisticRegression(C=1.0), X, y)
    expected = fairness_violation_observed(y, predicted, sensitive_features=groups)
    assert pooled_report(search.cv_results_)["fvo"][1] == expected
    with pytest.raises(RuntimeError, match=r"fairness_counts_scorer: .* routing is disabled"):
        fairness_counts_scorer(sensitive_features=None, groups=["x", "y"])


@pytest.mark.parametrize(
    ("scoring", "names"),
    [
        ("balanced_accuracy", {"balanced_accuracy"}),
        (["f1", "roc_auc"], {"f1", "roc_auc"}),
        ({"gap": make_fairness_scorer(sensitive_features="race")}, {"gap"}),
        (lambda model, X, y: 1.0, {"score"}),
        (None, set()),
    ],
)
def test_other_scores(data, scoring, names):
    X, y = data
    model = LogisticRegression().fit(X[["predicted", "worse"]], y)
    frame = X[["predicted", "worse", "race"]]

    class Model(LogisticRegression):
        def predict(self, X):
            return model.predict(X[["predicted", "worse"]])

        def decision_function(self, X):
            return model.decision_function(X[["predicted", "worse"]])

    estimator = Model().fit(X[["predicted", "worse"]], y)
    scores = scorer(X, scoring=scoring)(estimator, frame, y)
    kinds = ("samples", "correct", "positive", "predicted_positive", "true_positive")
    own = {"accuracy", "fvo"} | {f"n_{kind}[{g}]" for g in "abcde" for kind in kinds}
    assert set(scores) == own | names
    if names == {"gap"}:
        assert scores["gap"] == scores["fvo"]


def test_a_fit_that_failed(data):
    X, y = data
    search = GridSearchCV(Given(), {"broken": [False, True]}, scoring=scorer(X), refit=False)
    with pytest.warns(sklearn.exceptions.FitFailedWarning), pytest.warns(match="scores are non-finite"):
        results = search.fit(X, y).cv_results_
    report = pooled_report(results)
    assert report.pop("param_broken").tolist() == [False, True]
    assert report.loc[0].notna().all()
    assert report.loc[1].isna().all()


def test_bad_input(data):
    X, y = data
    model = Given().fit(X, y)
    with pytest.raises(ValueError, match=r"groups=\['a'\] lacks 'b', a group of this fold"):
        fairness_counts_scorer(sensitive_features="race", groups=["a"])(model, X, y)
    for groups in ([], "abc", 3, ["1", 1]):
        with pytest.raises(ValueError, match="groups must be"):
            fairness_counts_scorer(sensitive_features="race", groups=groups)
    with pytest.raises(ValueError, match=r"scoring has the name\(s\) \['accuracy'\]"):
        scorer(X, scoring="accuracy")(model, X, y)
    with pytest.raises(ValueError, match="cv_results has no counts by group; give the search"):
        pooled_report({"mean_test_accuracy": [1.0]})
    with pytest.raises(ValueError, match="confidence must be"):
        pooled_report({}, confidence=2)


def test_where_one_figure_is_wanted():
    frame = pd.DataFrame({"s": list("ab") * 30, "x": np.arange(60.0)})
    y = pd.Series(np.arange(60) // 4 % 2)
    scorer = fairness_counts_scorer(sensitive_features="s", groups=["a", "b"])
    tuned = TunedThresholdClassifierCV(LogisticRegression(), scoring=scorer)
    with pytest.raises(ValueError, match=r"returns several figures; .* make_fairness_scorer"):
        tuned.fit(frame[["x"]], y)
    model = DummyClassifier().fit(frame, y)
    with pytest.raises(ValueError, match=r"takes no sample_weight; leave it out, or"):
        scorer(model, frame, y, sample_weight=np.ones(60))
