import threading

import joblib
import numpy as np
import pytest
import sklearn
from nets import counting, small
from scipy.stats import loguniform
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import get_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    ShuffleSplit,
    StratifiedKFold,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from skqfair import FairQATClassifier, PrunedClassifier, QuantizedClassifier
from skqfair.exceptions import CacheBypassWarning
from skqfair.parallel import warm_up

BITS = {"weight_bits": [2, 4, 8]}


@pytest.fixture
def classifier(tmp_path):
    """A classifier with a memory, and a function that counts its trainings."""
    net, count = counting(tmp_path / "log")
    net.set_params(max_epochs=1)
    return QuantizedClassifier(net, memory=str(tmp_path / "cache"), random_state=0), count


def check(search, X, y, count, trainings, **fit_params):
    """The warm-up trains so many networks, the search none; its scores are those without a memory."""
    done = warm_up(search, X, y, **fit_params)
    assert (done.n_trainings, done.n_found, done.n_trained) == (trainings, 0, trainings)
    assert count() == trainings
    search.fit(X, y, **fit_params)
    assert count() == trainings
    again = warm_up(search, X, y, **fit_params)
    assert (again.n_trainings, again.n_found, again.n_trained) == (trainings, trainings, 0)
    assert count() == trainings
    return search.cv_results_["mean_test_score"]


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_the_search_trains_nothing_afterwards(problem, classifier, n_jobs):
    X, y, _ = problem
    clf, count = classifier
    options = {"cv": 3, "error_score": "raise"}
    scores = check(GridSearchCV(clf, BITS, n_jobs=n_jobs, **options), X, y, count, 4)
    plain = GridSearchCV(sklearn.clone(clf).set_params(memory=None), BITS, **options).fit(X, y)
    np.testing.assert_array_equal(scores, plain.cv_results_["mean_test_score"])


def test_pipelines_and_parameters_of_the_training(problem, classifier):
    X, y, _ = problem
    clf, count = classifier
    pipeline = make_pipeline(StandardScaler(), make_pipeline("passthrough", clf))
    name = "pipeline__quantizedclassifier__"
    grid = {f"{name}weight_bits": [2, 4], f"{name}estimator__lr": [0.1, 0.2]}
    grid["standardscaler__with_mean"] = [True, False]
    check(GridSearchCV(pipeline, grid, cv=2, refit=False), X, y, count, 2 * 4)


def test_groups_weights_and_sensitive_features_go_where_they_go_in_the_search(problem, classifier):
    X, y, sensitive = problem
    clf, count = classifier
    search = GridSearchCV(clf, BITS, cv=GroupKFold(2), error_score="raise")
    weights, folds = np.linspace(1, 2, 400), np.arange(400) // 50
    params = {"groups": folds, "sample_weight": weights, "sensitive_features": sensitive}
    check(search, X, y, count, 3, **params)
    assert warm_up(search, X, y, **params | {"sample_weight": None}).n_found == 0


