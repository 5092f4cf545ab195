import os

import joblib
import numpy as np
import pandas as pd
import pytest
from distributed.scheduler import KilledWorker
from items import GROUPS, IMAGES, LABELS, NET, ImagesOnDisk
from mortal import STAGES, mortal_search, order, reached
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.helper import SliceDataset

from skqfair import QuantizedClassifier, make_fairness_scorer
from skqfair.parallel import warm_up  # and the backend is registered

SLOW = pytest.mark.slow


def splits_of(search):
    results = search.cv_results_
    return np.array([results[f"split{i}_test_score"] for i in range(3)])


@pytest.fixture(scope="module")
def undisturbed(problem_of_module, tmp_path_factory):
    X, y = problem_of_module
    return mortal_search(tmp_path_factory.mktemp("undisturbed")).fit(X, y)


@pytest.fixture(scope="module")
def problem_of_module():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 6)).astype(np.float32)  # 72 kB: travels on its own
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.3)


def test_a_search_ends_as_a_serial_one(client, problem_of_module, undisturbed, tmp_path):
    with joblib.parallel_config(backend="dask_resilient"):
        search = mortal_search(tmp_path / "search").fit(*problem_of_module)
    np.testing.assert_array_equal(splits_of(search), splits_of(undisturbed))
    assert reached(tmp_path / "search", "training") == 10


@pytest.mark.parametrize(
    "stage", [pytest.param(s, marks=pytest.mark.slow) for s in STAGES[1:]] + ["training"]
)
def test_a_killed_worker_costs_its_task_only(client, problem_of_module, undisturbed, tmp_path, stage):
    search = mortal_search(tmp_path / "search", memory=str(tmp_path / "cache"))
    order(tmp_path / "search", stage)
    with joblib.parallel_config(backend="dask_resilient"):
        search.fit(*problem_of_module)
    assert not (tmp_path / "search" / stage).exists()  # it was killed
    np.testing.assert_array_equal(splits_of(search), splits_of(undisturbed))
    assert reached(tmp_path / "search", "training") == 4 + (stage == "training")


@pytest.mark.slow
def test_ten_searches_with_three_kills_each(client, problem_of_module, undisturbed, tmp_path):
    for i in range(10):
        folder = tmp_path / f"search{i}"
        search = mortal_search(folder)
        for stage in STAGES:
            order(folder, stage)
        with joblib.parallel_config(backend="dask_resilient"):
            search.fit(*problem_of_module)
        assert not any((folder / stage).exists() for stage in STAGES)
        np.testing.assert_array_equal(splits_of(search), splits_of(undisturbed))


def test_a_search_of_a_dataset_ends_as_one_of_an_array(client):
    """Its items are opened by the workers; a scorer finds their groups."""
    scorer = make_fairness_scorer(sensitive_features=pd.Series(GROUPS))
    options = {"cv": 2, "error_score": "raise"}
    model = QuantizedClassifier(NET, random_state=0)
    X = SliceDataset(ImagesOnDisk())
    search = GridSearchCV(model, {"weight_bits": [2, 4]}, scoring=scorer, **options)
    wanted = clone(search).fit(X, LABELS)
    with joblib.parallel_config(backend="dask_resilient"):
        search.fit(X, LABELS)
    for name in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(search.cv_results_[name], wanted.cv_results_[name])
    probabilities = search.best_estimator_.predict_proba(X)
    best = clone(model).set_params(**search.best_params_).fit(IMAGES.astype("f4"), LABELS)
    np.testing.assert_array_equal(probabilities, best.predict_proba(IMAGES.astype("f4")))


class Logged:
    """Writes a line whenever it arrives somewhere."""

    def __init__(self, log, size):
        self.log, self.data = log, bytes(size)

    def __setstate__(self, state):
        vars(self).update(state)
        with open(self.log, "a") as file:
            file.write("x")


def size_of(obj, i):
    return len(obj.data) + i


