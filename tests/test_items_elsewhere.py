"""Datasets of torch beyond the fits of single classifiers: offsets, audits, scorers, searches."""

import numpy as np
import pandas as pd
import pytest
import torch
from items import GROUPS, IMAGES, INPUTS, LABELS, NET, TWO, ImagesOnDisk, Samples, named
from sklearn.dummy import DummyClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.helper import SliceDataset
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from skqfair import (
    CompressionAudit,
    FairOffsetClassifier,
    QuantizationDiagnostics,
    QuantizedClassifier,
    make_fairness_scorer,
)
from skqfair.curvature import per_sample_gradient_norms
from skqfair.export import OnnxClassifier, parity_report, to_onnx
from skqfair.metrics import fairness_counts_scorer
from skqfair.networks import TorchClassifier
from skqfair.parallel import warm_up

FLOATS = IMAGES.astype(np.float32)
PAIRS = ImagesOnDisk()
ALONE = Samples(lambda row: IMAGES[row])
MODEL = QuantizedClassifier(NET, weight_bits=4, random_state=0)


@pytest.fixture(scope="module")
def fitted():
    return QuantizedClassifier(NET, weight_bits=4, random_state=0).fit(FLOATS, LABELS)


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.LimitedOffsetsWarning")
@pytest.mark.parametrize("X", [PAIRS, SliceDataset(PAIRS), ALONE])
def test_offsets(X):
    clf = FairOffsetClassifier(MODEL, max_accuracy_drop=0.2, cv=2, random_state=0)
    wanted = clf.fit(FLOATS, LABELS, sensitive_features=GROUPS).predict_proba(FLOATS)
    frontier, score, offsets = clf.frontier_, clf.score(FLOATS, LABELS), clf.offsets_
    clf.fit(X, None if X is PAIRS else LABELS, sensitive_features=GROUPS)
    assert np.array_equal(clf.offsets_, offsets)
    assert np.array_equal(clf.predict_proba(X), wanted)
    assert np.array_equal(clf.predict(X), clf.classes_[wanted.argmax(1)])
    assert clf.frontier_.equals(frontier)
    assert clf.score(PAIRS) == clf.score(X, LABELS) == score


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.LimitedOffsetsWarning")
@pytest.mark.filterwarnings("ignore::skqfair.exceptions.TrainingSamplesWarning")
def test_offsets_of_a_frozen_classifier(fitted):
    clf = FairOffsetClassifier(FrozenEstimator(fitted), max_accuracy_drop=0.2)
    wanted = clf.fit(FLOATS, LABELS, sensitive_features=GROUPS).decision_function(FLOATS)
    clf.fit(PAIRS, sensitive_features=GROUPS)
    assert np.array_equal(clf.decision_function(PAIRS), wanted)


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.LimitedOffsetsWarning")
def test_offsets_of_several_inputs():
    clf = FairOffsetClassifier(QuantizedClassifier(TWO, random_state=0), cv=2, random_state=0)
    wanted = clf.fit(INPUTS, LABELS, sensitive_features=GROUPS).predict_proba(INPUTS)
    tuples = Samples(lambda row: (tuple(named(row).values()), LABELS[row]))
    assert np.array_equal(clf.fit(tuples, sensitive_features=GROUPS).predict_proba(tuples), wanted)


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.LimitedOffsetsWarning")
def test_offsets_of_files_are_read_by_batch(tmp_path, monkeypatch):
    """No part for a fold is copied out of a memmap."""
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, FLOATS.shape)
    X[:] = FLOATS
    clf = FairOffsetClassifier(MODEL, cv=2, random_state=0)
    wanted = clf.fit(FLOATS, LABELS).predict_proba(FLOATS)
    monkeypatch.setattr("skqfair.classifiers._offset_samples._safe_indexing", None)
    assert np.array_equal(clf.fit(X, LABELS).predict_proba(X), wanted)


def test_offsets_of_other_classifiers():
    """Who knows arrays alone gets arrays."""
    rows = IMAGES[:, :, 0, 0].astype(float)
    items = Samples(lambda row: (rows[row], LABELS[row]))
    clf = FairOffsetClassifier(make_pipeline(StandardScaler(), LogisticRegression()), random_state=0)
    wanted = clf.fit(rows, LABELS).predict_proba(rows)
    assert np.array_equal(clf.fit(items).predict_proba(items), wanted)
    dicts = Samples(lambda row: (named(row), LABELS[row]))
    with pytest.raises(TypeError, match="several inputs are not one array"):
        FairOffsetClassifier(LogisticRegression()).fit(dicts)


