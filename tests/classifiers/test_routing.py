import numpy as np
import pandas as pd
import pytest
import sklearn
from nets import small
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skqfair import PrunedClassifier, QuantizedClassifier, make_fairness_scorer

seen = []


class Watching(QuantizedClassifier):
    """Notes what fit gets."""

    def fit(self, X, y, *, sensitive_features=None, sample_weight=None, **fit_params):
        seen.append(
            (len(X), None if sensitive_features is None else len(sensitive_features), sample_weight)
        )
        return super().fit(
            X, y, sensitive_features=sensitive_features, sample_weight=sample_weight, **fit_params
        )


@pytest.fixture
def pipeline():
    seen.clear()
    clf = Watching(small(max_epochs=1), random_state=0)
    return Pipeline([("scale", StandardScaler()), ("clf", clf)])


def grid(estimator, scoring):
    return GridSearchCV(
        estimator, {"clf__weight_bits": [2, 8]}, scoring=scoring, cv=3, error_score="raise", refit="fvo"
    )


def test_routing_on_the_bare_name_reaches_fit_and_score(problem, pipeline):
    X, y, groups = problem
    with sklearn.config_context(enable_metadata_routing=True):
        search = grid(pipeline, {"accuracy": "accuracy", "fvo": make_fairness_scorer()})
        search.fit(X, y, sensitive_features=groups)
        by_series = grid(pipeline, {"fvo": make_fairness_scorer(sensitive_features=pd.Series(groups))})
        by_series.fit(pd.DataFrame(X, columns=list("abcdef")), y)
    assert all(n == n_groups for n, n_groups, _ in seen[:7])
    assert np.isfinite(search.cv_results_["mean_test_fvo"]).all()
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_fvo"], by_series.cv_results_["mean_test_fvo"]
    )


def test_routing_off_the_step_name_reaches_fit(problem, pipeline):
    X, y, groups = problem
    frame = pd.DataFrame(X, columns=list("abcdef"))
    search = grid(pipeline, {"fvo": make_fairness_scorer(sensitive_features=pd.Series(groups))})
    search.fit(frame, y, clf__sensitive_features=groups)
    assert all(n == n_groups for n, n_groups, _ in seen)
    assert np.isfinite(search.cv_results_["mean_test_fvo"]).all()


def test_pruned_networks_take_the_same_routes(problem):
    X, y, groups = problem
    clf = PrunedClassifier(small(max_epochs=1), random_state=0)
    pipeline = Pipeline([("scale", StandardScaler()), ("clf", clf)])
    with sklearn.config_context(enable_metadata_routing=True):
        scoring = {"fvo": make_fairness_scorer()}
        search = GridSearchCV(
            pipeline, {"clf__amount": [0, 0.9]}, scoring=scoring, cv=3, refit="fvo", error_score="raise"
        )
        search.fit(X, y, sensitive_features=groups)
    assert np.isfinite(search.cv_results_["mean_test_fvo"]).all()
    with pytest.raises(ValueError, match="sensitive_features must have one entry for each sample"):
        pipeline.fit(X, y, clf__sensitive_features=groups[:-1])


def test_sample_weight_is_routed_on_request_only(problem, pipeline):
    X, y, groups = problem
    weight = np.ones(400)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline["scale"].set_fit_request(sample_weight=False)
        with pytest.raises(UnsetMetadataPassedError, match=r"sample_weight.*Watching"):
            pipeline.fit(X, y, sample_weight=weight)
        pipeline.named_steps["clf"].set_fit_request(sample_weight=True)
        pipeline.fit(X, y, sample_weight=weight, sensitive_features=groups)
    assert seen[-1][1] == 400
    np.testing.assert_array_equal(seen[-1][2], weight)


def test_prediction_never_needs_groups(problem, pipeline):
    X, y, groups = problem
    fitted = pipeline.fit(X, y, clf__sensitive_features=groups)
    assert fitted.score(X, y) > 0
    with pytest.raises(TypeError, match="sensitive_features"):
        fitted["clf"].score(X, y, sensitive_features=groups)
