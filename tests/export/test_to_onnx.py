"""The file against the module: logits, codes, metadata, and nothing else."""

import copy
import json
import os
import pickle
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from exports import codes, compare, fitted, images, mlp, rows, seeded
from joblib import Parallel, delayed
from module_zoo import ZOO, build
from onnx.reference import ReferenceEvaluator
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import skqfair
from skqfair.exceptions import ExportError
from skqfair.export import OnnxClassifier, to_onnx
from skqfair.export._metadata import describe, read
from skqfair.metrics import fairness_violation_observed, group_report
from skqfair.networks._wrapped import Network

FAST = {"bilinear", "convtranspose2d", "embeddingbag", "rnn", "shared"}
EXPORTED = [name for name in ZOO if name != "lstm"]
MARKED = [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in EXPORTED]


@pytest.mark.parametrize("name", MARKED)
def test_weights_alone_are_exact(name, tmp_path):
    module, data = build(name)
    X = data.numpy().copy()
    difference, size = compare(fitted(module, X, weight_bits=4), tmp_path / "model.onnx", X)
    assert difference <= 1e-5 * size


@pytest.mark.slow
@pytest.mark.parametrize("example", [False, True])
@pytest.mark.parametrize("bits", [(8, 8), (2, 8), (3, 5), (16, 12)])
@pytest.mark.parametrize("name", EXPORTED)
def test_all_kinds_with_quantized_inputs(name, bits, example, tmp_path):
    """A sum rounded the other way moves an input by one step, and logits by a few hundredths."""
    module, data = build(name)
    X = data.numpy().copy()
    classifier = fitted(module, X, weight_bits=bits[0], activation_bits=bits[1])
    options = {"X_example": X} if example else {}
    difference, size = compare(classifier, tmp_path / "model.onnx", X, **options)
    assert difference <= 0.03 * size


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_lstm_with_projection_is_refused(tmp_path):
    module, data = build("lstm")
    classifier = fitted(module, data.numpy().copy())
    with pytest.raises(ExportError, match="proj_size; use an LSTM without it"):
        to_onnx(classifier, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_written_file_is_valid_and_the_reference_computes_the_same(simple, simple_path):
    onnx.checker.check_model(simple_path, full_check=True)
    X = rows(20, seed=1)
    (got,) = ReferenceEvaluator(str(simple_path)).run(None, {"X": X})
    with torch.no_grad():
        wanted = simple.module_(torch.as_tensor(X)).numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert [value.name for value in onnx.load(simple_path).graph.input] == ["X"]


def test_reference_computes_the_same_with_quantized_inputs(integer, integer_path):
    onnx.checker.check_model(integer_path, full_check=True)
    X = rows(20, seed=1)
    (got,) = ReferenceEvaluator(str(integer_path)).run(None, {"X": X})
    difference = np.abs(got - integer.decision_function(X)).max(1)
    assert difference.max() < 0.01  # one step of an input that lies on the border of two
    assert (difference < 1e-4).mean() >= 0.9


@pytest.mark.parametrize(("bits", "name"), [(2, "INT2"), (3, "INT4"), (8, "INT8"), (9, "INT16")])
def test_codes_are_stored_in_the_smallest_type(bits, name, tmp_path):
    classifier = fitted(mlp(), rows(), weight_bits=bits)
    path = to_onnx(classifier, tmp_path / "model.onnx")
    for parameter, tensor in classifier.quantized_weights_.items():
        stored, dtype = codes(path, parameter)
        wanted = tensor.codes.numpy()
        assert dtype == name
        assert np.array_equal(stored, wanted) or np.array_equal(stored, wanted.T)
    assert OnnxClassifier(path).decision_function(rows()) == pytest.approx(
        classifier.decision_function(rows()), abs=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("bits", range(2, 17))
def test_all_widths(bits, tmp_path):
    classifier = fitted(mlp(), rows(), weight_bits=bits)
    difference, size = compare(classifier, tmp_path / "model.onnx", rows())
    assert difference <= 1e-5 * size


def with_classes(classifier, classes):
    """A copy with other labels."""
    other = copy.copy(classifier)
    other.classes_ = classes
    return other


def normed():
    """Convolutions with BatchNorm of every sign."""
    module = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3)
        )
    )
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([1.0, -1.0, 0.0, -0.0, 0.5, -0.3]))
        module[1].bias.copy_(torch.linspace(-0.4, 0.7, 6))
        module[1].running_mean.copy_(torch.linspace(-1, 1, 6))
        module[1].running_var.copy_(torch.linspace(0.2, 2, 6))
    return module


