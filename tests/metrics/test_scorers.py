import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from fairlearn.metrics import demographic_parity_difference
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV, cross_validate
from sklearn.pipeline import make_pipeline

from skqfair import fairness_violation_observed, make_fairness_scorer
from skqfair.exceptions import EmptyGroupWarning
from skqfair.metrics import model_size_scorer


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"u": rng.normal(size=120), "v": rng.normal(size=120)}, index=rng.permutation(120))
    X["group"] = rng.choice(["a", "b"], 120)
    X["other"] = rng.choice(["x", "y"], 120)
    y = (X["u"] + 0.5 * rng.normal(size=120) > 0).astype(int).to_numpy()
    model = make_pipeline(make_column_transformer(("passthrough", ["u", "v"])), LogisticRegression())
    return X, y, model.fit(X, y)


def test_columns_series_and_frames_agree(data):
    X, y, model = data
    expected = -fairness_violation_observed(y, model.predict(X), sensitive_features=X["group"])
    assert make_fairness_scorer(sensitive_features="group")(model, X, y) == expected
    shuffled = X["group"].sample(frac=1, random_state=0)
    assert make_fairness_scorer(sensitive_features=shuffled)(model, X, y) == expected
    both = -fairness_violation_observed(y, model.predict(X), sensitive_features=X[["group", "other"]])
    assert make_fairness_scorer(sensitive_features=["group", "other"])(model, X, y) == both
    assert make_fairness_scorer(sensitive_features=X[["group", "other"]])(model, X, y) == both


def test_polars_columns(data):
    X, y, _model = data
    scorer = make_fairness_scorer(sensitive_features="group")

    class Constant:
        def predict(self, X):
            return np.ones(len(X), dtype=int)

    frame = pl.from_pandas(X.reset_index(drop=True))
    expected = -fairness_violation_observed(y, np.ones(120, dtype=int), sensitive_features=X["group"])
    from sklearn.dummy import DummyClassifier

    assert scorer(DummyClassifier(strategy="constant", constant=1).fit(X, y), frame, y) == expected


def test_any_fairlearn_metric_sign_and_response(data):
    X, y, model = data
    scorer = make_fairness_scorer(demographic_parity_difference, sensitive_features="group")
    expected = demographic_parity_difference(y, model.predict(X), sensitive_features=X["group"])
    assert scorer(model, X, y) == -expected

    def spread(y_true, y_pred, *, sensitive_features):
        return float(np.ptp(y_pred))

    scorer = make_fairness_scorer(
        spread, sensitive_features="group", greater_is_better=True, response_method="predict_proba"
    )
    assert scorer(model, X, y) == np.ptp(model.predict_proba(X)[:, 1])


def test_metrics_that_count_ones_need_the_label(data):
    X, y, model = data
    words = np.array(["<=50K", ">50K"])[y]
    model = clone(model).fit(X, words)
    expected = demographic_parity_difference(
        y, (model.predict(X) == ">50K").astype(int), sensitive_features=X["group"]
    )
    scorer = make_fairness_scorer(
        demographic_parity_difference, sensitive_features="group", pos_label=">50K"
    )
    assert scorer(model, X, words) == -expected != 0
    scorer = make_fairness_scorer(demographic_parity_difference, sensitive_features="group")
    with pytest.raises(ValueError, match=r"counts the label 1, but the labels are \['<=50K', '>50K'\]"):
        scorer(model, X, words)


def test_groups_that_were_not_routed(data):
    X, y, model = data
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(ValueError, match=r"did not reach the scorer; pass them to the fit of the search"),
    ):
        make_fairness_scorer()(model, X, y)


def test_in_a_search_with_workers(data):
    X, y, model = data
    search = GridSearchCV(
        clone(model),
        {"logisticregression__C": [0.1, 1.0]},
        scoring={"accuracy": "accuracy", "fvo": make_fairness_scorer(sensitive_features=X["group"])},
        refit="fvo",
        error_score="raise",
        n_jobs=2,
    ).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_fvo"]).all()


def test_routed_metadata(data):
    X, y, model = data
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_fairness_scorer()
        scores = cross_validate(
            clone(model),
            X,
            y,
            scoring=scorer,
            params={"sensitive_features": X["group"]},
            error_score="raise",
        )
        same = cross_validate(
            clone(model),
            X,
            y,
            scoring=make_fairness_scorer(sensitive_features="group"),
            params={},  # scikit-learn 1.6.0 takes no None with routing
            error_score="raise",
        )
    np.testing.assert_array_equal(scores["test_score"], same["test_score"])


def test_without_routing_making_the_scorer_raises():
    with pytest.raises(RuntimeError, match="enable_metadata_routing=True"):
        make_fairness_scorer()


def test_pickle_and_repr(data):
    X, y, model = data
    scorer = make_fairness_scorer(sensitive_features=X["group"])
    assert pickle.loads(pickle.dumps(scorer))(model, X, y) == scorer(model, X, y)
    assert "fairness_violation_observed, sensitive_features='group'" in repr(scorer)


