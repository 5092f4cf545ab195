"""Run ONNX models with onnxruntime, on the CPU."""

import platform
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

__all__ = ["measure", "open_session", "run"]

_BATCH = 64


def open_session(content, n_threads=None):
    """Return a session for the bytes of a model.

    Parameters
    ----------
    content : bytes
        The model.
    n_threads : int, optional
        Threads of each operation; None leaves it to onnxruntime: one for each core.

    Returns
    -------
    onnxruntime.InferenceSession
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    if not _sums_are_exact():
        options.add_session_config_entry("session.x64quantprecision", "1")
        content = _with_own_weights(content)
    if n_threads is not None:
        options.intra_op_num_threads = n_threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _with_own_weights(content):
    """Return a model in which each layer has its own copy of its weight.

    onnxruntime widens weights of bytes for such processors, and fails at one that two layers share.
    """
    model = onnx.load_from_string(content)
    graph, taken = model.graph, set()
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in list(graph.node):
        for position, name in enumerate(node.input):
            maker = makers.get(name)
            if maker is None or maker.input[0] not in stored:
                continue
            if maker.input[0] not in taken:
                taken.add(maker.input[0])
                continue
            own = onnx.NodeProto()
            own.CopyFrom(maker)
            for i, original in enumerate(maker.input):
                tensor = graph.initializer.add()
                tensor.CopyFrom(stored[original])
                tensor.name = own.input[i] = f"{original}.{node.output[0]}.{position}"
            own.name, own.output[0] = "", f"{own.input[0]}.float"
            node.input[position] = own.output[0]
            graph.node.insert(0, own)
    return model.SerializeToString()


@lru_cache
def _sums_are_exact():
    """Tell whether the processor adds products of bytes in 32 bits.

    x86 without VNNI instructions cuts sums of two off at 16 bits, unless it is told to take a way that
    is half as fast. Where the instructions cannot be asked for, that way is taken.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return True
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def run(session, X):
    """Return the first output for samples, in float64."""
    return session.run(None, _feed(session, X))[0].astype(np.float64)


def _feed(session, X):
    """Return the input of a session: whole numbers, or float32."""
    X = X.astype(np.float32) if X.dtype.kind == "f" else X
    return {session.get_inputs()[0].name: np.ascontiguousarray(X)}


def measure(model, values, X):
    """Return the smallest and the largest number in some values of a graph, over samples.

    Parameters
    ----------
    model : onnx_ir.Model
        Left as it was.
    values : list of onnx_ir.Value
        Of its graph.
    X : ndarray of shape (n, ...)
        Samples.

    Returns
    -------
    dict of onnx_ir.Value to (float, float)
    """
    outputs = model.graph.outputs
    watched = [value for value in values if value not in list(outputs)]
    before = {value: (value.type, value.shape) for value in watched}
    for value in watched:
        value.type = ir.TensorType(ir.DataType.FLOAT)
        outputs.append(value)
    try:
        session = open_session(ir.to_proto(model).SerializeToString())
    finally:
        for value in watched:
            outputs.remove(value)
            value.type, value.shape = before[value]
    names = [value.name for value in watched]
    ranges = dict.fromkeys(watched, (np.inf, -np.inf))
    for start in range(0, len(X), _BATCH):
        arrays = session.run(names, _feed(session, X[start : start + _BATCH]))
        for value, array in zip(watched, arrays, strict=True):
            low, high = ranges[value]
            ranges[value] = min(low, float(array.min())), max(high, float(array.max()))
    return ranges
