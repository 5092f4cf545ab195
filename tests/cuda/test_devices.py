"""Nets on a CUDA device: what comes out is what the CPU gives, repeatable, and on the CPU for saving."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from torch import nn

from skqfair import FairQATClassifier, QuantizationDiagnostics, QuantizedClassifier
from skqfair.networks import ConvNet, TorchClassifier, make_classifier

WIDTHS = [(8, None), (4, None), (3, None), (2, None), (4, 4)]


def net(device, **options):
    options = {"module__widths": (4, 8), "max_epochs": 2, "batch_size": 48, **options}
    return make_classifier(ConvNet, device=device, **options)


@pytest.fixture(scope="module")
def trained(images):
    """A network that was trained on the CPU, to be quantized anywhere."""
    X, y, _ = images
    net = make_classifier(ConvNet, module__widths=(4, 8), max_epochs=3, batch_size=48)
    return net.fit(X, np.unique(y, return_inverse=True)[1])


def on(device, trained):
    """The trained network as one of a device."""
    module = ConvNet(3, 3, widths=(4, 8))
    module.load_state_dict(trained.module_.state_dict())
    return FrozenEstimator(
        TorchClassifier(module.to(device), classes=["high", "low", "mid"], device=device)
    )


@pytest.mark.parametrize(("bits", "activation_bits"), WIDTHS)
def test_labels_are_those_of_the_cpu(device, images, trained, bits, activation_bits):
    """The codes are the CPU's; sums are added up in another order, which few labels may hang on."""
    X, y, groups = images
    found = {}
    for place in ("cpu", device):
        clf = QuantizedClassifier(
            on(place, trained), weight_bits=bits, activation_bits=activation_bits, random_state=0
        ).fit(X, y, sensitive_features=groups)
        found[place] = clf.predict(X), clf.predict_proba(X), clf.quantized_weights_
    (expected, proba, weights), (labels, own_proba, own_weights) = found["cpu"], found[device]
    sure = np.sort(proba, axis=1)[:, -1] - np.sort(proba, axis=1)[:, -2] > 1e-3
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(labels[sure], expected[sure])
    if activation_bits is None:
        np.testing.assert_allclose(own_proba, proba, atol=1e-3)
    for name, weight in weights.items():
        assert torch.equal(own_weights[name].codes.cpu(), weight.codes)
        assert torch.equal(own_weights[name].scale.cpu(), weight.scale)