def test_batchnorm_is_folded_into_scales_and_signs(tmp_path):
    classifier = fitted(normed(), images(), weight_bits=4)
    path = to_onnx(classifier, tmp_path / "model.onnx")
    stored, dtype = codes(path, "0.weight")
    gamma = classifier.module_[1].weight.detach().numpy()
    signs = np.sign(gamma).reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(
        stored, classifier.quantized_weights_["0.weight"].codes.numpy() * signs
    )
    assert dtype == "INT4"
    graph = onnx.load(path).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}

    fused = fuse_conv_bn_eval(classifier.module_[0], classifier.module_[1])
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    scale = onnx.numpy_helper.to_array(arrays["0.weight.scale"])
    np.testing.assert_allclose(stored * scale, fused.weight.detach().numpy(), rtol=1e-5, atol=1e-7)
    bias = onnx.numpy_helper.to_array(arrays["0.weight.bias"])
    np.testing.assert_allclose(bias, fused.bias.detach().numpy(), rtol=1e-5, atol=1e-6)

    X = images(seed=1)
    wanted = classifier.decision_function(X)
    np.testing.assert_allclose(OnnxClassifier(path).decision_function(X), wanted, atol=1e-5)
    (got,) = ReferenceEvaluator(str(path)).run(None, {"X": X})
    np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"weight_bits": 4, "layer_bits": {"0.weight": None, "2.weight": 9}},
        {"weight_bits": 8, "layer_bits": {"0.weight": [2, 3, 4, 8, 5, 2, 6, 7]}},
        {"weight_bits": 4, "granularity": "per_tensor"},
        {"weight_bits": None},
    ],
    ids=["mixed", "channels", "per_tensor", "float"],
)
def test_bits_by_layer_and_channel(options, tmp_path):
    classifier = fitted(mlp(), rows(), **options)
    path = tmp_path / "model.onnx"
    difference, size = compare(classifier, path, rows())
    assert difference <= 1e-5 * size
    for name, tensor in classifier.quantized_weights_.items():
        stored, _ = codes(path, name)
        wanted = tensor.codes.numpy()
        assert np.array_equal(stored, wanted) or np.array_equal(stored, wanted.T)
    stored = {tensor.name for tensor in onnx.load(path).graph.initializer}
    assert sum(name.endswith(".codes") for name in stored) == len(classifier.quantized_weights_)
    for name, bits in OnnxClassifier(path).metadata_.layer_bits.items():
        np.testing.assert_array_equal(bits, classifier.layer_bits_[name])


def test_shared_weights_are_stored_once(tmp_path):
    module, data = build("shared")
    X = data.numpy().copy()
    path = to_onnx(fitted(module, X, weight_bits=8), tmp_path / "model.onnx")
    names = [tensor.name for tensor in onnx.load(path).graph.initializer]
    assert sum(name.endswith(".codes") for name in names) == 1


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["no", "perhaps", "yes"]),
        np.array(["no", "père", "yes"], dtype=object),
        np.array([-3, 5, 2**40]),
        np.array([0, 1, 2], dtype=np.uint8),
        np.array([0.0, 1.0, 3.0]),
        np.array([0, 1, 1e300], dtype=np.float64),
    ],
    ids=["str", "object", "int", "byte", "float", "large"],
)
def test_labels_come_back(labels, simple):
    entries = describe(with_classes(simple, labels), Network.of_trained(simple.estimator_), None)
    restored = read(entries).classes
    np.testing.assert_array_equal(restored, labels)
    assert restored.dtype == labels.dtype


def test_labels_of_two_classes(tmp_path):
    classifier = fitted(mlp(2), rows(), np.arange(64) % 2 == 1)
    deployed = OnnxClassifier(to_onnx(classifier, tmp_path / "model.onnx"))
    assert deployed.classes_.tolist() == [False, True]
    np.testing.assert_array_equal(deployed.predict(rows()), classifier.predict(rows()))
    assert deployed.decision_function(rows()).shape == (64,)
    np.testing.assert_allclose(
        deployed.decision_function(rows()), classifier.decision_function(rows()), atol=1e-5
    )


