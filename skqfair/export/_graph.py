"""Small steps on an ONNX graph: constants, users, and replacing one value by another."""

from contextlib import contextmanager

import numpy as np
import onnx_ir as ir

__all__ = [
    "add_constant",
    "dequantize",
    "insert",
    "only_user",
    "opaque",
    "redirect",
    "replace_node",
    "values_of",
]


def add_constant(graph, name, array, dtype=None):
    """Add an initializer with the values of an array, and return it.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Changed in place.
    name : str
        Made unique in the graph.
    array : array
        Values.
    dtype : onnx_ir.DataType, optional
        Element type, for those that numpy does not have.

    Returns
    -------
    onnx_ir.Value
    """
    base, number = name, 0
    while name in graph.initializers:
        number += 1
        name = f"{base}_{number}"
    array = np.array(array, order="C")  # a copy: keeps nothing else alive, and 0-dim as it is
    tensor = ir.tensor(array, dtype=dtype, name=name)
    value = ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))
    graph.register_initializer(value)
    return value


def values_of(value):
    """Return the array behind a constant, or None if ``value`` is computed or not there."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def only_user(value):
    """Return the one node that uses ``value``, or None where several do or it is an output."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    return uses[0].node


def insert(graph, before, operator, inputs, name, **attributes):
    """Insert a node before another, and return its output."""
    node = ir.node(operator, inputs, attributes=attributes)
    graph.insert_before(before, node)
    node.outputs[0].name = name
    return node.outputs[0]


def dequantize(graph, before, codes, scale, axis, name):
    """Insert DequantizeLinear, with zero points of 0 as integer kernels want them; return its output.

    ``scale`` is an array of one number, or of one for each index of ``axis``.
    """
    scale = np.asarray(scale, dtype=np.float32).reshape(() if axis is None else -1)
    zero = np.zeros(scale.shape, dtype=np.int32 if codes.dtype == ir.DataType.INT32 else np.int8)
    inputs = [
        add_constant(graph, f"{name}.scale", scale),
        add_constant(graph, f"{name}.zero_point", zero),
    ]
    axis = {} if axis is None else {"axis": axis}
    return insert(graph, before, "DequantizeLinear", [codes, *inputs], f"{name}.float", **axis)


def redirect(value, other, *, but=()):
    """Let the users of ``value`` use ``other``, except the nodes in ``but``."""
    for node, position in [(use.node, use.idx) for use in value.uses()]:
        if node not in but:
            node.replace_input_with(position, other)


def replace_node(graph, node, value):
    """Remove a node with one output, whose users take ``value`` from now on."""
    output = node.outputs[0]
    if output.is_graph_output():
        graph.outputs[list(graph.outputs).index(output)] = value
        value.name = output.name
    redirect(output, value)
    graph.remove(node, safe=True)


@contextmanager
def opaque(graph, names):
    """Let initializers be inputs of the graph for a while: nothing is then computed from them."""
    hidden = {name: graph.initializers[name] for name in names}
    tensors = {name: value.const_value for name, value in hidden.items()}
    for name, value in hidden.items():
        del graph.initializers[name]
        value.const_value = None
        graph.inputs.append(value)
    yield
    for name, value in hidden.items():
        graph.inputs.remove(value)
        value.const_value = tensors[name]
        graph.initializers[name] = value
