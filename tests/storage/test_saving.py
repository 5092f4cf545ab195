"""skops files: what must be trusted, and that all is the same afterwards."""

import copy
import importlib
import pickle
import re

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from nets import CODES, skorch_net, small
from saving import path, same, saved
from sklearn import config_context
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EarlyStopping, EpochScoring, LRScheduler, ProgressBar
from skorch.exceptions import DeviceWarning
from torch import nn
from torch.utils.hooks import RemovableHandle

from skqfair import FairQATClassifier, PrunedClassifier, QuantizationDiagnostics, QuantizedClassifier
from skqfair.networks import MLP, ConvNet, make_classifier
from skqfair.storage._allowed_names import PUBLIC_NAMES, library_object

OWN = {
    cls: f"skqfair.{cls.__name__}"
    for cls in (QuantizedClassifier, FairQATClassifier, PrunedClassifier, QuantizationDiagnostics)
}
LOW = {"weight_bits": 3, "activation_bits": 6, "random_state": 0}


@pytest.fixture(
    params=[
        QuantizedClassifier(small(), **LOW),
        FairQATClassifier(small(), gap_penalty=0.5, sampling="balanced", **LOW),
        PrunedClassifier(small(), amount=0.6, random_state=0),
        QuantizationDiagnostics(small(), weight_bits=[4, 3], activation_bits=6, random_state=0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def fitted(problem, request):
    X, y, _ = problem
    groups = X[:, 2] > 0
    return clone(request.param).fit(X, y, sensitive_features=groups)


def test_only_the_estimator_itself_is_to_be_trusted(problem, fitted):
    X, _, _ = problem
    loaded = saved(fitted, type(fitted))
    assert path(type(fitted)) == OWN[type(fitted)]
    same(vars(loaded), vars(fitted))
    method = "transform" if isinstance(fitted, QuantizationDiagnostics) else "decision_function"
    np.testing.assert_array_equal(getattr(loaded, method)(X), getattr(fitted, method)(X))


def test_a_loaded_estimator_is_saved_pickled_and_cloned_like_the_first(problem, fitted):
    loaded = saved(fitted, type(fitted))
    same(vars(saved(loaded, type(fitted))), vars(fitted))
    same(vars(pickle.loads(pickle.dumps(loaded))), vars(fitted))
    same(vars(copy.deepcopy(loaded)), vars(fitted))
    assert not hasattr(clone(loaded), "classes_")
    shallow = copy.copy(loaded)
    assert all(value is vars(loaded)[name] for name, value in vars(shallow).items())


def test_unfitted(problem):
    X, y, _ = problem
    schedule = LRScheduler("StepLR", step_size=1)
    net = skorch_net(callbacks=[EarlyStopping(), schedule, ProgressBar()], module=MLP)
    clf = QuantizedClassifier(net, random_state=0)
    loaded = saved(clf, QuantizedClassifier)
    kinds = [[type(c) for c in e.estimator.callbacks] for e in (loaded, clf)]
    assert kinds == [[EarlyStopping, LRScheduler, ProgressBar]] * 2
    np.testing.assert_array_equal(loaded.fit(X, y).predict_proba(X), clf.fit(X, y).predict_proba(X))
    assert saved(QuantizedClassifier(weight_bits=5), QuantizedClassifier).weight_bits == 5


def test_metadata_requests():
    with config_context(enable_metadata_routing=True):
        clf = QuantizedClassifier().set_fit_request(sample_weight=True)
        loaded = saved(clf, QuantizedClassifier)
        found = loaded.get_metadata_routing().fit.requests
        assert found == {"sample_weight": True, "sensitive_features": True}


def test_training_goes_on_where_it_was(problem):
    X, y, _ = problem
    y = np.array([CODES[label] for label in y])
    callbacks = [
        EarlyStopping(load_best=True),
        EpochScoring("f1_macro"),
        LRScheduler("StepLR", step_size=2),
    ]
    net = skorch_net(callbacks=callbacks, optimizer=torch.optim.Adam, lr=0.01, max_epochs=3, verbose=0)
    clf = QuantizedClassifier(net, random_state=0).fit(X, y)
    loaded = saved(clf, QuantizedClassifier)
    for each in (clf, loaded):
        torch.manual_seed(0)
        each.estimator_.partial_fit(X, y)
    assert len(loaded.estimator_.history) == 6
    same(loaded.estimator_.module_, clf.estimator_.module_)
    first = next(iter(loaded.estimator_.module_.parameters()))
    assert loaded.estimator_.optimizer_.param_groups[0]["params"][0] is first


def test_what_is_made_of_a_loaded_estimator(problem):
    X, y, _ = problem
    groups, y = X[:, 2] > 0, np.array([CODES[label] for label in y])
    clf = FairQATClassifier(small(), **LOW).fit(X, y)
    loaded, found = saved(clf, FairQATClassifier), []
    for each in (clf, loaded):
        frozen = FrozenEstimator(each.estimator_)
        coarse = QuantizedClassifier(frozen, weight_bits=2, activation_bits=4, random_state=0).fit(X, y)
        coarse = coarse if each is clf else saved(coarse, QuantizedClassifier)
        diagnostics = QuantizationDiagnostics(FrozenEstimator(each), random_state=0)
        diagnostics.fit(X, y, sensitive_features=groups)
        found.append((coarse.predict_proba(X), diagnostics.group_report_, diagnostics.attribution_))
    same(*found)


@pytest.mark.parametrize("library", ["skops.io", "joblib"])
def test_in_a_new_process_hooks_keep_their_places(
    problem, tmp_path, monkeypatch, new_processes, library
):
    """torch counts hooks anew in each process: new ones must not replace the quantizers."""
    X, y, _ = problem
    monkeypatch.setattr(RemovableHandle, "next_id", 0)
    clf = QuantizedClassifier(small(), weight_bits=4, activation_bits=3, random_state=0).fit(X, y)
    assert max(clf.module_.hidden0._forward_pre_hooks) < 20
    np.savez(tmp_path / "data.npz", X=X, expected=clf.predict_proba(X))
    {"skops.io": skops.io, "joblib": joblib}[library].dump(clf, tmp_path / "model")
    trusted = {"skops.io": {"trusted": [OWN[QuantizedClassifier]]}, "joblib": {}}[library]
    code = f"""
import {library}, numpy as np, torch
torch.set_num_threads(1)
model, data = {library}.load("model", **{trusted}), np.load("data.npz")
np.testing.assert_array_equal(model.predict_proba(data["X"]), data["expected"])
seen = []
for _ in range(20):
    model.module_.hidden0.register_forward_pre_hook(lambda *args: seen.append(1))
np.testing.assert_array_equal(model.predict_proba(data["X"]), data["expected"])
assert len(seen) == 20 * -(-len(data["X"]) // 128)
"""
    new_processes.run(code, tmp_path)


def test_the_same_in_a_new_process(problem, fitted, tmp_path, new_processes):
    X, _, _ = problem
    method = "transform" if isinstance(fitted, QuantizationDiagnostics) else "decision_function"
    np.savez(tmp_path / "data.npz", X=X, expected=getattr(fitted, method)(X))
    skops.io.dump(fitted, tmp_path / "model")
    code = f"""
import skops.io, numpy as np, torch
torch.set_num_threads(1)
model, data = skops.io.load("model", trusted=["{OWN[type(fitted)]}"]), np.load("data.npz")
np.testing.assert_array_equal(model.{method}(data["X"]), data["expected"])
"""
    new_processes.run(code, tmp_path)


class Subclass(QuantizedClassifier):
    pass


def test_pipelines_searches_and_subclasses(problem):
    X, y, _ = problem
    pipeline = make_pipeline(StandardScaler(), Subclass(small(), random_state=0))
    loaded = saved(clone(pipeline).fit(X, y), Subclass)
    np.testing.assert_array_equal(loaded.predict_proba(X), clone(pipeline).fit(X, y).predict_proba(X))
    search = GridSearchCV(pipeline, {"subclass__weight_bits": [2, 8]}, cv=2, error_score="raise").fit(
        X, y
    )
    loaded = saved(search.best_estimator_, Subclass)
    np.testing.assert_array_equal(loaded.predict_proba(X), search.predict_proba(X))


def test_a_whole_search(problem):
    """skops itself asks for scikit-learn's scorer and splitter."""
    X, y, _ = problem
    clf = QuantizedClassifier(small(), random_state=0)
    search = GridSearchCV(clf, {"weight_bits": [2, 8]}, cv=2, error_score="raise").fit(X, y)
    data = skops.io.dumps(search)
    untrusted = skops.io.get_untrusted_types(data=data)
    assert [name for name in untrusted if not name.startswith("sklearn.")] == [OWN[QuantizedClassifier]]
    loaded = skops.io.loads(data, trusted=untrusted)
    np.testing.assert_array_equal(loaded.predict_proba(X), search.predict_proba(X))
    assert loaded.best_params_ == search.best_params_


def test_from_a_gpu_to_where_there_is_none(problem, monkeypatch):
    X, y, _ = problem
    clf = QuantizedClassifier(small(), activation_bits=6, random_state=0).fit(X, y)
    expected = clf.predict_proba(X)
    clf.estimator_.device = "cuda"
    state = clf.__getstate__()
    state["table"] = state["table"].replace('"cpu"', '"cuda:0"')
    assert state["table"].count('"cuda:0"') > 10
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loaded = QuantizedClassifier()
    with pytest.warns(DeviceWarning, match="no CUDA devices"):
        loaded.__setstate__(state)
    assert loaded.estimator_.device == "cpu"
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)


def test_frozen_networks_and_other_labels(problem, tmp_path):
    X, y, _ = problem
    codes = np.array([CODES[label] for label in y])
    net = small().fit(X, codes)
    clf = QuantizedClassifier(FrozenEstimator(net), memory=tmp_path, weight_bits=2).fit(X, codes)
    loaded = saved(clf, QuantizedClassifier)
    assert loaded.memory == tmp_path
    np.testing.assert_array_equal(clone(loaded).fit(X, codes).predict(X), clf.predict(X))
    for labels in (codes > 0, y.astype(str), codes.astype(np.int8), codes * 1.0):
        clf = QuantizedClassifier(small(), random_state=0).fit(pd.DataFrame(X).add_prefix("x"), labels)
        loaded = saved(clf, QuantizedClassifier)
        same([loaded.classes_, loaded.feature_names_in_], [clf.classes_, clf.feature_names_in_])


# ------------------------------------------------------- what cannot be saved


def with_attribute(value):
    module = nn.Sequential(nn.Linear(6, 3))
    module[0].extra = {"deep": [value]}
    return QuantizedClassifier(make_classifier(module))


def local():
    class Local:
        pass

    return Local


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda x: x, "<lambda>.*top level of a module"),
        (local(), "local.*Local.*top level of a module"),
        (local()(), "an object of local.*Local"),
        (nn.Linear(2, 2).train, "Module.train cannot be saved without pickle; remove it"),
        (torch.ones(2, 2).to_sparse(), "a tensor of torch.sparse_coo"),
        (nn.LazyLinear(2).weight, "lazy parameter"),
    ],
    ids=["lambda", "local class", "object", "method", "sparse", "lazy"],
)
def test_what_cannot_be_saved_is_said_where_it_is(value, message):
    with pytest.raises(TypeError, match=rf"estimator > module > .*0.*extra > deep > 0: .*{message}"):
        skops.io.dumps(with_attribute(value))