@pytest.mark.parametrize("labels", [[b"a", b"b", b"c"], [1, "b", "c"], [0, "b", 2.5]])
def test_labels_that_metadata_cannot_hold(labels, simple, tmp_path):
    kind = None if isinstance(labels[0], bytes) else object
    with pytest.raises(ValueError, match=r"classes_ have dtype .* strings, numbers and booleans"):
        to_onnx(with_classes(simple, np.array(labels, dtype=kind)), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_metadata(tmp_path):
    X = pd.DataFrame(rows(), columns=["age", "hours", "c", "d", "größe"])
    y = np.array(["low", "mid", "high"])[np.arange(64) % 3]
    groups = pd.DataFrame({"sex": np.arange(64) % 2, "old": np.arange(64) > 40})
    classifier = fitted(mlp(), X, y, weight_bits=4, activation_bits=8)
    audit = group_report(y, classifier.predict(X), sensitive_features=groups)
    path = to_onnx(classifier, tmp_path / "model.onnx", report=audit)
    deployed = OnnxClassifier(path)
    metadata = deployed.metadata_
    assert metadata.version == skqfair.__version__
    assert metadata.estimator == "QuantizedClassifier"
    assert metadata.input_shape == (5,)
    assert metadata.input_dtype == "float32"
    assert metadata.returns_logits is True
    assert metadata.layer_bits == {"0.weight": 4, "2.weight": 4}
    assert metadata.activation_bits == {"0": 8, "2": 8}
    assert metadata.model_size == classifier.model_size_
    assert metadata.feature_names == list(X.columns)
    assert deployed.model_size_ == path.stat().st_size
    assert deployed.n_features_in_ == 5
    np.testing.assert_array_equal(deployed.feature_names_in_, classifier.feature_names_in_)
    wanted = fairness_violation_observed(y, classifier.predict(X), sensitive_features=groups)
    assert metadata.report["fvo"] == pytest.approx(wanted, abs=1e-12)
    assert [group["count"] for group in metadata.report["groups"]] == audit["count"].tolist()
    assert [group["sex"] for group in metadata.report["groups"]] == [0, 0, 1, 1]
    model = onnx.load(path)
    assert (model.producer_name, model.producer_version) == ("skqfair", skqfair.__version__)
    entries = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert entries["skqfair.classes"]["values"] == ["high", "low", "mid"]


def test_files_say_nothing_about_this_machine(simple_path, integer_path):
    for path in (simple_path, integer_path):
        content = path.read_bytes()
        package = Path(skqfair.__file__).parent
        for trace in (str(package.parent), str(Path(torch.__file__).parent), str(Path.home()), 'File "'):
            assert trace.encode() not in content


@pytest.mark.parametrize("opset", [21, 25])
def test_opset(opset, simple, tmp_path):
    path = to_onnx(simple, tmp_path / "model.onnx", opset=opset)
    assert onnx.load(path).opset_import[0].version == opset
    np.testing.assert_array_equal(OnnxClassifier(path).predict(rows()), simple.predict(rows()))


def test_two_exports_are_the_same_bytes(simple, simple_path, integer, integer_path, tmp_path):
    for classifier, path in ((simple, simple_path), (integer, integer_path)):
        again = to_onnx(classifier, tmp_path / "again.onnx")
        assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("prefer", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_exports_side_by_side(prefer, simple, simple_path, tmp_path):
    targets = [tmp_path / f"{i}.onnx" for i in range(2)]
    mask = os.umask(0o022)
    os.umask(mask)
    Parallel(n_jobs=2, prefer=prefer)(delayed(to_onnx)(simple, target) for target in targets)
    assert all(target.read_bytes() == simple_path.read_bytes() for target in targets)
    assert os.umask(mask) == mask


def test_estimator_and_generators_stay_as_they_are(integer, tmp_path):
    module = integer.module_
    before = pickle.dumps(integer)
    hooks = {name: list(child._forward_pre_hooks) for name, child in module.named_modules()}
    grads = [parameter.requires_grad for parameter in module.parameters()]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    to_onnx(integer, tmp_path / "model.onnx", X_example=rows())
    assert torch.equal(state, torch.get_rng_state())
    assert integer.module_ is module
    assert pickle.dumps(integer) == before
    assert hooks == {name: list(child._forward_pre_hooks) for name, child in module.named_modules()}
    assert grads == [parameter.requires_grad for parameter in module.parameters()]
    assert not any(child.training for child in module.modules())


def test_modules_in_double_precision(tmp_path):
    X = rows().astype(np.float64)
    classifier = fitted(mlp().double(), X, weight_bits=4)
    path = tmp_path / "model.onnx"
    difference, size = compare(classifier, path, X)
    assert difference <= 1e-5 * size
    assert {p.dtype for p in classifier.module_.parameters()} == {torch.float64}
    with pytest.raises(ValueError, match="too large for dtype"):
        OnnxClassifier(path).predict(np.full((1, 5), 1e200))