def test_group_absent_from_a_fold_warns_and_goes_on(data):
    X, y, model = data
    groups = X["group"].copy()
    groups.iloc[:3] = "rare"
    scorer = make_fairness_scorer(sensitive_features=groups)
    with pytest.warns(EmptyGroupWarning, match=r"no sample of the group\(s\) rare in this fold"):
        score = scorer(model, X.iloc[3:], y[3:])
    assert np.isfinite(score)
    with pytest.warns(EmptyGroupWarning, match="rare") as caught:
        make_fairness_scorer(sensitive_features=groups.astype("category"))(model, X.iloc[3:], y[3:])
    assert len(caught) == 1
    X = X.assign(group=groups.astype("category"))
    with pytest.warns(EmptyGroupWarning, match="rare"):
        make_fairness_scorer(sensitive_features="group")(model, X.iloc[3:], y[3:])


def test_bad_input(data):
    X, y, model = data
    with pytest.raises(ValueError, match=r"X has no column \['race'\]; its columns are \['u'"):
        make_fairness_scorer(sensitive_features="race")(model, X, y)
    with pytest.raises(ValueError, match="X must be a frame; got ndarray"):
        make_fairness_scorer(sensitive_features="group")(model, X.to_numpy(), y)
    with pytest.raises(ValueError, match="must have a unique index"):
        make_fairness_scorer(sensitive_features=pd.concat([X["group"], X["group"]]))
    with pytest.raises(ValueError, match="no entry for 3 of 120 rows"):
        make_fairness_scorer(sensitive_features=X["group"].iloc[3:])(model, X, y)
    with pytest.raises(ValueError, match="X must be a pandas frame with the same index"):
        make_fairness_scorer(sensitive_features=X["group"])(model, X.to_numpy(), y)
    with pytest.raises(ValueError, match=r"got numpy\.ndarray.*pd\.Series"):
        make_fairness_scorer(sensitive_features=X["group"].to_numpy())
    with pytest.raises(ValueError, match=r"got polars.*Without an index .* name columns of X"):
        make_fairness_scorer(sensitive_features=pl.Series(["a", "b"]))
    with pytest.raises(ValueError, match="metric must be callable"):
        make_fairness_scorer("fvo", sensitive_features="group")


def test_size_needs_a_model_that_has_one(data):
    X, y, model = data
    with pytest.raises(AttributeError, match="LogisticRegression has no model_size_"):
        model_size_scorer(model, X, y)


def test_weights_reach_the_metric(data):
    X, y, model = data
    weights = np.random.default_rng(1).uniform(0.1, 1, len(y))
    expected = -fairness_violation_observed(
        y, model.predict(X), sensitive_features=X["group"], sample_weight=weights
    )
    scorer = make_fairness_scorer(sensitive_features="group")
    assert scorer(model, X, y, sample_weight=weights) == expected != scorer(model, X, y)
    with sklearn.config_context(enable_metadata_routing=True):
        whole = [(np.arange(len(y)), np.arange(len(y)))]
        column = make_fairness_scorer(sensitive_features="group").set_score_request(sample_weight="w")
        routed = make_fairness_scorer().set_score_request(sensitive_features="g", sample_weight="w")
        for scorer, params in ((column, {}), (routed, {"g": X["group"]})):
            options = {"params": {"w": weights, **params}, "cv": whole, "error_score": "raise"}
            scores = cross_validate(clone(model), X, y, scoring=scorer, **options)["test_score"]
            assert scores == expected
    with pytest.raises(RuntimeError, match=r"needs sklearn\.set_config"):
        column.set_score_request(sample_weight=True)


def test_in_the_choice_of_a_threshold(data):
    X, y, model = data
    options = {"thresholds": [0.2, 0.5, 0.7], "cv": 2, "store_cv_results": True}
    series = make_fairness_scorer(sensitive_features=X["group"])
    tuned = TunedThresholdClassifierCV(clone(model), scoring=series, **options)
    tuned.fit(X, pd.Series(y, index=X.index))
    with sklearn.config_context(enable_metadata_routing=True):
        routed = TunedThresholdClassifierCV(clone(model), scoring=make_fairness_scorer(), **options)
        routed.fit(X, y, sensitive_features=X["group"])
    np.testing.assert_array_equal(tuned.cv_results_["scores"], routed.cv_results_["scores"])
    assert np.ptp(tuned.cv_results_["scores"]) > 0
    tuned.set_params(scoring=make_fairness_scorer(sensitive_features="group"))
    with pytest.raises(
        ValueError, match=r"reads columns of X, which TunedThresholdClassifierCV does not"
    ):
        tuned.fit(X, y)
    tuned.set_params(scoring=series)
    with pytest.raises(ValueError, match=r"y must be a pandas Series with the same index; got ndarray"):
        tuned.fit(X, y)