# ------------------------------------------------------------------ versions


def test_another_format_is_refused_with_both_versions(problem, monkeypatch):
    X, y, _ = problem
    clf = QuantizedClassifier(small(), random_state=0).fit(X, y)
    with monkeypatch.context() as other:
        other.setattr("skqfair.storage._saved_state._FORMAT", 1)
        other.setattr("skqfair.storage._saved_state.__version__", "9.9")
        data, pickled = skops.io.dumps(clf), pickle.dumps(clf)
    message = (
        r"saved by skqfair 9\.9 in format 1; skqfair .* reads format 2\. Load it with skqfair==9\.9"
    )
    for load in (
        lambda: pickle.loads(pickled),
        lambda: skops.io.loads(data, trusted=[QuantizedClassifier]),
    ):
        with pytest.raises(ValueError, match=message):
            load()


def test_files_from_before_the_stamp_are_refused(problem):
    with pytest.raises(ValueError, match="by an unknown version of skqfair in format None"):
        QuantizedClassifier().__setstate__({"weight_bits": 8})
    with pytest.raises(ValueError, match="a list is no state"):
        QuantizedClassifier().__setstate__([])


def test_another_version_of_the_same_format_is_read(problem, monkeypatch):
    clf = QuantizedClassifier(weight_bits=5)
    with monkeypatch.context() as other:
        other.setattr("skqfair.storage._saved_state.__version__", "9.9")
        data, pickled = skops.io.dumps(clf), pickle.dumps(clf)
    assert pickle.loads(pickled).weight_bits == 5
    assert skops.io.loads(data, trusted=[QuantizedClassifier]).weight_bits == 5


def test_names_in_files_are_public(problem):
    """Moving a file inside the package changes no saved file."""
    pytest.importorskip("onnx_ir")
    X, y, _ = problem
    for public in PUBLIC_NAMES:
        module, _, name = public.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        assert (found.__module__, found.__qualname__) == (module, name)
        assert library_object(public) is found
        assert pickle.loads(pickle.dumps(found)) is found
        assert "._" not in public
    clf = QuantizedClassifier(small(), **LOW).fit(X, y)
    images = QuantizedClassifier(make_classifier(ConvNet(3, 2)), random_state=0)
    diagnostics = QuantizationDiagnostics(small(), weight_bits=[4], random_state=0)
    diagnostics.fit(X, y, sensitive_features=X[:, 2] > 0)
    for estimator in (clf, images, diagnostics):
        names = set(re.findall(r'"(skqfair\.[^"]*)"', estimator.__getstate__()["table"]))
        assert len(names) > 1
        assert names <= PUBLIC_NAMES
