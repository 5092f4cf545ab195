"""Many classes, groups and rows; inputs and weights that are constant, zero, huge, tiny or denormal."""

import resource

import numpy as np
import pytest
import torch
from nets import small
from torch import nn

from skqfair import (
    FairQATClassifier,
    QuantizationDiagnostics,
    QuantizedClassifier,
    fairness_violation_observed,
)
from skqfair.exceptions import ManyGroupsWarning
from skqfair.metrics import compare_models, group_report
from skqfair.networks import MLP, TorchClassifier, make_classifier
from skqfair.quantization import QuantizationScheme, convert, observe_activations, quantize

VALUES = {
    "zero": 0.0,
    "constant": 3.7,
    "huge": 1e30,
    "tiny": 1e-30,
    "denormal": 1e-41,
    "least denormal": 1e-45,
}


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("calibration", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize("name", VALUES)
def test_tensors(name, calibration, bits):
    for sign in (1, -1):
        weight = torch.full((3, 5), sign * VALUES[name])
        codes, scale = quantize(weight, bits, calibration=calibration)
        assert bool(torch.isfinite(scale).all() & (scale > 0).all())
        back = codes.double() * scale.double()
        error = (back - weight.double()).abs().max()
        least = 1.2e-38 if abs(VALUES[name]) < 1.2e-38 else 2.0 ** -(bits - 1) * abs(VALUES[name])
        assert error <= least


@pytest.mark.parametrize("of_inputs", VALUES)
@pytest.mark.parametrize("of_weights", VALUES)
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_modules(of_weights, of_inputs, scheme):
    """The product of 1e30 and 1e30 is beyond float32: an error, and never NaN."""
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(VALUES[of_weights])
    X = torch.full((4, 3), VALUES[of_inputs])
    with observe_activations(module) as statistics:
        outputs = module(X)
    asked = QuantizationScheme(4, activation_bits=8, activation_scheme=scheme)
    if not all(np.isfinite([seen.low, seen.high]).all() for seen in statistics.values()):
        with pytest.raises(ValueError, match="are not finite"):
            convert(module, asked, statistics)
        return
    found = convert(module, asked, statistics).module(X)
    assert not bool(found.isnan().any())
    assert bool((found.isfinite() == outputs.isfinite()).all())


def problem_of(name, n=140):
    rng = np.random.default_rng(0)
    X = np.full((n, 4), VALUES[name])
    X[: n // 2] *= rng.choice([1, 0.5], (n // 2, 4))
    y = np.arange(n) % 2
    return X, y, np.array(["a", "b"])[np.arange(n) // 2 % 2]


@pytest.mark.parametrize("cls", [QuantizedClassifier, FairQATClassifier])
@pytest.mark.parametrize("name", VALUES)
def test_classifiers_diagnostics_and_exports(tmp_path, name, cls):
    """A training that diverges says so; else all is finite, and the file predicts the same."""
    X, y, groups = problem_of(name)
    options = {"finetune_epochs": 1} if cls is FairQATClassifier else {}
    clf = cls(small(max_epochs=1), weight_bits=4, activation_bits=8, random_state=0, **options)
    try:
        clf.fit(X, y, sensitive_features=groups)
    except ValueError as error:
        if name != "huge":
            raise
        assert "finite" in str(error) or "infinite" in str(error)  # noqa: PT017
        return
    proba = clf.predict_proba(X)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(1), 1)
    if cls is QuantizedClassifier and name != "huge":  # gradients beyond float32: it says so
        found = QuantizationDiagnostics(small(max_epochs=1), weight_bits=4, random_state=0)
        report = found.fit(X, y, sensitive_features=groups).group_report_
        found = report[["loss", "gradient_norm", "hessian_max_eigenvalue"]].to_numpy()
        assert np.isfinite(found).all()
    export = pytest.importorskip("skqfair.export")
    path = export.to_onnx(clf, tmp_path / "model.onnx", X_example=X)
    np.testing.assert_allclose(export.OnnxClassifier(path).predict_proba(X), proba, atol=0.02)


@pytest.mark.parametrize("n_classes", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_classes(tmp_path, n_classes):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(n_classes), 3)
    X = rng.normal(size=(len(y), 8)).astype(np.float32)
    net = make_classifier(MLP, module__hidden_sizes=(16,), max_epochs=2)
    clf = QuantizedClassifier(net, weight_bits=4, random_state=0).fit(X, y)
    proba = clf.predict_proba(X)
    assert proba.shape == (len(y), n_classes)
    np.testing.assert_allclose(proba.sum(1), 1)
    assert set(clf.predict(X)) <= set(y)
    groups = np.arange(len(y)) % 2
    found = fairness_violation_observed(y, clf.predict(X), sensitive_features=groups)
    right = clf.predict(X) == y
    assert found == abs(right[groups == 0].mean() - right[groups == 1].mean())
    export = pytest.importorskip("skqfair.export")
    deployed = export.OnnxClassifier(export.to_onnx(clf, tmp_path / "model.onnx"))
    np.testing.assert_allclose(deployed.predict_proba(X), proba, atol=1e-5)
    clear = (
        np.diff(np.log(np.sort(proba)[:, -2:]))[:, 0] > 1e-3
    )  # two runtimes may part where two classes tie
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(deployed.predict(X)[clear], clf.predict(X)[clear])
    assert len(TorchClassifier(clf.module_).fit(X, y).classes_) == n_classes


@pytest.mark.parametrize("n_groups", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_many_groups(n_groups):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(n_groups), 20)
    y = rng.integers(0, 2, len(groups))
    p = np.where(rng.random(len(y)) < 0.2, 1 - y, y)
    accuracies = [(y[groups == g] == p[groups == g]).mean() for g in range(n_groups)]
    with pytest.warns(ManyGroupsWarning):
        report = group_report(y, p, sensitive_features=groups, random_state=0)
    np.testing.assert_allclose(report["accuracy"], accuracies)
    assert report.attrs["fvo"] == pytest.approx(np.ptp(accuracies))
    assert report["accuracy_low"].le(report["accuracy"]).all()
    with pytest.warns(ManyGroupsWarning):
        tables = compare_models(y, {"float": y, "int2": p}, sensitive_features=groups)
    assert len(tables.groups) == 2 * n_groups
    assert np.isfinite(tables.changes["change"]).all()


@pytest.mark.slow
def test_ten_million_rows():
    """Bounded memory: labels, predictions, groups and weights are 160 MB; less than 1.5 GB is added."""
    n, rng = 10**7, np.random.default_rng(0)
    y, groups = rng.integers(0, 2, n), rng.integers(0, 5, n)
    p = np.where(rng.random(n) < 0.1 + 0.02 * groups, 1 - y, y)
    weights = rng.random(n)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = fairness_violation_observed(y, p, sensitive_features=groups)
    report = group_report(y, p, sensitive_features=groups, random_state=0)
    weighted = fairness_violation_observed(y, p, sensitive_features=groups, sample_weight=weights)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    exact = [np.mean(y[groups == g] == p[groups == g]) for g in range(5)]
    assert found == pytest.approx(max(exact) - min(exact), abs=1e-12)
    assert report.attrs["fvo"] == found
    assert weighted == pytest.approx(0.08, abs=0.005)
    assert peak < 1.5e6  # kB
