"""Weights in the graph: codes in the smallest ONNX integers, BatchNorm in their scales."""

from dataclasses import dataclass, replace

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
from skqfair.quantization import channel_shape, q_max

__all__ = [
    "StoredWeight",
    "bias_codes",
    "fold_batchnorm",
    "fold_transposes",
    "has_blocks",
    "store",
    "takes_integers",
]

_TYPES = ((2, ir.DataType.INT2), (4, ir.DataType.INT4), (8, ir.DataType.INT8), (16, ir.DataType.INT16))
_LARGEST = 2**30  # codes of biases: the sums are added to them in 32 bits
_SMALL = np.float32(2**-16)  # scale of a weight that is zero throughout


@dataclass
class StoredWeight:
    """Integer codes, and scales that broadcast against them or, with ``blocks``, repeat along an axis.

    Attributes
    ----------
    codes : ndarray of int8 or int16
        Symmetric around 0.
    scale : ndarray of float32
        Positive.
    bits : int
        Of the widest code.
    blocks : tuple of int, or None
        Axis and number of neighbours that share a scale; the last may be fewer.
    """

    codes: np.ndarray
    scale: np.ndarray
    bits: int
    blocks: tuple[int, int] | None = None

    @classmethod
    def of(cls, tensor):
        """Take over a :class:`QuantizedTensor`."""
        scale = tensor.scale.detach().cpu().float().numpy()
        blocks = None if tensor.group_size is None else (1 - tensor.axis, tensor.group_size)
        return cls(tensor.codes.cpu().numpy(), scale, int(np.max(tensor.bits)), blocks)

    @property
    def dtype(self):
        """The ONNX type of the codes."""
        return next(dtype for bits, dtype in _TYPES if self.bits <= bits)

    @property
    def axis(self):
        """The axis of the scales; None where there is one scale, or one for each of several axes."""
        axes = [i for i, size in enumerate(self.scale.shape) if size > 1]
        return axes[0] if len(axes) == 1 else None

    @property
    def is_linear(self):
        """Whether DequantizeLinear can express the scales: one, or one for each channel."""
        return self.blocks is None and (self.scale.size == 1 or self.axis is not None)

    @property
    def factor(self):
        """By what codes of at most 8 bits can be multiplied within a byte."""
        return q_max(8) // q_max(self.bits)

    @property
    def byte_scale(self):
        """The scales of codes times ``factor``; a channel of zeros has the smallest of the others.

        Biases are added in units of input scale times these: narrow codes, with their large scales,
        would round them coarsely, and so would the scale of 1 that zeros have.
        """
        axes = tuple(i for i, size in enumerate(self.scale.shape) if size == 1)
        used = self.codes.any(axis=axes or None, keepdims=self.scale.ndim > 0)
        least = self.scale[used].min() if used.any() else _SMALL
        return np.where(used, self.scale, least) / np.float32(self.factor)

    def spread(self, values):
        """Return values, one for each scale, so that they broadcast against the codes."""
        if self.blocks is None:
            return values
        axis, size = self.blocks
        return np.take(values, np.arange(self.codes.shape[axis]) // size, axis)

    def scaled(self, factor, axis):
        """Return the weight times one factor a channel: in the scales, the sign in the codes."""
        factor = factor.reshape(channel_shape(self.codes, axis))
        scale = np.abs(self.scale.astype(np.float64) * factor).astype(np.float32)
        codes = self.codes * np.sign(factor).astype(self.codes.dtype)
        gone = scale == 0
        codes = np.where(self.spread(gone), 0, codes)
        return replace(self, codes=codes, scale=np.where(gone, np.float32(1), scale))

    def transposed(self, permutation):
        """Return the weight with its axes permuted."""
        scale = self.scale.transpose(permutation) if self.scale.ndim else self.scale
        blocks = self.blocks and (permutation.index(self.blocks[0]), self.blocks[1])
        return replace(self, codes=self.codes.transpose(permutation), scale=scale, blocks=blocks)


def fold_transposes(graph, weights):
    """Store weights the way round that their only user takes them.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Changed in place.
    weights : dict of onnx_ir.Value to StoredWeight
        Changed in place.
    """
    for value, weight in list(weights.items()):
        node = only_user(value)
        if node is not None and node.op_type == "Transpose":
            weights[value] = weight.transposed(list(node.attributes["perm"].as_ints()))
            replace_node(graph, node, value)


def fold_batchnorm(graph, weights):
    r"""Fold BatchNorm into the scales of the layer before it; the codes stay what they are.

    .. math:: S'_c = S_c \frac{|\gamma_c|}{\sqrt{\sigma_c^2 + \epsilon}}, \qquad
              b'_c = (b_c - \mu_c) \frac{\gamma_c}{\sqrt{\sigma_c^2 + \epsilon}} + \beta_c

    and a negative :math:`\gamma_c` turns the signs of the codes of its channel.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Changed in place.
    weights : dict of onnx_ir.Value to StoredWeight
        Changed in place.
    """
    for norm in list(graph):
        if norm.op_type != "BatchNormalization":
            continue
        layer = norm.inputs[0].producer()
        if layer is None or only_user(layer.outputs[0]) is not norm:
            continue
        axis, weight = _channel_axis(layer), layer.inputs[1] if len(layer.inputs) > 1 else None
        statistics = [values_of(value) for value in norm.inputs[1:5]]
        bias = layer.inputs[2] if len(layer.inputs) > 2 else None
        if axis is None or any(s is None for s in statistics) or (bias and values_of(bias) is None):
            continue
        if only_user(weight) is not layer or (weight not in weights and values_of(weight) is None):
            continue
        gamma, beta, mean, variance = (s.astype(np.float64) for s in statistics)
        epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
        factor = gamma / np.sqrt(variance + epsilon)
        if weight in weights:
            weights[weight] = weights[weight].scaled(factor, axis)
        else:
            _scale_float(graph, weight, factor, axis)
        shifted = ((0.0 if bias is None else values_of(bias)) - mean) * factor + beta
        layer.resize_inputs(3)
        layer.replace_input_with(
            2, add_constant(graph, f"{weight.name}.bias", shifted.astype(np.float32))
        )
        replace_node(graph, norm, layer.outputs[0])


def _channel_axis(layer):
    """Return the axis of the output channels in the weight of a layer, None if there is none."""
    attributes = layer.attributes
    if layer.op_type == "Conv":
        return 0
    if layer.op_type == "ConvTranspose":
        return 1 if "group" not in attributes or attributes["group"].as_int() == 1 else None
    if layer.op_type == "Gemm":
        return 0 if "transB" in attributes and attributes["transB"].as_int() else 1
    return None


def _scale_float(graph, weight, factor, axis):
    values = values_of(weight)
    scaled = (values * factor.reshape(channel_shape(values, axis))).astype(np.float32)
    redirect(weight, add_constant(graph, f"{weight.name}.folded", scaled))


def has_blocks(node):
    """Tell whether a DequantizeLinear has scales of blocks, which integer kernels do not know."""
    return "block_size" in node.attributes


def takes_integers(node):
    """Tell whether a layer has integer kernels and an input of at most 8 bits."""
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return False
    before = node.inputs[0].producer()
    if before is None or before.op_type != "DequantizeLinear" or has_blocks(before):
        return False
    zero_point = values_of(before.inputs[2])
    return zero_point is not None and zero_point.dtype == np.uint8


def bias_codes(node, scale):
    """Return the bias of a layer in units of input scale times weight scale, None without a bias.

    Parameters
    ----------
    node : onnx_ir.Node
        A layer that :func:`takes_integers`.
    scale : ndarray of float32
        Of its weight: one number, or one for each output.

    Returns
    -------
    ndarray of float64, or None
        Whole numbers; infinite or NaN where the unit is 0.
    """
    bias = values_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is None:
        return None
    unit = values_of(node.inputs[0].producer().inputs[1]) * scale
    with np.errstate(divide="ignore", invalid="ignore"):  # a product below float32: beyond 32 bits
        return np.rint(bias.astype(np.float64) / unit.reshape(-1))


def _runs_in_integers(node, weight):
    """Tell whether integer kernels can take a layer with this weight.

    Not with a bias beyond 32 bits: runtimes would cut it off.
    """
    if not (takes_integers(node) and weight.bits <= 8 and weight.is_linear):
        return False
    codes = bias_codes(node, weight.byte_scale)
    return codes is None or np.abs(codes).max(initial=0) <= _LARGEST


def _widened(graph, before, codes, factor, name):
    """Return codes that fill a byte; a runtime computes them when it loads the model."""
    if factor == 1:
        return codes
    wide = insert(graph, before, "Cast", [codes], f"{name}.wide", to=ir.DataType.INT32)
    by = add_constant(graph, f"{name}.factor", np.int32(factor))
    wide = insert(graph, before, "Mul", [wide, by], f"{name}.product")
    return insert(graph, before, "Cast", [wide], f"{name}.bytes", to=ir.DataType.INT8)


def _from_blocks(graph, before, codes, weight, name):
    """Return floats of codes whose scales are those of blocks.

    Of codes in 2, 4 or 8 bits onnxruntime would make a MatMulNBits of its own accord, which rounds the
    inputs of the product to 8 bits; of 16 bits it does not.
    """
    (axis, size), scale = weight.blocks, add_constant(graph, f"{name}.scale", weight.scale)
    if weight.bits <= 8:
        codes = insert(graph, before, "Cast", [codes], f"{name}.wide", to=ir.DataType.INT16)
    inputs, blocks = [codes, scale], {"axis": axis, "block_size": size}
    return insert(graph, before, "DequantizeLinear", inputs, f"{name}.float", **blocks)


def store(graph, weights):
    """Replace float weights by their codes and what makes floats of them.

    A weight that integer kernels will take is dequantized by DequantizeLinear, which they look for, and
    one with blocks too, for it alone knows these. Any other one by a cast and a product, which a runtime
    computes once when it loads the model.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Changed in place.
    weights : dict of onnx_ir.Value to StoredWeight
        What to store in the place of each initializer.
    """
    first = graph[0]
    for value, weight in weights.items():
        name = value.name
        users = [(use.node, use.idx) for use in value.uses()]
        if not users:
            del graph.initializers[name]
            continue
        codes = add_constant(graph, f"{name}.codes", weight.codes, weight.dtype)
        if all(position == 1 and _runs_in_integers(node, weight) for node, position in users):
            codes = _widened(graph, first, codes, weight.factor, name)
            floats = dequantize(graph, first, codes, weight.byte_scale, weight.axis, name)
        elif weight.blocks is not None:
            floats = _from_blocks(graph, first, codes, weight, name)
        else:
            scale = add_constant(graph, f"{name}.scale", weight.scale)
            floats = insert(graph, first, "Cast", [codes], f"{name}.cast", to=ir.DataType.FLOAT)
            floats = insert(graph, first, "Mul", [floats, scale], f"{name}.float")
        redirect(value, floats)
        del graph.initializers[name]