def test_metadata_is_routed(problem, classifier):
    X, y, sensitive = problem
    clf, count = classifier
    with sklearn.config_context(enable_metadata_routing=True):
        clf.set_fit_request(sample_weight=True)
        search = GridSearchCV(
            make_pipeline("passthrough", clf),
            {"quantizedclassifier__weight_bits": [2, 4]},
            cv=GroupKFold(2),
            error_score="raise",
            scoring=get_scorer("accuracy").set_score_request(sample_weight=True),
        )
        params = {"groups": np.arange(400) // 50, "sample_weight": np.linspace(1, 2, 400)}
        check(search, X, y, count, 3, **params, sensitive_features=sensitive)


def test_other_searches_and_splitters(problem, classifier):
    X, y, _ = problem
    clf, count = classifier
    cv = StratifiedKFold(2, shuffle=True, random_state=0)
    params = {"estimator__lr": loguniform(0.01, 0.1), **BITS}
    search = RandomizedSearchCV(clf, params, n_iter=2, cv=cv, random_state=3)
    check(search, X, y, count, 6)
    check(GridSearchCV(clf, BITS, cv=list(cv.split(X, y))), X, y, lambda: count() - 6 or 3, 3)


@pytest.mark.parametrize("kind", [FairQATClassifier, PrunedClassifier])
def test_the_other_classifiers(problem, classifier, kind):
    X, y, _ = problem
    clf, count = classifier
    clf = kind(clf.estimator, memory=clf.memory, random_state=0, finetune_epochs=1)
    name = "finetune_lr" if kind is FairQATClassifier else "amount"
    check(GridSearchCV(clf, {name: [0.1, 0.2]}, cv=2), X, y, count, 3)


def test_candidates_that_are_not_trained_are_left_alone(problem, classifier):
    X, y, _ = problem
    clf, count = classifier
    codes = np.unique(y, return_inverse=True)[1]
    frozen = FrozenEstimator(small().fit(X, codes))
    pipeline = make_pipeline(StandardScaler(), clf)
    grid = [
        {"quantizedclassifier": [DummyClassifier()]},
        {"quantizedclassifier__estimator": [clf.estimator, frozen]},
    ]
    check(GridSearchCV(pipeline, grid, cv=2), X, codes, count, 3)


def test_failures_are_the_searchs_to_judge(problem, classifier):
    X, y, _ = problem
    clf, _ = classifier
    options = {"cv": KFold(2), "refit": False}
    rates = {"estimator__lr": [0.1, 1e30]}
    done = warm_up(GridSearchCV(clf, rates, **options), X, y)
    assert (done.n_trainings, done.n_failed) == (4, 2)
    clf.set_params(random_state=1)
    with pytest.raises(ValueError, match="diverged"):
        warm_up(GridSearchCV(clf, rates, error_score="raise", **options), X, y)
    with pytest.raises(ValueError, match=r"all 2 fits failed; the first with: ValueError\('bit_budget"):
        warm_up(GridSearchCV(clf, {"bit_budget": [3]}, **options), X, y)


BAD = {
    "no memory": (
        lambda clf: GridSearchCV(clf.set_params(memory=None), BITS),
        ValueError,
        "memory of QuantizedClassifier is None.*set memory to a folder",
    ),
    "a memory without a place": (
        lambda clf: GridSearchCV(clf.set_params(memory=joblib.Memory(None)), BITS),
        ValueError,
        "memory of QuantizedClassifier is Memory",
    ),
    "one candidate without": (
        lambda clf: GridSearchCV(clf, {"memory": [clf.memory, None]}),
        ValueError,
        "memory of QuantizedClassifier is None",
    ),
    "no seed": (
        lambda clf: GridSearchCV(clf.set_params(random_state=None), BITS),
        ValueError,
        "random_state of QuantizedClassifier is None",
    ),
    "nothing of skqfair": (
        lambda clf: GridSearchCV(DummyClassifier(), {"strategy": ["prior"]}),
        TypeError,
        "no classifier of skqfair, but a DummyClassifier",
    ),
    "deep inside": (
        lambda clf: GridSearchCV(CalibratedClassifierCV(clf), {"method": ["sigmoid"]}),
        TypeError,
        "inside of a CalibratedClassifierCV",
    ),
    "halving": (
        lambda clf: HalvingGridSearchCV(clf, BITS),
        TypeError,
        "got HalvingGridSearchCV; the fits of others depend on the scores",
    ),
    "not a search": (lambda clf: clf, TypeError, "got QuantizedClassifier"),
    "candidates drawn anew": (
        lambda clf: RandomizedSearchCV(clf, BITS),
        ValueError,
        "search: RandomizedSearchCV has random_state=None and draws anew",
    ),
    "splits drawn anew": (
        lambda clf: GridSearchCV(clf, BITS, cv=KFold(2, shuffle=True)),
        ValueError,
        "cv: KFold has random_state=None",
    ),
    "splits of a shared generator": (
        lambda clf: GridSearchCV(clf, BITS, cv=ShuffleSplit(random_state=np.random.RandomState(0))),
        ValueError,
        r"cv: ShuffleSplit has random_state=RandomState",
    ),
    "splits that are used up": (
        lambda clf: GridSearchCV(clf, BITS, cv=iter([(np.arange(200), np.arange(200, 400))])),
        ValueError,
        r"cv is an iterator.*list\(cv\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_warmed_up_is_refused(problem, classifier, case):
    X, y, _ = problem
    make, error, message = BAD[case]
    with pytest.raises(error, match=message):
        warm_up(make(classifier[0]), X, y)
    assert classifier[1]() == 0


class Held:
    """Holds what cannot be hashed."""

    def __init__(self):
        self.lock = threading.Lock()

    def __deepcopy__(self, memo):
        return self


class Holder(Callback):
    def __init__(self, held):
        self.held = held


def test_networks_that_cannot_be_hashed_are_refused(problem, classifier):
    X, y, _ = problem
    clf, _ = classifier
    clf.estimator.set_params(callbacks=[Holder(Held())])
    with (
        pytest.warns(CacheBypassWarning, match="cannot be hashed"),
        pytest.raises(ValueError, match="memory is bypassed"),
    ):
        warm_up(GridSearchCV(clf, BITS, error_score="raise"), X, y)
