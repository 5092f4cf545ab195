"""Model files that other tools write, for the tests of OnnxClassifier and of diagnostics."""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
from torch import nn

OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]


def rows(n=200, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def body(n_outputs, *last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, n_outputs), *last).eval()


def outputs(module, X):
    with torch.no_grad():
        return module(torch.as_tensor(X)).double().numpy()


def by_hand(module):
    """Return the ONNX model of a Sequential of Linear, ReLU, Softmax and Sigmoid layers."""
    nodes, stored, value = [], [], "x"
    for i, layer in enumerate(module):
        kind = {nn.Linear: "Gemm", nn.ReLU: "Relu", nn.Softmax: "Softmax", nn.Sigmoid: "Sigmoid"}
        names, options = [], {}
        if isinstance(layer, nn.Linear):
            names, options = [f"{i}.weight", f"{i}.bias"], {"transB": 1}
            for name, tensor in zip(names, (layer.weight, layer.bias), strict=True):
                stored.append(numpy_helper.from_array(tensor.detach().numpy(), name))
        nodes.append(helper.make_node(kind[type(layer)], [value, *names], [f"v{i}"], **options))
        value = f"v{i}"
    columns = [layer.out_features for layer in module if isinstance(layer, nn.Linear)][-1]
    return model(nodes, {"x": ["n", 6]}, {value: ["n", columns]}, stored)


def model(nodes, inputs, outputs, stored=(), kind=TensorProto.FLOAT):
    """Return a model of nodes, with shapes by the names of inputs and outputs."""
    ends = [
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in each.items()]
        for each in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "graph", *ends, list(stored))
    return helper.make_model(graph, ir_version=10, opset_imports=OPSETS)


class Reader(CalibrationDataReader):
    """Hands out the calibration rows once."""

    def __init__(self, X):
        self.batches = iter([{"x": X}])

    def get_next(self):
        return next(self.batches, None)


def quantized(module, folder, how, X):
    """Write a module as onnxruntime quantizes it, and return the path."""
    before, path = folder / "float.onnx", folder / f"{how}.onnx"
    onnx.save(by_hand(module), before)
    if how == "static":
        quantize_static(before, path, Reader(X), per_channel=True)
    else:
        quantize_dynamic(before, path)
    return path