@pytest.mark.parametrize("cls", [QuantizedClassifier, FairQATClassifier])
def test_fits_are_repeatable_in_every_bit(device, images, cls):
    X, y, groups = images
    options = {"finetune_epochs": 2} if cls is FairQATClassifier else {}
    clf = cls(net(device), weight_bits=4, random_state=0, **options)
    one, two = (clone(clf).fit(X, y, sensitive_features=groups).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    other = clone(clf).set_params(random_state=1).fit(X, y, sensitive_features=groups)
    assert not np.array_equal(other.predict_proba(X), one)


def test_results_can_be_saved_and_read_without_the_device(device, images, monkeypatch):
    X, y, _ = images
    clf = QuantizedClassifier(net(device), weight_bits=4, activation_bits=8, random_state=0).fit(X, y)
    expected = clf.predict_proba(X)
    for found in (
        pickle.loads(pickle.dumps(clf)),
        skops.io.loads(skops.io.dumps(clf), trusted=["skqfair.QuantizedClassifier"]),
    ):
        np.testing.assert_allclose(found.predict_proba(X), expected, atol=1e-5)
    data = skops.io.dumps(clf)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    elsewhere = skops.io.loads(data, trusted=["skqfair.QuantizedClassifier"])
    assert {p.device.type for p in elsewhere.module_.parameters()} == {"cpu"}
    np.testing.assert_allclose(elsewhere.predict_proba(X), expected, atol=1e-3)


def test_several_fits_on_one_device_equal_serial_ones(device, images):
    X, y, groups = images
    seeds = range(3)

    def fit(seed):
        clf = QuantizedClassifier(net(device), weight_bits=4, random_state=seed)
        return clf.fit(X, y, sensitive_features=groups).predict_proba(X)

    serial = [fit(seed) for seed in seeds]
    with ThreadPoolExecutor(3) as threads:
        for one, other in zip(serial, threads.map(fit, seeds), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_search_with_workers_equals_a_serial_one(device, images):
    if device == "cpu":
        pytest.skip("on the CPU tests/classifiers does that")
    X, y, _ = images
    clf = QuantizedClassifier(net(device, max_epochs=1), random_state=0)
    scores = [
        GridSearchCV(clf, {"weight_bits": [8, 2]}, cv=2, n_jobs=n_jobs, error_score="raise")
        .fit(X, y)
        .cv_results_["mean_test_score"]
        for n_jobs in (None, 2)
    ]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("activation_bits", [None, 8])
def test_exports(device, images, tmp_path, activation_bits):
    export = pytest.importorskip("skqfair.export")
    X, y, groups = images
    options = {"weight_bits": 4, "activation_bits": activation_bits, "random_state": 0}
    clf = QuantizedClassifier(net(device), **options).fit(X, y)
    deployed = export.OnnxClassifier(export.to_onnx(clf, tmp_path / "model.onnx"))
    report = export.parity_report(clf, deployed, X, y, sensitive_features=groups)
    assert (report["agreement"] >= 0.99).all()


def test_diagnostics(device, images, trained):
    X, y, groups = images
    found = []
    for place in ("cpu", device):
        diagnostics = QuantizationDiagnostics(
            on(place, trained), weight_bits=(4,), random_state=0, n_eigenvalues=1
        )
        found.append(diagnostics.fit(X, y, sensitive_features=groups).group_report_)
    columns = ["accuracy", "loss", "gradient_norm", "hessian_max_eigenvalue"]
    np.testing.assert_allclose(found[1][columns], found[0][columns], rtol=2e-2, atol=1e-3)


def test_global_generators_are_left_as_they_were(device, images):
    X, y, _ = images
    torch.manual_seed(3)
    expected = torch.rand(3, device=device)
    torch.manual_seed(3)
    QuantizedClassifier(net(device, max_epochs=1), random_state=0).fit(X, y)
    assert torch.equal(torch.rand(3, device=device), expected)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda")])
def test_without_a_device_the_error_says_so(images, monkeypatch, device):
    X, y, _ = images
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    with pytest.raises(ValueError, match=r"device=.*cuda.* cannot be used here .*set device='cpu'"):
        QuantizedClassifier(net(device)).fit(X, y)
    module = ConvNet(3, 3, widths=(4, 8))
    with pytest.raises(ValueError, match=r"device=.*cuda.* cannot be used here"):
        TorchClassifier(module, n_classes=3, device=device).predict(X)


class Strange(nn.Module):
    """Says where its inputs are, and lets none but those of its own device through."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.devices = []

    def forward(self, X):
        assert X.device == self.layer.weight.device
        return self.layer(X)


def test_arithmetic_runs_without_values():
    """The meta device stands for any that is not the CPU: whoever mixed both would fail on it."""
    from skqfair.quantization import float_size, observe_activations, plain_copy, quantizable_weights

    module = Strange().to("meta")
    assert float_size(module) == 4 * 10
    assert list(quantizable_weights(module)) == ["layer.weight"]
    assert {p.device.type for p in plain_copy(module).parameters()} == {"meta"}
    with observe_activations(module), pytest.raises((RuntimeError, NotImplementedError)):
        module(torch.zeros(3, 4, device="meta"))  # which asks for the least and largest value
    from skqfair.networks._several_inputs import moved

    assert moved(torch.zeros(2), "meta", copy=False).is_meta
    assert moved({"a": torch.zeros(2)}, "meta", copy=True)["a"].is_meta
