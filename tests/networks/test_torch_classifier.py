"""Torch modules of any origin as fitted classifiers; references are their own outputs."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from saving import path, saved
from scipy.special import expit, softmax
from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skqfair import (
    FairQATClassifier,
    PrunedClassifier,
    QuantizationDiagnostics,
    QuantizedClassifier,
    make_fairness_scorer,
)
from skqfair.exceptions import ModuleOutputError
from skqfair.export import OnnxClassifier, to_onnx
from skqfair.networks import TorchClassifier

DEPRECATED = pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization is deprecated:DeprecationWarning",
    "ignore:torch.quantize_per_tensor, :UserWarning",
    "ignore:TypedStorage is deprecated:UserWarning",
)


def body(n_outputs, *last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(), nn.Linear(8, n_outputs), *last)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6)).astype(np.float32)
    return X, rng.integers(0, 2, 200), np.where(rng.random(200) < 0.4, "a", "b")


def outputs(module, X):
    with torch.no_grad():
        return module.eval()(torch.as_tensor(X)).double().numpy()


def probabilities(kind, raw):
    if kind in ("logits", "probabilities"):
        return softmax(raw, 1) if kind == "logits" else raw
    second = expit(raw.ravel()) if kind == "logit" else raw.ravel()
    return np.column_stack([1 - second, second])


KINDS = {
    "3 logits": (lambda: body(3), "logits"),
    "log-softmax": (lambda: body(3, nn.LogSoftmax(1)), "logits"),
    "softmax": (lambda: body(3, nn.Softmax(1)), "probabilities"),
    "(n, 1) logit": (lambda: body(1), "logit"),
    "(n,) logit": (lambda: body(1, nn.Flatten(0)), "logit"),
    "sigmoid": (lambda: body(1, nn.Sigmoid()), "probability"),
}


@pytest.mark.parametrize("case", KINDS)
def test_what_a_module_returns_is_found_out(case, data):
    X, _, _ = data
    make, kind = KINDS[case]
    module = make().train()
    clf = TorchClassifier(module, batch_size=64)
    found = clf.predict_proba(X)
    assert module.training  # not changed
    wanted = probabilities(kind, outputs(make(), X))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_array_equal(clf.predict(X), wanted.argmax(1))
    np.testing.assert_allclose(softmax(np.log(wanted), 1), found, atol=1e-6)
    said = TorchClassifier(make(), output=kind)
    np.testing.assert_array_equal(said.predict_proba(X), found)
    assert clf.classes_.tolist() == list(range(wanted.shape[1]))
    assert clf.decision_function(X).ndim == (1 if wanted.shape[1] == 2 else 2)


@pytest.mark.parametrize("case", KINDS)
def test_the_estimators_take_it_and_train_nothing_again(case, data, tmp_path):
    X, y, groups = data
    make, kind = KINDS[case]
    module = make()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    whole = QuantizedClassifier(TorchClassifier(module), weight_bits=None).fit(X, y)
    np.testing.assert_allclose(
        whole.predict_proba(X), probabilities(kind, outputs(make(), X)), atol=1e-6
    )
    quantized = QuantizedClassifier(FrozenEstimator(TorchClassifier(module)), weight_bits=8).fit(X, y)
    np.testing.assert_allclose(quantized.predict_proba(X), whole.predict_proba(X), atol=0.02)
    assert quantized.layer_bits_ == {"0.weight": 8, "3.weight": 8}
    exported = OnnxClassifier(to_onnx(quantized, tmp_path / "model.onnx"))
    np.testing.assert_allclose(exported.predict_proba(X), quantized.predict_proba(X), atol=1e-5)
    restored = saved(quantized, QuantizedClassifier)
    np.testing.assert_array_equal(restored.predict_proba(X), quantized.predict_proba(X))
    tuned = FairQATClassifier(TorchClassifier(module), finetune_epochs=2, random_state=0)
    tuned.fit(X, y, sensitive_features=groups)
    assert len(tuned.history_) == 2
    assert tuned.history_[-1]["train_loss"] < tuned.history_[0]["train_loss"] + 0.1
    PrunedClassifier(TorchClassifier(module), finetune_epochs=1, random_state=0).fit(X, y)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_labels(data):
    X, y, _ = data
    clf = TorchClassifier(body(2), ["no", "yes"])
    assert set(clf.predict(X)) <= {"no", "yes"}
    assert roc_auc_score(y, clf.predict_proba(X)[:, 1]) == roc_auc_score(y, clf.decision_function(X))
    one = QuantizedClassifier(TorchClassifier(body(1), ["no", "yes"]))
    one.fit(X, np.array(["no", "yes"])[y])
    assert one.classes_.tolist() == ["no", "yes"]
    assert one.float_classifier_.classes_.tolist() == ["no", "yes"]
    assert TorchClassifier(body(3), n_classes=3).classes_.tolist() == [0, 1, 2]


def test_it_is_a_fitted_classifier(data):
    X, _, _ = data
    module = body(2)
    clf = TorchClassifier(module)
    check_is_fitted(clf)
    assert is_classifier(clf)
    assert not hasattr(clf, "classes_")
    assert clf.module is module
    frame = pd.DataFrame(X, columns=list("abcdef"))
    wanted = clf.fit(frame).predict_proba(frame)
    assert clf.feature_names_in_.tolist() == list("abcdef")
    restored = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(restored.predict_proba(frame), wanted)
    assert restored.estimator_.module_ is not module
    copied = clone(clf)
    np.testing.assert_array_equal(copied.predict_proba(X), wanted)
    assert copied.module is not module
    copied.set_params(module=body(3))
    assert copied.predict_proba(X).shape == (200, 3)
    assert "TorchClassifier(module=Sequential(" in repr(clf)


def test_a_kind_that_was_found_is_remembered(data):
    X, _, _ = data
    clf = TorchClassifier(body(1)).fit(X)
    logit = clf.decision_function(X)
    likely = np.flatnonzero((logit > 0) & (logit < 1))[:1]
    for same in (clf, pickle.loads(pickle.dumps(clf))):
        np.testing.assert_allclose(same.decision_function(X[likely]), logit[likely], atol=1e-6)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("place", ["bare", "frozen", "pipeline"])
@pytest.mark.parametrize("case", KINDS)
def test_skops_files_hold_it(case, place, used, data):
    X, _, _ = data
    make, kind = KINDS[case]
    labels = list("cab" if "3" in case or "soft" in case else "ba")
    clf = TorchClassifier(make(), output=kind, classes=labels, batch_size=1000)
    wanted = clone(clf).predict_proba(X)
    if used:
        clf.predict(X)
    outer = {
        "bare": clf,
        "frozen": FrozenEstimator(clf),
        "pipeline": make_pipeline(FunctionTransformer(), FrozenEstimator(clf)),
    }[place]
    restored = saved(outer, TorchClassifier)
    assert path(TorchClassifier) == "skqfair.networks.TorchClassifier"
    np.testing.assert_array_equal(restored.predict_proba(X), wanted)
    assert restored.classes_.tolist() == labels
    np.testing.assert_array_equal(saved(restored, TorchClassifier).predict_proba(X), wanted)


def test_what_was_found_outlives_saving(data):
    """Parameters are other objects then, e.g. integers above 256."""
    X, _, _ = data
    clf = TorchClassifier(body(3), batch_size=1000).fit(X)
    for restored in (pickle.loads(pickle.dumps(clf)), saved(clf, TorchClassifier), copy.deepcopy(clf)):
        assert restored.classes_.tolist() == [0, 1, 2]
        assert restored.estimator_.module_ is not restored.module
        restored.set_params(batch_size=1001)
        with pytest.raises(AttributeError, match="known once it has seen samples"):
            restored.classes_  # noqa: B018


@DEPRECATED
def test_quantized_modules_are_saved_by_pickle_alone(data):
    X, _, _ = data
    clf = TorchClassifier(dynamic(body(2).eval())).fit(X)
    with pytest.raises(TypeError, match=r"cannot be saved without pickle; .*use joblib"):
        skops.io.dumps(clf)


class Tuple(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


class Between(nn.Linear):
    def forward(self, x):
        return torch.sigmoid(super().forward(x))


class NotANumber(nn.Linear):
    def forward(self, x):
        return super().forward(x) * torch.nan


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"module": Between(6, 1)}, ModuleOutputError, 'output="logit" or output="probability"'),
        ({"module": Tuple(6, 2)}, ModuleOutputError, "returns a tuple"),
        ({"module": nn.Unflatten(1, (2, 3))}, ModuleOutputError, r"returns a Tensor \(200, 2, 3\)"),
        ({"module": NotANumber(6, 2)}, ModuleOutputError, "returns NaN"),
        ({"module": body(3), "classes": ["a", "b"]}, ModuleOutputError, "for 3 classes, but 2 are"),
        ({"module": body(3), "n_classes": 2}, ModuleOutputError, "for 3 classes, but 2 are said"),
        ({"module": body(3), "output": "logit"}, ModuleOutputError, "output='logit', but .* returns sh"),
        ({"module": body(3), "output": "probabilities"}, ModuleOutputError, "values from .* are none"),
        ({"module": body(1), "output": "probability"}, ModuleOutputError, "values from .* are none"),
        ({"module": body(3), "output": "scores"}, ValueError, "output must be one of .*'scores'"),
        ({"module": body(3), "classes": ["a", "a", "b"]}, ValueError, "two or more different labels"),
        ({"module": body(3), "n_classes": 1}, ValueError, "n_classes must be an integer >= 2"),
        ({"module": body(3), "n_classes": 4, "classes": "abc"}, ValueError, "different labels"),
        ({"module": body(2), "n_classes": 3, "classes": [0, 1]}, ValueError, "classes has 2 labels"),
        ({"module": body(3), "batch_size": 0}, ValueError, "batch_size of the net must be"),
        ({"module": body(3), "device": "cuda:99"}, ValueError, "device='cuda:99' of the net cannot"),
        ({"module": nn.Linear(5, 2)}, ValueError, r"fails on X of shape \(200, 6\) and dtype float32"),
        ({"module": nn.Linear}, TypeError, "module must be a trained torch.nn.Module, got Linear"),
        ({"module": "net"}, TypeError, "module must be a trained"),
    ],
)
def test_what_does_not_fit(options, error, message, data):
    X, _, _ = data
    with pytest.raises(error, match=message):
        TorchClassifier(**options).predict(X)


def test_before_the_first_samples(data):
    X, _, _ = data
    clf = TorchClassifier(body(2))
    for name in ("classes_", "estimator_"):
        with pytest.raises(AttributeError, match=r"known once it has seen samples: .*n_classes="):
            getattr(clf, name)
    with pytest.raises(ValueError, match=r"no output for: \[2\].*Pass classes="):
        clf.fit(X, np.arange(200) % 3)


def test_embeddings_and_images(data):
    torch.manual_seed(0)
    tokens = np.random.default_rng(0).integers(0, 9, (50, 4))
    module = nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(12, 2))
    found = TorchClassifier(module).predict_proba(tokens)
    np.testing.assert_allclose(found, softmax(outputs(module, tokens), 1), atol=1e-6)
    images = np.random.default_rng(0).normal(size=(50, 3, 8, 8)).astype(np.float32)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    wanted = softmax(outputs(module, images), 1)
    np.testing.assert_allclose(TorchClassifier(module).predict_proba(images), wanted, atol=1e-6)


def dynamic(module):
    return torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)


@DEPRECATED
def test_dynamic_int8_of_torch_ao(data):
    X, y, _ = data
    quantized = dynamic(body(2).eval())
    clf = TorchClassifier(quantized, batch_size=64)
    wanted = np.concatenate([outputs(quantized, X[i : i + 64]) for i in range(0, 200, 64)])
    np.testing.assert_allclose(clf.predict_proba(X), softmax(wanted, 1), atol=1e-6)
    weights = clf.read_weights()
    assert weights.keys() == {"0.weight", "3.weight"}
    stored = quantized[0].weight()
    np.testing.assert_allclose(weights["0.weight"], stored.int_repr().numpy() * stored.q_scale())
    float_weight = body(2)[0].weight.detach().numpy()
    assert np.abs(weights["0.weight"] - float_weight).max() <= stored.q_scale() / 2 * 1.001
    restored = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(restored.predict_proba(X), clf.predict_proba(X))
    with pytest.raises(ValueError, match=r"quantized already \(0.weight, 3.weight\).*compressed="):
        QuantizedClassifier(clf).fit(X, y)


def test_int8_weights_of_torchao(data):
    torchao = pytest.importorskip("torchao.quantization")
    X, y, _ = data
    quantized = body(2).eval()
    torchao.quantize_(quantized, torchao.Int8WeightOnlyConfig())
    clf = TorchClassifier(quantized)
    np.testing.assert_allclose(clf.predict_proba(X), softmax(outputs(quantized, X), 1), atol=1e-6)
    before, after = body(2)[0].weight.detach().numpy(), clf.read_weights()["0.weight"]
    steps = np.abs(before).max(1, keepdims=True) / 127
    assert np.abs(before - after).max() > 0
    assert (np.abs(before - after) <= steps).all()
    with pytest.raises(ValueError, match="quantized already"):
        QuantizedClassifier(clf).fit(X, y)


def test_diagnostics_take_it_as_frozen(data):
    X, y, groups = data
    module = body(2).eval()
    found = QuantizationDiagnostics(TorchClassifier(module), weight_bits=4, random_state=0)
    report = found.fit(X, y, sensitive_features=groups).group_report_
    p = softmax(outputs(module, X), 1)
    for group in "ab":
        of = groups == group
        losses = -np.log(p[of, y[of]])
        assert report.loc[("float", group), "loss"] == pytest.approx(losses.mean(), rel=1e-5)
        assert report.loc[("float", group), "accuracy"] == (p[of].argmax(1) == y[of]).mean()


def test_searches_take_it(data):
    X, y, groups = data
    search = GridSearchCV(
        QuantizedClassifier(TorchClassifier(body(2)), random_state=0),
        {"weight_bits": [2, 8]},
        scoring=make_fairness_scorer(sensitive_features=pd.Series(groups)),
        cv=3,
        n_jobs=2,
        error_score="raise",
    )
    search.fit(pd.DataFrame(X), y)
    assert set(search.cv_results_["param_weight_bits"]) == {2, 8}
    scores = cross_val_score(
        TorchClassifier(body(2)), X, y, cv=2, scoring="roc_auc", error_score="raise"
    )
    p = softmax(outputs(body(2), X), 1)[:, 1]
    (_, first), (_, second) = StratifiedKFold(2).split(X, y)
    wanted = [roc_auc_score(y[fold], p[fold]) for fold in (first, second)]
    np.testing.assert_allclose(scores, wanted, atol=1e-3)