def test_offsets_of_bad_items():
    bad = Samples(lambda row: (np.where(row == 30, np.nan, FLOATS[row]), LABELS[row]))
    with pytest.raises(ValueError, match="Input X contains NaN"):
        FairOffsetClassifier(MODEL).fit(bad)
    with pytest.raises(ValueError, match="y is given twice"):
        FairOffsetClassifier(MODEL).fit(PAIRS, LABELS)
    with pytest.raises(ValueError, match=r"requires y to be passed.*only the items"):
        FairOffsetClassifier(MODEL).fit(ALONE)
    with pytest.raises(ValueError, match=r"FairOffsetClassifier .*requires y to be passed"):
        FairOffsetClassifier(MODEL).fit(IMAGES)


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.SmallGroupWarning")
def test_audits_and_reports(fitted, tmp_path):
    models = {"float": fitted.float_classifier_, "int4": fitted, "none": DummyClassifier()}
    models["none"].fit(FLOATS, LABELS)
    options = {"sensitive_features": GROUPS}
    wanted = CompressionAudit.from_models(models, FLOATS, LABELS, **options)
    found = CompressionAudit.from_models(models, PAIRS, **options)
    assert found.groups.equals(wanted.groups)
    assert found.models.equals(wanted.models)
    assert found.context["data_sha256"] == wanted.context["data_sha256"]
    with pytest.raises(
        ValueError, match=r"from the items \(x, label\) of a Dataset; got Samples without"
    ):
        CompressionAudit.from_models(models, ALONE, **options)

    deployed = OnnxClassifier(to_onnx(fitted, tmp_path / "model.onnx")).fit()
    wanted = parity_report(fitted, deployed, FLOATS, LABELS, **options)
    assert parity_report(fitted, deployed, PAIRS, **options).equals(wanted)
    assert deployed.score(PAIRS) == fitted.score(FLOATS, LABELS)

    diagnostics = QuantizationDiagnostics(FrozenEstimator(fitted), n_eigenvalues=0, random_state=0)
    wanted = diagnostics.fit(FLOATS, LABELS, **options).group_report_
    assert diagnostics.fit(PAIRS, **options).group_report_.equals(wanted)
    assert np.array_equal(diagnostics.transform(PAIRS), diagnostics.transform(FLOATS))


def test_audit_of_a_search():
    search = GridSearchCV(MODEL, {"weight_bits": [None, 2]}, cv=2)
    options = {"sensitive_features": GROUPS, "X_train": FLOATS, "y_train": LABELS}
    search.fit(FLOATS, LABELS)
    wanted = CompressionAudit.from_search(search, FLOATS, LABELS, **options)
    options.update(X_train=PAIRS, y_train=None)
    assert CompressionAudit.from_search(search, PAIRS, **options).models.equals(wanted.models)


def test_curvature(fitted):
    module, y = fitted.estimator_.module_, (LABELS == "yes").astype(int)
    wanted = per_sample_gradient_norms(module, FLOATS, y)
    assert np.array_equal(per_sample_gradient_norms(module, ALONE, y), wanted)
    with pytest.raises(TypeError, match="X has several inputs"):
        per_sample_gradient_norms(module, Samples(named), y)


def test_a_trained_module_scores_items(fitted):
    clf = TorchClassifier(fitted.estimator_.module_, classes=["no", "yes"])
    assert clf.score(PAIRS) == clf.score(FLOATS, LABELS)
    with pytest.raises(ValueError, match=r"y is None, .* got ndarray without labels"):
        clf.score(FLOATS)


# ------------------------------------------------------------ searches

GRID = {"weight_bits": [2, 8]}