@pytest.mark.parametrize(("size", "arrivals"), [(1_000_000, [1, 2]), (10, [12, 24])])
def test_large_arguments_travel_once_a_worker(client, tmp_path, size, arrivals):
    """Small ones with each task, and through the scheduler."""
    obj = Logged(tmp_path / "log", size)
    with joblib.parallel_config(backend="dask_resilient", n_jobs=2):
        found = joblib.Parallel()(joblib.delayed(size_of)(obj, i) for i in range(12))
    assert found == [size + i for i in range(12)]
    assert arrivals[0] <= len((tmp_path / "log").read_text()) <= arrivals[1]


def test_scattered_objects_stay_from_call_to_call(client, tmp_path):
    obj = Logged(tmp_path / "log", 10)
    with joblib.parallel_config(backend="dask_resilient", scatter=[obj]):
        for _ in range(2):
            found = joblib.Parallel()(joblib.delayed(size_of)(obj, i) for i in range(4))
            assert found == [10, 11, 12, 13]
    assert 1 <= len((tmp_path / "log").read_text()) <= 2


def test_what_changed_between_calls_is_sent_anew(client):
    X = np.zeros(100_000)
    with joblib.parallel_config(backend="dask_resilient"):
        for value in (0, 1):
            X[:] = value
            assert set(joblib.Parallel()(joblib.delayed(np.sum)(X) for _ in range(3))) == {value * 1e5}


def nested_backend():
    return type(joblib.parallel.get_active_backend()[0]).__name__


def test_calls_inside_of_tasks_are_resilient_too(client):
    with joblib.parallel_config(backend="dask_resilient"):
        names = joblib.Parallel()(joblib.delayed(nested_backend)() for _ in range(2))
    assert set(names) == {"DaskResilientBackend"}


def pid():
    return os.getpid()


def test_a_cluster_of_one_thread_is_used(client, monkeypatch):
    monkeypatch.setattr(client, "ncores", lambda: {"tcp://one": 1})
    with joblib.parallel_config(backend="dask_resilient"):
        assert os.getpid() not in joblib.Parallel()(joblib.delayed(pid)() for _ in range(2))


def fail(how):
    if how == "raise":
        raise ZeroDivisionError("so it is")
    os._exit(1)


def test_errors_of_tasks_are_raised(client):
    with (
        joblib.parallel_config(backend="dask_resilient"),
        pytest.raises(ZeroDivisionError, match="so it is"),
    ):
        joblib.Parallel()(joblib.delayed(fail)("raise") for _ in range(3))


def test_a_task_that_kills_its_workers_ends_the_call(client, monkeypatch):
    """joblib's own backend waits for ever."""
    monkeypatch.setattr(client.cluster.scheduler, "allowed_failures", 0)
    with (
        joblib.parallel_config(backend="dask_resilient"),
        pytest.raises(KilledWorker, match="all those workers died"),
    ):
        joblib.Parallel()(joblib.delayed(fail)("exit") for _ in range(1))


def test_a_warm_up_leaves_the_search_nothing_to_train(client, problem_of_module, undisturbed, tmp_path):
    search = mortal_search(tmp_path / "search", memory=str(tmp_path / "cache"))
    order(tmp_path / "search", "training")
    with joblib.parallel_config(backend="dask_resilient"):
        done = warm_up(search, *problem_of_module)
        assert (done.n_trainings, done.n_trained) == (4, 4)
        assert reached(tmp_path / "search", "training") == 4 + 1
        search.fit(*problem_of_module)
    assert reached(tmp_path / "search", "training") == 4 + 1
    np.testing.assert_array_equal(splits_of(search), splits_of(undisturbed))


def test_scatter_must_be_a_list(client):
    with pytest.raises(TypeError, match="scatter must be a list or tuple of objects, got ndarray"):
        joblib.parallel_config(backend="dask_resilient", scatter=np.zeros(3))
