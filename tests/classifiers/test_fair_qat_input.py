"""Bad input of the fine-tuning, searches over mitigations, and metadata through pipelines."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from nets import counting, small
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.dataset import Dataset
from torch.utils.data import Sampler

from skqfair import FairQATClassifier, make_fairness_scorer
from skqfair.exceptions import EmptyGroupWarning

NEEDS = "needs groups: pass sensitive_features to fit"
PARAMETERS = {
    "weight above": ({"mitigation_weight": 1.1}, r"'mitigation_weight' .* in the range \[0.0, 1.0\]"),
    "weight below": ({"mitigation_weight": -0.1}, "'mitigation_weight'"),
    "sampling": ({"sampling": "smote"}, "'sampling' .*'undersample'"),
    "balance": ({"balance": "sex"}, "'balance' .*'group_class'"),
    "penalty": ({"gap_penalty": -1}, "'gap_penalty'"),
    "bound": ({"accuracy_bound": 2}, "'accuracy_bound'"),
    "fraction": ({"validation_fraction": 1.0}, "'validation_fraction'"),
    "tiny fraction": ({"validation_fraction": 1e-4}, "validation_fraction=0.0001 leaves nothing"),
    "epochs": ({"finetune_epochs": -1}, "'finetune_epochs'"),
    "lr": ({"finetune_lr": 0}, "'finetune_lr'"),
    "calibration": ({"calibration": "max"}, "'calibration'"),
    "sampling without groups": (
        {"sampling": "balanced"},
        f"balance='group' {NEEDS}, or set balance=\"class\"",
    ),
    "weight without groups": (
        {"mitigation_weight": 0.5, "balance": "group_class"},
        f"balance='group_class' {NEEDS}",
    ),
    "penalty without groups": ({"gap_penalty": 0.5}, f"gap_penalty=0.5 {NEEDS}"),
    "bound without groups": ({"accuracy_bound": 0.1}, f"accuracy_bound=0.1 {NEEDS}"),
}


@pytest.mark.parametrize("case", PARAMETERS)
def test_bad_parameters_are_found_before_the_training(problem, case, tmp_path):
    X, y, _ = problem
    options, message = PARAMETERS[case]
    net, count = counting(tmp_path / "log")
    with pytest.raises(ValueError, match=message):
        FairQATClassifier(net, random_state=0, **options).fit(X, y)
    assert count() == 0


def test_classes_can_be_balanced_without_groups(problem):
    X, y, _ = problem
    clf = FairQATClassifier(small(), balance="class", sampling="balanced", finetune_epochs=1)
    assert list(clf.fit(X, y).cell_weights_.index) == ["high", "low", "mid"]


class Twice(Dataset):
    """Every row twice."""

    def __len__(self):
        return 2 * super().__len__()

    def __getitem__(self, index):
        return super().__getitem__(index // 2)


def test_sampling_needs_one_item_a_row(problem):
    X, y, groups = problem
    net = small(dataset=Twice)
    with pytest.raises(ValueError, match=r"one item for each row of X.*800 items for 400 rows"):
        FairQATClassifier(net, sampling="balanced").fit(X, y, sensitive_features=groups)


class Reversed(Sampler):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __iter__(self):
        return iter(range(self.n)[::-1])


def test_a_sampler_of_the_net_gives_way_while_cells_are_sampled(problem):
    X, y, groups = problem
    net = small(iterator_train__sampler=Reversed(400), iterator_train__shuffle=False)
    clf = FairQATClassifier(net, sampling="balanced", random_state=0)
    clf.fit(X, y, sensitive_features=groups)
    assert clf.estimator_.iterator_train__sampler.n == 400


def test_a_group_that_is_absent_from_a_fold(problem):
    X, y, groups = problem
    kept = groups != "c"
    named = pd.Series(groups, dtype="category")
    clf = FairQATClassifier(small(), sampling="balanced", gap_penalty=0.5, random_state=0)
    with pytest.warns(EmptyGroupWarning, match="c"):
        clf.fit(X[kept], y[kept], sensitive_features=named[kept])
    assert list(clf.cell_weights_.index) == ["a", "b"]
    assert len(clf.predict(X)) == 400


def test_a_grid_over_mitigations_trains_each_fold_once(problem, tmp_path):
    X, y, groups = problem
    net, count = counting(tmp_path / "log")
    grid = {
        "weight_bits": [2, 4],
        "mitigation_weight": [0.0, 1.0],
        "sampling": [None],
        "finetune_epochs": [0, 2],
        "calibration": ["mse", "learned"],
    }
    clf = FairQATClassifier(net, memory=str(tmp_path), random_state=0)
    scoring = {
        "accuracy": "accuracy",
        "fvo": make_fairness_scorer(sensitive_features=pd.Series(groups)),
    }
    search = GridSearchCV(clf, grid, scoring=scoring, cv=2, refit="accuracy", error_score="raise")
    search.fit(pd.DataFrame(X), y, sensitive_features=groups)
    assert count() == 3
    fvo = search.cv_results_["mean_test_fvo"]
    assert np.isfinite(fvo).all()
    assert len(np.unique(fvo)) > 4


def test_routing_through_a_pipeline(problem):
    X, y, groups = problem
    net = small(max_epochs=1)
    options = {"sampling": "balanced", "balance": "group_class", "finetune_epochs": 1, "random_state": 0}
    direct = FairQATClassifier(net, **options)
    scaled = StandardScaler().fit_transform(X)
    direct.fit(scaled, y, sensitive_features=groups, sample_weight=np.arange(400) % 3)
    with sklearn.config_context(enable_metadata_routing=True):
        clf = FairQATClassifier(net, **options).set_fit_request(sample_weight=True)
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), clf)
        pipeline.fit(X, y, sensitive_features=groups, sample_weight=np.arange(400) % 3)
    np.testing.assert_array_equal(pipeline.predict_proba(X), direct.predict_proba(scaled))


def test_a_frozen_net_is_only_fine_tuned(problem):
    X, y, groups = problem
    net = small(max_epochs=4).fit(X, np.searchsorted(["high", "low", "mid"], y.astype(str)))
    clf = FairQATClassifier(FrozenEstimator(net), validation_fraction=0.2, sampling="oversample")
    clf.fit(X, np.searchsorted(["high", "low", "mid"], y.astype(str)), sensitive_features=groups)
    assert len(clf.estimator_.history) == 4
    assert clf.best_epoch_ in range(1, 6)
