"""Models of every origin in one audit; accuracies of groups from what their own tools predict."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skqfair import CompressionAudit
from skqfair.networks import TorchClassifier

for module in ("onnx", "onnxruntime"):
    pytest.importorskip(module)

sys.path.insert(0, str(Path(__file__).parents[1] / "export"))

import onnx  # noqa: E402
from foreign import body, outputs, quantized, rows  # noqa: E402

from skqfair.export import OnnxClassifier  # noqa: E402

X = rows(256)
GROUPS = np.where(X[:, 5] > 0.5, "few", "many")
NOISE = np.random.default_rng(1).random(256) < 0.2


def labels(predicted):
    """Labels that a model predicts mostly; C - 1 less its prediction where there is noise."""
    return np.where(NOISE, predicted.max() - predicted, predicted)


def audited(model, predicted, reference, y):
    """Check the audit of a model beside a reference that predicts ``reference``."""
    models = {"float": reference, "foreign": model}
    audit = CompressionAudit.from_models(models, X, y, sensitive_features=GROUPS, metrics=())
    for group in ("few", "many"):
        m = group == GROUPS
        right = [int(p == t) for p, t in zip(predicted[m], y[m], strict=True)]
        before = [int(p == t) for p, t in zip(reference[m], y[m], strict=True)]
        assert audit.groups.loc[("foreign", group), "accuracy"] == sum(right) / len(right)
        row = audit.changes.loc[("foreign", group)]
        pairs = list(zip(before, right, strict=True))
        assert (row["lost"], row["gained"]) == (pairs.count((1, 0)), pairs.count((0, 1)))
    assert audit.models.loc["foreign", "flip_rate"] == np.mean(predicted != reference)
    return audit


@pytest.mark.parametrize("how", ["static", "dynamic"])
def test_int8_of_onnxruntime(how, tmp_path):
    module = body(3)
    path = quantized(module, tmp_path, how, X)
    predicted = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"x": X})[0].argmax(1)
    reference = outputs(module, X).argmax(1)
    audit = audited(OnnxClassifier(path), predicted, reference, labels(reference))
    assert audit.models.loc["foreign", "size"] == path.stat().st_size


@pytest.mark.parametrize("name", ["forest", "scaler+logistic"])
def test_skl2onnx(name):
    skl2onnx = pytest.importorskip("skl2onnx")
    y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)
    estimator = {
        "forest": RandomForestClassifier(10, random_state=0),
        "scaler+logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    }[name].fit(X, y)
    content = skl2onnx.to_onnx(estimator, X[:1]).SerializeToString()
    audited(OnnxClassifier(content), estimator.predict(X), y[::-1].copy(), labels(y))


def test_a_plain_export_of_torch(tmp_path):
    module, path = body(3), tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        options = {"dynamo": False, "input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
        torch.onnx.export(module, (torch.as_tensor(X[:2]),), path, **options)
    predicted = outputs(module, X).argmax(1)
    audit = audited(OnnxClassifier(path), predicted, np.roll(predicted, 1), labels(predicted))
    assert audit.models.loc["foreign", "accuracy"] == np.mean(predicted == labels(predicted))


def test_int8_weights_of_torchao():
    torchao = pytest.importorskip("torchao.quantization")
    module, int8 = body(2), body(2)
    torchao.quantize_(int8, torchao.Int8WeightOnlyConfig())
    reference = outputs(module, X).argmax(1)
    with torch.no_grad():
        predicted = int8(torch.as_tensor(X)).numpy().argmax(1)
    audited(TorchClassifier(int8), predicted, reference, labels(reference))


def test_one_logit():
    module = body(1)
    predicted = (outputs(module, X)[:, 0] > 0).astype(int)
    audited(TorchClassifier(module), predicted, np.roll(predicted, 3), labels(predicted))
