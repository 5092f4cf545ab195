"""The exported model is a scikit-learn classifier: parameters, pickles, scorers, frames, batches."""

import pickle
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
import torch
from exports import fitted, mlp, rows
from fairlearn.metrics import MetricFrame
from module_zoo import build
from scipy.special import softmax
from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.validation import check_is_fitted

from skqfair import FairOffsetClassifier, make_fairness_scorer
from skqfair.exceptions import LimitedOffsetsWarning
from skqfair.export import OnnxClassifier, to_onnx
from skqfair.metrics import fairness_violation_observed

Y = np.arange(64) % 3


@pytest.fixture
def deployed(simple_path):
    return OnnxClassifier(simple_path)


def test_predictions(simple, deployed):
    X = rows(seed=1)
    logits = deployed.decision_function(X)
    np.testing.assert_allclose(logits, simple.decision_function(X), atol=1e-5)
    assert logits.dtype == np.float64
    np.testing.assert_allclose(deployed.predict_proba(X), softmax(logits, axis=1), atol=1e-12)
    np.testing.assert_allclose(deployed.predict_proba(X).sum(1), 1, atol=1e-12)
    np.testing.assert_array_equal(deployed.predict(X), simple.predict(X))
    assert deployed.score(X, Y) == np.mean(simple.predict(X) == Y)


def test_it_is_a_fitted_classifier(deployed, simple_path):
    check_is_fitted(deployed)
    assert is_classifier(deployed)
    assert deployed.fit() is deployed
    assert "OnnxClassifier" in repr(deployed)
    assert "OnnxClassifier" in deployed._repr_html_()
    assert len(repr(OnnxClassifier(simple_path.read_bytes()))) < 2000
    with pytest.raises(AttributeError, match="fitted without feature names"):
        deployed.feature_names_in_  # noqa: B018


def test_parameters(deployed, simple, simple_path, integer, integer_path):
    X = rows(seed=1)
    deployed.predict(X)
    deployed.set_params(path=integer_path, batch_size=7, n_threads=1)
    assert deployed.get_params() == {
        "path": integer_path,
        "classes": None,
        "output": None,
        "batch_size": 7,
        "n_threads": 1,
    }
    assert deployed.metadata_.activation_bits == {"0": 8, "2": 8}
    assert deployed._model.session.get_session_options().intra_op_num_threads == 1
    assert np.abs(deployed.decision_function(X) - integer.decision_function(X)).max() < 0.01
    other = clone(deployed).set_params(path=simple_path)
    np.testing.assert_array_equal(other.predict(X), simple.predict(X))


@pytest.mark.parametrize("dump", [(pickle.dumps, pickle.loads), "joblib"], ids=["pickle", "joblib"])
@pytest.mark.parametrize("used", [False, True])
def test_pickles_carry_the_model(dump, used, simple, simple_path, tmp_path):
    X, path = rows(seed=1), tmp_path / "model.onnx"
    shutil.copy(simple_path, path)
    deployed = OnnxClassifier(path)
    if used:
        deployed.predict(X)
    if dump == "joblib":
        joblib.dump(deployed, tmp_path / "model.joblib")
        path.unlink()
        restored = joblib.load(tmp_path / "model.joblib")
    else:
        content = dump[0](deployed)
        path.unlink()
        restored = dump[1](content)
    np.testing.assert_array_equal(restored.decision_function(X), deployed.decision_function(X))
    assert restored.path == str(path)


@pytest.mark.parametrize("frozen", [False, True])
def test_skops_files_carry_the_model(frozen, simple_path, tmp_path):
    X, path = rows(seed=1), tmp_path / "model.onnx"
    shutil.copy(simple_path, path)
    deployed = OnnxClassifier(path, batch_size=7)
    wanted = deployed.decision_function(X)
    pipeline = make_pipeline(FunctionTransformer(), FrozenEstimator(deployed) if frozen else deployed)
    data = skops.io.dumps(pipeline.fit(X))
    assert skops.io.get_untrusted_types(data=data) == ["skqfair.export.OnnxClassifier"]
    path.unlink()
    restored = skops.io.loads(data, trusted=["skqfair.export.OnnxClassifier"])
    np.testing.assert_array_equal(restored.decision_function(X), wanted)
    inner = restored[-1].estimator if frozen else restored[-1]
    assert (inner.path, inner.batch_size) == (str(path), 7)


def test_inside_a_saved_estimator_in_another_process(simple_path, tmp_path, new_processes):
    """Nobody has imported the export there."""
    X = rows(seed=1)
    deployed = OnnxClassifier(simple_path)
    y = deployed.predict(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimitedOffsetsWarning)
        clf = FairOffsetClassifier(FrozenEstimator(deployed)).fit(X, y, sensitive_features=X[:, 0] > 0)
    skops.io.dump(clf, tmp_path / "model.skops")
    np.save(tmp_path / "X.npy", X)
    code = (
        "import numpy as np, skops.io, skqfair\n"
        "clf = skops.io.load('model.skops', trusted=[skqfair.FairOffsetClassifier])\n"
        "np.save('found.npy', clf.predict_proba(np.load('X.npy')))"
    )
    new_processes.run(code, tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), clf.predict_proba(X))


def test_bytes_instead_of_a_path(simple, simple_path):
    X, content = rows(seed=1), simple_path.read_bytes()
    deployed = OnnxClassifier(content)
    saved = pickle.dumps(deployed)
    assert len(saved) < len(content) + 2000  # once
    np.testing.assert_array_equal(pickle.loads(saved).predict(X), simple.predict(X))
    assert clone(deployed).path == content
    assert deployed.model_size_ == len(content)


