"""Models that something else compressed, beside the float one; figures are computed by hand."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from skorch import NeuralNetClassifier
from torch import nn

for module in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(module)
sys.path.insert(0, str(Path(__file__).parents[1] / "export"))
from foreign import body, by_hand, outputs, quantized  # noqa: E402

from skqfair import QuantizationDiagnostics  # noqa: E402
from skqfair.exceptions import NoCurvatureWarning  # noqa: E402
from skqfair.export import OnnxClassifier  # noqa: E402
from skqfair.networks import TorchClassifier  # noqa: E402

GROUPS = np.where(np.arange(200) % 3 == 0, "few", "many")
NEEDS_LAYERS = [
    *("gradient_norm", "hessian_trace", "hessian_max_eigenvalue", "excess_loss_weights"),
    *("excess_loss_first_order", "excess_loss_second_order"),
]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6)).astype(np.float32)
    return X, rng.integers(0, 3, 200)


@pytest.fixture(scope="module")
def vendor(data, tmp_path_factory):
    """onnxruntime's static int8 of the float module."""
    return quantized(body(3), tmp_path_factory.mktemp("vendor"), "static", data[0])


def coarse(step=0.2):
    """The module with weights on a coarse grid: what a converter may have made."""
    module = body(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_((parameter / step).round() * step)
    return module


def audited(estimator, compressed, data, **options):
    X, y = data
    options = {"weight_bits": (), "n_eigenvalues": 0, "random_state": 0, **options}
    diagnostics = QuantizationDiagnostics(estimator, compressed=compressed, **options)
    return diagnostics.fit(X, y, sensitive_features=GROUPS)


def test_figures_beside_the_float_module(data):
    X, y = data
    found = audited(TorchClassifier(body(3)), {"vendor int8": TorchClassifier(coarse())}, data)
    before, after = (log_softmax(outputs(m, X), 1) for m in (body(3), coarse()))
    report = found.group_report_
    assert list(report.index.levels[0]) == ["float", "vendor int8"]
    for group in ("few", "many"):
        of = group == GROUPS
        row = report.loc[("vendor int8", group)]
        losses = -after[of, y[of]]
        assert row["count"] == of.sum()
        assert row["accuracy"] == pytest.approx((after[of].argmax(1) == y[of]).mean())
        assert row["loss"] == pytest.approx(losses.mean(), rel=1e-5)
        assert row["excess_loss"] == pytest.approx((losses + before[of, y[of]]).mean(), rel=1e-4)
        assert row["flip_rate"] == (after[of].argmax(1) != before[of].argmax(1)).mean() > 0
        assert row["excess_loss_low"] < row["excess_loss"] < row["excess_loss_high"]
        assert row[NEEDS_LAYERS].isna().all()
    features = dict(zip(found.get_feature_names_out(), found.transform(X).T, strict=True))
    flips = after.argmax(1) != before.argmax(1)
    np.testing.assert_array_equal(features["flip_vendor_int8"], flips)
    shift = (after - before) - (after - before).mean(1, keepdims=True)
    wanted = np.sqrt(np.square(shift).mean(1))
    np.testing.assert_allclose(features["logit_shift_vendor_int8"], wanted, atol=1e-5)


def test_layers_whose_weights_can_be_read(data, vendor):
    found = audited(
        TorchClassifier(body(3)),
        {
            "module": TorchClassifier(coarse()),
            "file": OnnxClassifier(vendor),
            "forest": RandomForestClassifier(random_state=0).fit(*data),
        },
        data,
        weight_bits=8,
    )
    layers = found.layer_report_
    for layer in ("0.weight", "2.weight"):
        before, after = (m.get_parameter(layer).detach().double().numpy() for m in (body(3), coarse()))
        sqnr = 10 * np.log10(np.square(before).sum() / np.square(before - after).sum())
        row = layers.loc[("module", layer)]
        assert row["sqnr_db"] == pytest.approx(sqnr)
        assert row["sparsity"] == (after == 0).mean()
        assert row["n_weights"] == before.size
        assert np.isnan(row["saturation"])
        assert layers.loc[("file", layer), "sqnr_db"] > 30  # of 8 bits
        assert layers.loc[(8, layer), "sqnr_db"] > 30
        assert np.isnan(layers.loc[("forest", layer), "sqnr_db"])
    assert layers.attrs["reasons"].keys() == {"forest"}
    assert "no read_weights()" in layers.attrs["reasons"]["forest"]


def test_other_weights_are_not_compared(data):
    doubled, other = body(3), nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        doubled[0].weight.mul_(-2)
    compressed = {"doubled": TorchClassifier(doubled), "other": TorchClassifier(other)}
    found = audited(TorchClassifier(body(3)), compressed, data)
    reasons = found.layer_report_.attrs["reasons"]
    assert "is another one" in reasons["doubled", "0.weight"]
    assert "no weight of this name and shape" in reasons["other", "0.weight"]
    assert np.isnan(found.layer_report_.loc[("doubled", "0.weight"), "sqnr_db"])
    assert found.layer_report_.loc[("doubled", "2.weight"), "sqnr_db"] == np.inf


def test_columns_come_in_the_order_of_the_float_classes(data):
    module = body(3)
    swapped = body(3)
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(swapped[2], name).copy_(getattr(module[2], name)[[2, 0, 1]])
    compressed = {"swapped": TorchClassifier(swapped, classes=[2, 0, 1])}
    report = audited(TorchClassifier(module), compressed, data).group_report_
    assert (report.loc["swapped", "flip_rate"] == 0).all()
    np.testing.assert_allclose(report.loc["swapped", "excess_loss"], 0, atol=1e-6)


def test_labels_alone_have_accuracy_and_flips(data):
    X, y = data
    svc = LinearSVC(random_state=0).fit(X, y)
    found = audited(TorchClassifier(body(3)), {"svc": svc}, data)
    float_labels = outputs(body(3), X).argmax(1)
    for group in ("few", "many"):
        of, row = group == GROUPS, found.group_report_.loc[("svc", group)]
        assert row["accuracy"] == pytest.approx(svc.score(X[of], y[of]))
        assert row["flip_rate"] == pytest.approx((svc.predict(X[of]) != float_labels[of]).mean())
        assert row[["loss", "margin", "excess_loss"]].isna().all()
    assert np.isnan(found.transform(X)[:, -2]).all()


def test_a_float_file_beside_its_compressed_file(data, vendor):
    content = by_hand(body(3)).SerializeToString()
    with pytest.warns(NoCurvatureWarning, match="OnnxClassifier only predicts: what needs its layers"):
        found = audited(OnnxClassifier(content), {"int8": OnnxClassifier(vendor)}, data)
    wanted = audited(TorchClassifier(body(3)), {"int8": OnnxClassifier(vendor)}, data)
    columns = ["count", "accuracy", "loss", "margin", "flip_rate", "excess_loss", "excess_loss_high"]
    got, other = (d.group_report_.loc[["float", "int8"], columns] for d in (found, wanted))
    pd.testing.assert_frame_equal(got, other, rtol=1e-3, atol=1e-5)
    pd.testing.assert_frame_equal(found.layer_report_, wanted.layer_report_, rtol=1e-5)


def test_behind_the_steps_of_a_pipeline(data):
    X, y = data
    net = NeuralNetClassifier(body(3), criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0)
    pipeline = make_pipeline(StandardScaler(), net).fit(X, y)
    last = TorchClassifier(pipeline[-1].module_)
    whole = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    found = audited(FrozenEstimator(pipeline), {"same": last, "whole": whole}, data)
    report = found.group_report_
    assert (report.loc["same", "flip_rate"] == 0).all()
    for group in ("few", "many"):
        of = group == GROUPS
        assert report.loc[("whole", group), "accuracy"] == pytest.approx(whole.score(X[of], y[of]))
    flips = found.transform(X)[:, -1]
    np.testing.assert_array_equal(flips, whole.predict(X) != pipeline.predict(X))


@pytest.mark.parametrize(
    ("compressed", "error", "message"),
    [
        ({1: LinearSVC()}, ValueError, "strings as keys, names of models; got 1"),
        ({"float": TorchClassifier(body(3))}, ValueError, "has the name 'float', which a version"),
        ({"module": body(3)}, TypeError, r"got Sequential; a torch module is TorchClassifier\(module"),
        ({"new": LogisticRegression()}, ValueError, "is not fitted yet"),
        ({"two": TorchClassifier(body(2))}, ValueError, r"has the classes \[0, 1\], the float model"),
    ],
)
def test_what_is_no_compressed_model(compressed, error, message, data):
    with pytest.raises(error, match=message):
        audited(TorchClassifier(body(3)), compressed, data)


def test_without_widths_there_must_be_compressed_models(data):
    with pytest.raises(ValueError, match="weight_bits must have at least one width"):
        audited(TorchClassifier(body(3)), None, data)
