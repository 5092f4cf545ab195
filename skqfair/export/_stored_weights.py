"""The weights that a model file holds, dequantized: those of layers whatever wrote them."""

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["stored_weights"]

_SUFFIXES = ("_quantized", "_Transposed", "_int8", "_weight_transposed")
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def stored_weights(content):
    """Return the weights of two or more dimensions, by name.

    Parameters
    ----------
    content : bytes
        An ONNX model.

    Returns
    -------
    dict of str to ndarray of float64
        With :math:`(q - z) s` for the codes q, zero points z and scales s of DequantizeLinear, and of
        the operators for which onnxruntime names them ``*_quantized``, ``*_zero_point`` and ``*_scale``.
        Codes without a scale are left out.
    """
    graph = onnx.load_from_string(content).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    readers = {node.input[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    found = {}
    for name, tensor in tensors.items():
        if len(tensor.dims) < 2:
            continue
        if tensor.data_type in _FLOATS:
            found[name] = numpy_helper.to_array(tensor).astype(np.float64)
        elif (values := _dequantized(name, tensor, tensors, readers.get(name))) is not None:
            found[_plain(name)] = values
    return found


def _dequantized(name, tensor, tensors, reader):
    """Return the values of codes, None where their scale is not known."""
    base = name.removesuffix("_quantized")
    scale, zero, axis, block = f"{base}_scale", f"{base}_zero_point", None, 0
    if reader is not None:
        scale, zero = reader.input[1], reader.input[2] if len(reader.input) > 2 else ""
        options = {attribute.name: attribute.i for attribute in reader.attribute}
        axis, block = options.get("axis", 1), options.get("block_size", 0)
    if scale not in tensors:
        return None
    codes = numpy_helper.to_array(tensor).astype(np.float64)
    scale = numpy_helper.to_array(tensors[scale]).astype(np.float64)
    zero = numpy_helper.to_array(tensors[zero]).astype(np.float64) if zero in tensors else 0.0
    return (codes - _along(zero, codes, axis, block)) * _along(scale, codes, axis, block)


def _along(values, codes, axis, block):
    """Return numbers of channels, or of blocks along an axis, with the shape that codes need."""
    values = np.asarray(values)
    if block and values.ndim:
        return np.take(values, np.arange(codes.shape[axis]) // block, axis)
    if values.size == 1:
        return values.reshape(())
    if axis is None:  # the axis that has as many, the last as onnxruntime quantizes products
        axis = max(i for i, size in enumerate(codes.shape) if size == values.size)
    shape = [1] * codes.ndim
    shape[axis] = values.size
    return values.reshape(shape)


def _plain(name):
    """Return a name without what quantizers add to it."""
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name