def test_scorers_and_frames(simple, deployed):
    X, groups = rows(), pd.Series(np.where(np.arange(64) % 5 == 0, "a", "b"), name="group")
    fvo = fairness_violation_observed(Y, simple.predict(X), sensitive_features=groups)
    scorer = make_fairness_scorer(sensitive_features=groups)
    frame = pd.DataFrame(X)
    named = OnnxClassifier(deployed.path)
    assert scorer(named, frame, Y) == pytest.approx(-fvo, abs=1e-12)
    scores = cross_val_score(FrozenEstimator(deployed), X, Y, cv=4)
    assert np.mean(scores) == pytest.approx(simple.score(X, Y))
    assert np.mean(cross_val_score(deployed, X, Y, cv=4)) == pytest.approx(np.mean(scores))
    by_group = MetricFrame(
        metrics=accuracy_score, y_true=Y, y_pred=deployed.predict(X), sensitive_features=groups
    ).by_group
    for name in "ab":
        chosen = groups == name
        assert by_group[name] == np.mean(simple.predict(X)[chosen] == Y[chosen])


def test_in_a_pipeline(simple, deployed):
    X = rows(seed=1)
    pipeline = make_pipeline(StandardScaler(), deployed).fit(3 + 2 * X, Y)
    scaled = (X - X.mean(0)) / X.std(0)
    np.testing.assert_allclose(
        pipeline.decision_function(3 + 2 * X), simple.decision_function(scaled), atol=1e-4
    )


def test_frames_with_names(tmp_path):
    names = ["a", "b", "c", "d", "e"]
    frame = pd.DataFrame(rows(), columns=names)
    classifier = fitted(mlp(), frame, weight_bits=4)
    deployed = OnnxClassifier(to_onnx(classifier, tmp_path / "model.onnx"))
    wanted = classifier.predict(frame)
    np.testing.assert_array_equal(deployed.predict(frame), wanted)
    np.testing.assert_array_equal(deployed.predict(pl.DataFrame(rows(), schema=names)), wanted)
    with pytest.raises(ValueError, match="feature names should match those that were passed"):
        deployed.predict(frame[names[::-1]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        deployed.predict(rows())


@pytest.mark.parametrize("which", ["simple_path", "integer_path"])
@pytest.mark.parametrize("size", [1, 7, 256])
def test_rows_do_not_depend_on_the_rows_beside_them(which, size, request):
    deployed = OnnxClassifier(request.getfixturevalue(which), batch_size=size)
    X = rows(30)
    together = deployed.decision_function(X)
    apart = np.concatenate([deployed.decision_function(X[i : i + 1]) for i in range(30)])
    np.testing.assert_array_equal(apart, together)
    np.testing.assert_array_equal(deployed.decision_function(X[::-1]), together[::-1])


def test_threads(simple, simple_path):
    X = rows(2000)
    wanted = OnnxClassifier(simple_path, n_threads=1).decision_function(X)
    shared = OnnxClassifier(simple_path, n_threads=2)
    with ThreadPoolExecutor(2) as pool:  # both also load it
        for got in pool.map(lambda _: shared.decision_function(X), range(6)):
            np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["batch_size", "n_threads"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "2"])
def test_counts_that_are_none(name, value, simple_path):
    with pytest.raises(ValueError, match=f"{name} must be .*; got {value!r}"):
        OnnxClassifier(simple_path, **{name: value}).predict(rows())


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int8, bool, np.float16])
def test_other_dtypes(dtype, simple, deployed):
    X = (rows(seed=1) * 2).astype(dtype)
    np.testing.assert_allclose(deployed.decision_function(X), simple.decision_function(X), atol=1e-5)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (rows(4, 6), "X has 6 features, but OnnxClassifier is expecting 5 features"),
        (rows(4)[:, :, None], r"shape \(5, 1\), but the model was exported for samples of shape \(5,\)"),
        (rows(4)[0], "Expected 2D array, got 1D array|shape"),
        (rows(0), "0 sample"),
        (np.full((2, 5), np.nan), "NaN"),
        (np.full((2, 5), np.inf), "infinity"),
        (np.full((2, 5), 1e300), "too large for dtype"),
        (np.full((2, 5), "a"), "could not convert|dtype"),
        (np.full((2, 5), 1j), "Complex"),
    ],
)
def test_input_that_does_not_fit(X, message, deployed):
    with pytest.raises(ValueError, match=message):
        deployed.predict(X)


def test_whole_numbers_for_embeddings(tmp_path):
    module, data = build("embedding")
    tokens = data.numpy().copy()
    classifier = fitted(module, tokens, weight_bits=8)
    path = to_onnx(classifier, tmp_path / "model.onnx")
    deployed = OnnxClassifier(path)
    assert deployed.metadata_.input_dtype == "int64"
    wanted = classifier.decision_function(tokens)
    for X in (tokens, tokens.astype(float), tokens.astype(np.uint8)):
        np.testing.assert_allclose(deployed.decision_function(X), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="X must hold whole numbers"):
        deployed.predict(tokens + 0.5)


def test_torch_takes_no_part(deployed, monkeypatch):
    wanted = deployed.predict(rows())

    def fail(*_, **__):
        raise AssertionError("torch was called")

    for name in ("as_tensor", "tensor", "from_numpy"):
        monkeypatch.setattr(torch, name, fail)
    monkeypatch.setattr(torch.nn.Module, "__call__", fail)
    np.testing.assert_array_equal(deployed.predict(rows()), wanted)
