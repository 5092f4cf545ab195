"""What lets a runtime use integer kernels: int32 biases, and quantized values around additions.

A convolution runs in integers only where its output is quantized as well. Before another layer it is,
by that layer's own quantizer. Before a residual addition or a mean over the image it is not: there the
range must be measured, and one more rounding to 8 bits is made than the module makes.
"""

import numpy as np
import onnx_ir as ir

from skqfair.export._graph import (
    add_constant,
    dequantize,
    insert,
    only_user,
    redirect,
    replace_node,
    values_of,
)
from skqfair.export._weights import bias_codes, has_blocks, takes_integers

__all__ = ["float_quantizers", "quantize_biases", "quantize_outputs", "unquantized_outputs"]

_POOLS = ("ReduceMean", "GlobalAveragePool", "AveragePool")


def float_quantizers(graph):
    """Write quantizers of inputs as float operations, where no integer layer follows.

    A runtime that meets QuantizeLinear takes it as leave to quantize what is float around it:
    onnxruntime rounds float weights there to 8 bits, without a word.

    Parameters
    ----------
    graph : onnx_ir.Graph
        With its weights stored; changed in place.
    """
    for node in list(graph):
        if not _is_input_quantizer(node):
            continue
        uses = list(node.outputs[0].uses())
        if all(_is_integer_layer(use.node) and use.idx == 0 for use in uses):
            continue
        _, scale, zero = node.inputs
        before, low, high = node.inputs[0].producer(), 0, 255
        if before.op_type == "Clip":
            low, high = (int(values_of(limit)) for limit in before.inputs[1:3])
            before = before.inputs[0].producer()
        name, zero_point = node.outputs[0].name, int(values_of(zero))
        limits = [
            add_constant(graph, f"{name}.{end}", np.float32(limit - zero_point))
            for end, limit in (("low", low), ("high", high))
        ]
        codes = insert(graph, node, "Div", [before.inputs[0], scale], f"{name}.ratio")
        codes = insert(graph, node, "Round", [codes], f"{name}.rounded")
        codes = insert(graph, node, "Clip", [codes, *limits], f"{name}.clipped")
        replace_node(graph, node, insert(graph, node, "Mul", [codes, scale], f"{name}.float"))


def _is_input_quantizer(node):
    """Tell whether a node ends the quantization of an input, rather than of a weight."""
    before = node.inputs[0].producer() if node.op_type == "DequantizeLinear" else None
    return before is not None and before.op_type in ("QuantizeLinear", "Clip")


def _is_integer_layer(node):
    if not takes_integers(node):
        return False
    weight = node.inputs[1]
    return _is_dequantized(weight) and not has_blocks(weight.producer())


def quantize_biases(graph):
    """Store biases of integer layers as int32, in units of input scale times weight scale.

    Parameters
    ----------
    graph : onnx_ir.Graph
        With its weights stored, those of layers whose biases fit into 32 bits by DequantizeLinear;
        changed in place.
    """
    for node in list(graph):
        if node.op_type not in ("Conv", "Gemm") or not _is_integer_layer(node):
            continue
        scale = values_of(node.inputs[1].producer().inputs[1])
        codes = bias_codes(node, scale)
        if codes is None:
            continue
        scale = values_of(node.inputs[0].producer().inputs[1]) * scale
        name = f"{node.outputs[0].name}.bias"
        stored = add_constant(graph, f"{name}.codes", codes.astype(np.int32))
        axis = None if scale.ndim == 0 else 0
        node.replace_input_with(2, dequantize(graph, node, stored, scale, axis, name))


def unquantized_outputs(graph):
    """Return the values that keep a convolution from running in integers.

    Parameters
    ----------
    graph : onnx_ir.Graph
        With its weights stored.

    Returns
    -------
    list of onnx_ir.Value
        Outputs of convolutions (after their ReLU, where there is one) that no quantizer follows, and
        what is averaged over the image after an addition of such.
    """
    found = []
    for node in graph:
        if node.op_type == "Conv" and _is_integer_layer(node):
            value = _after_relu(node.outputs[0])
            # before other operations, such as a SiLU, the module has no rounding, and none is made
            if not _reaches_quantizers(value) and _reaches_only(value, ("Add", *_POOLS)):
                found.append(value)
    convolved = set(found)
    for node in graph:
        if node.op_type in _POOLS and node.inputs[0] not in convolved:
            before = node.inputs[0].producer()
            if before is not None and _is_relu(before):
                before = before.inputs[0].producer()
            if before is not None and before.op_type == "Add" and convolved & set(before.inputs):
                found.append(node.inputs[0])
    return found


def quantize_outputs(graph, ranges):
    """Quantize values to 8 bits, and let additions read what the next layer reads.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Changed in place.
    ranges : dict of onnx_ir.Value to (float, float)
        Smallest and largest number measured.
    """
    for value, (low, high) in ranges.items():
        low, high = min(low, 0.0), max(high, 0.0)
        scale = np.float32((high - low) / 255) or np.float32(1)
        zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
        scale = add_constant(graph, f"{value.name}.scale", scale)
        zero = add_constant(graph, f"{value.name}.zero_point", zero)
        codes = ir.node("QuantizeLinear", [value, scale, zero])
        floats = ir.node("DequantizeLinear", [codes.outputs[0], scale, zero])
        codes.outputs[0].name, floats.outputs[0].name = f"{value.name}.codes", f"{value.name}.rounded"
        graph.insert_after(value.producer(), [codes, floats])
        redirect(value, floats.outputs[0], but=(codes,))
    for node in list(graph):
        if node.op_type == "Add" and any(_is_dequantized(value) for value in node.inputs):
            for position, value in enumerate(node.inputs):
                floats = _quantized_twin(value)
                if floats is not None and not _is_dequantized(value):
                    node.replace_input_with(position, floats)


def _quantized_twin(value):
    """Return what a layer reads of ``value`` through its 8-bit quantizer, None if no layer does."""
    for use in value.uses():
        if use.node.op_type == "QuantizeLinear" and values_of(use.node.inputs[2]).dtype == np.uint8:
            after = only_user(use.node.outputs[0])
            if after is not None and after.op_type == "DequantizeLinear":
                return after.outputs[0]
    return None


def _is_dequantized(value):
    before = value.producer()
    return before is not None and before.op_type == "DequantizeLinear"


def _after_relu(value):
    node = only_user(value)
    return node.outputs[0] if node is not None and _is_relu(node) else value


def _is_relu(node):
    """Tell whether a node is a ReLU or ReLU6, which runtimes take into the quantizer that follows."""
    if node.op_type != "Clip":
        return node.op_type == "Relu"
    low = node.inputs[1] if len(node.inputs) > 1 else None
    return low is not None and low.const_value is not None and values_of(low) == 0


def _reaches_quantizers(value):
    """Tell whether only quantizers use ``value``, perhaps after pooling or reshaping."""
    return _reaches_only(value, ("QuantizeLinear",))


def _reaches_only(value, kinds):
    """Tell whether only nodes of some kinds use ``value``, perhaps after pooling or reshaping."""
    uses = list(value.uses())
    if not uses or value.is_graph_output():
        return False
    return all(
        use.node.op_type in (*kinds, "QuantizeLinear")
        or (
            use.node.op_type in ("MaxPool", "Reshape", "Flatten", "Transpose")
            and _reaches_only(use.node.outputs[0], kinds)
        )
        for use in uses
    )