@pytest.mark.parametrize("counting", [False, True])
def test_scorers_find_the_groups_of_items(counting):
    """By the numbers of the items."""
    groups = pd.Series(GROUPS, name="group")
    if counting:
        scorer = fairness_counts_scorer(sensitive_features=groups, groups=["a", "b"])
    else:
        scorer = make_fairness_scorer(sensitive_features=groups)
    options = {"cv": 2, "error_score": "raise", "refit": "fvo" if counting else True}
    wanted = GridSearchCV(MODEL, GRID, scoring=scorer, **options)
    frame = pd.DataFrame(FLOATS.reshape(40, -1))
    net = MODEL.get_params()["estimator"]

    class Flat(QuantizedClassifier):
        """Takes frames of images."""

        def fit(self, X, y, **options):
            return super().fit(_images(X), y, **options)

        def predict(self, X):
            return super().predict(_images(X))

    wanted.estimator = Flat(net, random_state=0)
    wanted.fit(frame, LABELS)
    found = GridSearchCV(MODEL, GRID, scoring=scorer, **options).fit(SliceDataset(PAIRS), LABELS)
    for name in found.cv_results_:
        if "test" in name:
            assert np.array_equal(found.cv_results_[name], wanted.cv_results_[name]), name
    model = found.best_estimator_
    assert scorer(model, PAIRS) == scorer(model, PAIRS, LABELS)


def _images(X):
    return X.to_numpy().reshape(-1, 3, 8, 8) if isinstance(X, pd.DataFrame) else X


@pytest.mark.parametrize(
    ("item", "shapes"),
    [
        (lambda row: (IMAGES[row], np.array([row % 2])), r"\{0: \(3, 8, 8\), 1: \(1,\)\}"),
        (lambda row: (IMAGES[row], row % 2, row % 3), r"\{0: \(3, 8, 8\), 1: \(\), 2: \(\)\}"),
        (lambda row: {"x": IMAGES[row], "label": row % 2}, r"\{'x': \(3, 8, 8\), 'label': \(\)\}"),
    ],
)
def test_what_is_no_label(item, shapes):
    with pytest.raises(ValueError, match=f"the label a single number or text, .*{shapes}"):
        MODEL.fit(Samples(item))


def test_a_last_batch_of_one_item_and_parts_of_datasets():
    whole = ConcatDataset([Subset(PAIRS, range(1, 40)), Subset(PAIRS, [0])])
    order = np.r_[1:40, 0]
    for n in (33, 40):  # batches of 16
        wanted = MODEL.fit(FLOATS[order[:n]], LABELS[order[:n]]).predict_proba(FLOATS)
        assert np.array_equal(MODEL.fit(Subset(whole, range(n))).predict_proba(PAIRS), wanted)


def test_groups_that_are_not_numbered_as_the_items(fitted):
    groups = pd.Series(GROUPS, index=np.arange(40)[::-1])
    scorer = make_fairness_scorer(sensitive_features=groups)
    with pytest.raises(ValueError, match=r"a Dataset of 40 items.*0 to 39 in this order.*reset_index"):
        scorer(fitted, SliceDataset(PAIRS), LABELS)
    short = make_fairness_scorer(sensitive_features=pd.Series(GROUPS[:20]))
    with pytest.raises(ValueError, match="a Dataset of 40 items"):
        short(fitted, SliceDataset(PAIRS)[np.arange(20)], LABELS[:20])
    with pytest.raises(ValueError, match="names columns, so X must be a frame"):
        make_fairness_scorer(sensitive_features="sex")(fitted, PAIRS, LABELS)


def test_scikit_learn_slices_a_bare_dataset():
    """Into lists of items: those of x alone are an array, others are refused with the remedy."""
    wanted = cross_val_score(MODEL, FLOATS, LABELS, cv=2)
    for X in (ALONE, Samples(lambda row: torch.tensor(IMAGES[row]))):
        assert np.array_equal(cross_val_score(MODEL, X, LABELS, cv=2), wanted)
    for X in (PAIRS, TensorDataset(torch.tensor(IMAGES)), Samples(named)):
        with pytest.raises(ValueError, match=r"a list of items of a Dataset.*SliceDataset\(dataset\)"):
            GridSearchCV(MODEL, GRID, cv=2).fit(X, LABELS)


def test_a_warm_up_with_items(tmp_path):
    search = GridSearchCV(MODEL, GRID, cv=2)
    search.estimator = QuantizedClassifier(NET, random_state=0, memory=str(tmp_path))
    assert warm_up(search, SliceDataset(PAIRS), LABELS).n_trained == 3
    assert warm_up(search, FLOATS, LABELS).n_found == 3
