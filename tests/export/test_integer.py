"""Where integers are promised, the runtime computes in integers, and nothing is lost by it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from exports import compare, constants, fitted, images, mlp, operations, rows, seeded
from torch import nn

from skqfair.export import OnnxClassifier, _session, to_onnx
from skqfair.networks import ConvNet

LAYERS = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")


def convolutional():
    """Convolutions one after the other, the last before a Linear layer."""
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 3),
    )


def residual():
    """Residual blocks, with statistics of data in their BatchNorm."""
    module = ConvNet(2, 3, widths=(8, 16), blocks_per_stage=1).train()
    with torch.no_grad():
        for _ in range(5):
            module(torch.as_tensor(images(64)))
    return module


def test_linear_layers_run_in_integers(integer, integer_path):
    found = operations(integer_path)
    assert found["QGemm"] == 2
    assert not any(found[name] for name in LAYERS)
    X = rows(500, seed=1)
    got, wanted = OnnxClassifier(integer_path).decision_function(X), integer.decision_function(X)
    assert (np.abs(got - wanted).max(1) < 1e-4).mean() > 0.9
    assert np.abs(got - wanted).max() < 0.01


@pytest.mark.parametrize("bits", [2, pytest.param(4, marks=pytest.mark.slow), 8])
def test_residual_networks_run_in_integers_with_an_example(bits, tmp_path):
    X = images(64)
    module = seeded(residual)
    classifier = fitted(module, X, weight_bits=bits, activation_bits=8)
    path = tmp_path / "model.onnx"
    difference, _ = compare(classifier, path, X, X_example=X)
    found = operations(path)
    assert found["QLinearConv"] == sum(isinstance(m, nn.Conv2d) for m in module.modules())
    assert found["QLinearAdd"] == 2
    assert found["QGemm"] == 1
    assert not any(found[name] for name in LAYERS)
    assert difference < 0.15 * np.ptp(classifier.decision_function(X))
    onnx.checker.check_model(path, full_check=True)


def test_residual_networks_compute_what_the_module_computes_without_an_example(tmp_path):
    X = images(32)
    classifier = fitted(seeded(residual), X, weight_bits=8, activation_bits=8)
    path = to_onnx(classifier, tmp_path / "model.onnx")
    found = operations(path)
    assert not found["QLinearAdd"]
    differences = OnnxClassifier(path).decision_function(X) - classifier.decision_function(X)
    assert np.median(np.abs(differences)) < 0.01 * np.ptp(classifier.decision_function(X))


def test_weights_alone_run_in_float(simple_path):
    found = operations(simple_path)
    assert found["Gemm"] + found["FusedGemm"] == 2
    assert not any("Q" in name or "Quant" in name for name in found)


def test_inputs_are_bytes_around_128_where_they_are_signed(integer_path):
    model = ir.load(integer_path)
    zeros = [
        int(node.inputs[2].const_value.numpy())
        for node in model.graph
        if node.op_type == "QuantizeLinear"
    ]
    assert zeros == [128, 0]  # rows, then what a ReLU returns
    ends = [array.tolist() for array in constants(integer_path, ".codes") if array.dtype == np.int32]
    assert len(ends) == 2  # biases


@pytest.mark.parametrize(
    "bits", [pytest.param(b, marks=[] if b in (2, 5, 9, 16) else pytest.mark.slow) for b in range(2, 17)]
)
def test_all_widths_of_inputs(bits, tmp_path):
    """Signed ones in the first layer, unsigned ones in the second."""
    X = rows(300)
    classifier = fitted(mlp(), X, weight_bits=8, activation_bits=bits)
    assert [hook.signed for m in classifier.module_ for hook in m._forward_pre_hooks.values()] == [1, 0]
    deployed = OnnxClassifier(to_onnx(classifier, tmp_path / "model.onnx"))
    differences = deployed.decision_function(X) - classifier.decision_function(X)
    assert (np.abs(differences).max(1) < 1e-3).mean() > 0.9  # biases are rounded, to steps of inputs
    assert np.abs(differences).max() < 2.0 / 2**bits


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_zero_points_are_stored(bits, tmp_path):
    """All bytes from 0 on, whatever the range; what computes in integers still does."""
    module = seeded(lambda: nn.Sequential(nn.Linear(5, 8), nn.SiLU(), nn.Linear(8, 3)))
    X = rows(300) + 0.7
    classifier = fitted(module, X, weight_bits=8, activation_bits=bits, activation_scheme="affine")
    hooks = [hook for m in classifier.module_ for hook in m._forward_pre_hooks.values()]
    path = to_onnx(classifier, tmp_path / "model.onnx")
    found = [
        int(node.inputs[2].const_value.numpy())
        for node in ir.load(path).graph
        if node.op_type == "QuantizeLinear"
    ]
    assert found == [hook.zero_point for hook in hooks]
    assert min(found) > 0
    assert bits < 8 or operations(path)["QGemm"] == 2
    differences = OnnxClassifier(path).decision_function(X) - classifier.decision_function(X)
    assert (np.abs(differences).max(1) < 1e-3).mean() > 0.9
    assert np.abs(differences).max() < 4.0 / 2**bits


def mean_difference(module, X, path):
    classifier = fitted(module, X, weight_bits=8, activation_bits=8)
    deployed = OnnxClassifier(to_onnx(classifier, path))
    wanted = classifier.decision_function(X)
    return np.abs(deployed.decision_function(X) - wanted).mean(), np.abs(wanted).max()


def test_channels_of_zeros_keep_their_biases(tmp_path):
    module = mlp()
    with torch.no_grad():
        module[2].weight[1] = 0
        module[2].bias[1] = 0.01234
    classifier = fitted(module, rows(), weight_bits=8, activation_bits=8)
    got = OnnxClassifier(to_onnx(classifier, tmp_path / "model.onnx")).decision_function(rows())
    np.testing.assert_allclose(got[:, 1], 0.01234, rtol=1e-3)


def test_layers_of_zeros_keep_their_biases(tmp_path):
    module = mlp()
    with torch.no_grad():
        module[2].weight.zero_()
        module[2].bias.copy_(torch.tensor([0.1234, -0.0567, 0.001]))
    classifier = fitted(module, rows(), weight_bits=4, activation_bits=8)
    got = OnnxClassifier(to_onnx(classifier, tmp_path / "model.onnx")).decision_function(rows())
    np.testing.assert_allclose(got, np.tile([0.1234, -0.0567, 0.001], (64, 1)), rtol=1e-3)


def test_batchnorm_of_every_sign_in_integers(tmp_path):
    module, X = seeded(convolutional), images(64)
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([1.0, -1.0, 0.0, 0.0, 0.5, -0.3]))
        module[1].bias.copy_(torch.tensor([0.1, 0.2, 0.013, 0.37, -0.1, 0.0]))
        module[1].running_mean.copy_(torch.linspace(-1, 1, 6))
    difference, size = mean_difference(module, X, tmp_path / "model.onnx")
    assert difference < 1e-3 * size
    found = operations(tmp_path / "model.onnx")
    assert (found["QLinearConv"], found["QGemm"]) == (2, 1)


@pytest.mark.parametrize("bias", [1e4, 1e7, pytest.param(1e12, marks=pytest.mark.slow)])
def test_large_biases(bias, tmp_path):
    """What does not fit into 32 bits is computed in float, rather than cut off."""
    module = mlp()
    with torch.no_grad():
        module[0].bias[0] = bias
        module[2].bias[1] = -bias
    difference, size = mean_difference(module, rows(), tmp_path / "model.onnx")
    assert difference < 1e-5 * size


def test_large_biases_of_convolutions(tmp_path):
    module, X = seeded(convolutional), images(64)
    with torch.no_grad():
        module[3].bias[0], module[3].bias[1] = 1e8, -1e8
    difference, size = mean_difference(module, X, tmp_path / "model.onnx")
    assert difference < 1e-5 * size
    found = operations(tmp_path / "model.onnx")
    assert (found["QLinearConv"], found["QGemm"]) == (0, 1)


@pytest.mark.parametrize("exact", [True, False])
def test_sessions_avoid_sums_of_16_bits(integer_path, monkeypatch, exact):
    """Processors without VNNI add two products in 16 bits, unless a session asks for more."""
    monkeypatch.setattr(_session, "_sums_are_exact", lambda: exact)
    options = _session.open_session(integer_path.read_bytes()).get_session_options()
    entry = "session.x64quantprecision"
    if exact:
        with pytest.raises(RuntimeError, match=entry):  # not set
            options.get_session_config_entry(entry)
    else:
        assert options.get_session_config_entry(entry) == "1"


@pytest.mark.parametrize(
    ("machine", "flags", "exact"),
    [
        ("x86_64", "flags : avx2 avx512_vnni", True),
        ("AMD64", "flags : avx2", False),
        ("AMD64", None, False),
        ("aarch64", None, True),
    ],
)
def test_processors(machine, flags, exact, monkeypatch):
    def read(path):
        if flags is None:
            raise FileNotFoundError(path)
        return flags

    monkeypatch.setattr(_session.platform, "machine", lambda: machine)
    monkeypatch.setattr(_session.Path, "read_text", read)
    assert _session._sums_are_exact.__wrapped__() is exact
