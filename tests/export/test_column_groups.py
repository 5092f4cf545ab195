"""Scales of groups of columns in files: what the module computes, and what ONNX says."""

import math

import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from exports import fitted, images, rows, seeded
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from skqfair.export import OnnxClassifier, to_onnx
from skqfair.networks import ConvNet

GROUPS = ("per_group", 16)


def wide():
    return seeded(lambda: nn.Sequential(nn.Linear(40, 37), nn.ReLU(), nn.Linear(37, 3)))


class Encoder(nn.Module):
    """Products of three dimensions, whose weights files hold the other way round, and one of its own."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(10, 40)
        self.layer = nn.TransformerEncoderLayer(40, 2, 50, batch_first=True)
        self.own = nn.Parameter(torch.randn(40, 3) / 6)

    def forward(self, X):
        return self.layer(self.first(X.reshape(-1, 4, 10))).mean(1) @ self.own


def blocks(path):
    """The blocked DequantizeLinear nodes."""
    return [
        node
        for node in onnx.load(path).graph.node
        if node.op_type == "DequantizeLinear" and any(a.name == "block_size" for a in node.attribute)
    ]


def check(clf, path, X):
    deployed = OnnxClassifier(to_onnx(clf, path))
    wanted = clf.decision_function(X)
    different = np.abs(deployed.decision_function(X) - wanted) / np.ptp(wanted)
    assert different.max() < 2e-5
    np.testing.assert_array_equal(deployed.predict(X), clf.predict(X))
    return deployed


@pytest.mark.parametrize(("bits", "size"), [(2, 16), (12, 24)])
def test_predictions_agree(bits, size, tmp_path):
    X = rows(n_features=40)
    clf = fitted(wide(), X, weight_bits=bits, granularity=("per_group", size))
    deployed = check(clf, tmp_path / "m.onnx", X)
    model = onnx.load(tmp_path / "m.onnx")
    assert model.opset_import[0].version == (25 if bits == 2 else 21)
    stored = {t.name: t for t in model.graph.initializer}
    for name, channels, columns in (("0.weight", 37, 40), ("2.weight", 3, 37)):
        kinds = {2: "INT2", 12: "INT16"}
        assert stored[f"{name}.codes"].data_type == getattr(TensorProto, kinds[bits])
        scale = numpy_helper.to_array(stored[f"{name}.scale"])
        np.testing.assert_array_equal(scale, clf.quantized_weights_[name].scale.numpy())
        assert scale.shape == (channels, math.ceil(columns / size))
    assert len(blocks(tmp_path / "m.onnx")) == 2
    assert abs(deployed.model_size_ - clf.model_size_) < 4000 or bits == 12  # 12 bits are stored in 16


def test_the_file_is_what_the_specification_says(tmp_path):
    """The reference implementation of ONNX computes the same, with BatchNorm in the scales of groups."""
    X, module = rows(n_features=40), seeded(lambda: nn.Sequential(nn.Linear(40, 8), nn.BatchNorm1d(8)))
    module[1].weight.data = torch.linspace(-1, 2, 8)
    module[1].weight.data[5] = 0
    module[1].running_mean.copy_(torch.linspace(0, 1, 8))
    clf = fitted(module, X, np.arange(64) % 8, weight_bits=4, granularity=GROUPS)
    path = to_onnx(clf, tmp_path / "m.onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert "BatchNormalization" not in [node.op_type for node in onnx.load(path).graph.node]
    (outputs,) = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"X": X})
    np.testing.assert_allclose(outputs, clf.decision_function(X), atol=1e-5)


def test_no_runtime_rounds_the_inputs_of_a_product(tmp_path):
    """A product of bytes or 4-bit codes in blocks would get inputs of 8 bits: off by 0.5 %."""
    X = rows(n_features=40)
    clf = fitted(
        seeded(Encoder),
        X,
        weight_bits=4,
        granularity=GROUPS,
        quantize_parameters={"own": 1},
    )
    check(clf, tmp_path / "m.onnx", X)
    assert len(blocks(tmp_path / "m.onnx")) == 5  # all but the first layer, which has 10 columns
    assert clf.quantized_weights_["own"].scale.shape == (3, 3)


def test_beside_layers_that_run_in_integers(tmp_path):
    X = images(channels=1)
    module = seeded(lambda: ConvNet(1, 3, widths=(8, 40)))
    clf = fitted(module, X, weight_bits=8, activation_bits=8, granularity=GROUPS)
    path = to_onnx(clf, tmp_path / "m.onnx", X_example=X)
    wanted, found = clf.decision_function(X), OnnxClassifier(path).decision_function(X)
    np.testing.assert_allclose(found, wanted, atol=0.03 * np.ptp(wanted))
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("Conv") == sum(isinstance(m, nn.Conv2d) for m in module.modules())
    assert len(blocks(path)) == 1


@pytest.mark.parametrize("opset", [13, 18, 20])
def test_older_operators_do_not_know_groups(opset, tmp_path):
    X = rows(n_features=40)
    clf = fitted(wide(), X, weight_bits=8, granularity=GROUPS)
    remedy = r"from 21, .*groups of columns.*; got \d+: leave opset None, .*granularity='per_channel'"
    with pytest.raises(ValueError, match=remedy):
        to_onnx(clf, tmp_path / "m.onnx", opset=opset)
    assert not (tmp_path / "m.onnx").exists()
    clf = fitted(wide(), X, weight_bits=4, granularity=GROUPS)  # needs 21 whatever shares a scale
    with pytest.raises(ValueError, match=r"weights of 4 and 16 bits.*: leave opset None\."):
        to_onnx(clf, tmp_path / "m.onnx", opset=opset)


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_of_files_of_other_origin_are_read(axis, tmp_path):
    rng = np.random.default_rng(0)
    codes = rng.integers(-7, 8, (37, 3)).astype(np.int8)
    shape = (3, 3) if axis == 0 else (37, 1)
    scale, zero = rng.random(shape).astype(np.float32), rng.integers(-2, 3, shape).astype(np.int8)
    wanted = np.empty((37, 3))
    for i, j in np.ndindex(37, 3):
        place = (i // 16, j) if axis == 0 else (i, j // 16)
        wanted[i, j] = (int(codes[i, j]) - int(zero[place])) * np.float64(scale[place])
    arrays = {"w_quantized": codes, "s": scale, "z": zero}
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", list(arrays), ["w"], axis=axis, block_size=16),
            helper.make_node("MatMul", ["X", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 37])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "m.onnx")
    weights = OnnxClassifier(tmp_path / "m.onnx", output=("y", "logits")).read_weights()
    np.testing.assert_array_equal(weights["w"], wanted)
