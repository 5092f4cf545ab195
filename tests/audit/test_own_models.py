"""The package's classifiers and their files in one audit."""

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator

from skqfair import CompressionAudit, QuantizedClassifier
from skqfair.metrics import model_report
from skqfair.networks import make_classifier


def test_float_quantized_and_exported(problem, tmp_path):
    pytest.importorskip("onnx_ir")
    export = pytest.importorskip("skqfair.export")
    X, y, groups = problem
    net = make_classifier(module__hidden_sizes=(8,), max_epochs=2)
    quantized = QuantizedClassifier(net, weight_bits=2, random_state=0).fit(X, y)
    file = export.OnnxClassifier(export.to_onnx(quantized, tmp_path / "net.onnx"))
    models = {
        "float": quantized.float_classifier_,
        "int2": quantized,
        "frozen": FrozenEstimator(quantized),
        "file": file,
    }
    audit = CompressionAudit.from_models(models, X, y, sensitive_features=groups)
    expected = model_report(
        y,
        {name: model.predict(X) for name, model in models.items()},
        sensitive_features=groups,
        random_state=0,
    )
    for column in ("accuracy", "fvo", "flip_rate", "fvo_change"):
        assert audit.models[column].to_numpy() == pytest.approx(expected[column].to_numpy())
    assert audit.models.loc["int2", "size"] == quantized.model_size_
    assert audit.models.loc["file", "size"] == file.model_size_
    losses = audit.models["log_loss"]
    proba = quantized.predict_proba(X)[np.arange(len(y)), np.searchsorted(quantized.classes_, y)]
    assert losses["int2"] == pytest.approx(-np.log(proba).mean())
    assert losses["frozen"] == losses["int2"]
    assert losses["file"] == pytest.approx(losses["int2"], abs=1e-4)
