"""Which version of the operators a model needs, and models of older ones."""

import onnx
import onnx_ir as ir
from onnx import version_converter

from skqfair.exceptions import ExportError

__all__ = ["TRACED", "check_opset", "ir_version", "lowered"]

_FIRST = {ir.DataType.INT2: 25, ir.DataType.INT4: 21, ir.DataType.INT16: 21}  # 8-bit weights: 13
_LEAST, _DEFAULT, _BLOCKS = 13, 21, 21
TRACED = 18  # the oldest that torch writes


def check_opset(opset, weights):
    """Return the version to write, the given one if it knows the integers of the weights."""
    types = {weight.dtype for weight in weights.values()}
    least = max((_FIRST.get(dtype, _LEAST) for dtype in types), default=_LEAST)
    blocks = least < _BLOCKS and any(weight.blocks is not None for weight in weights.values())
    least = _BLOCKS if blocks else least
    if opset is None:
        return max(least, _DEFAULT)
    most = onnx.defs.onnx_opset_version()
    if isinstance(opset, bool) or not isinstance(opset, int) or not least <= opset <= most:
        why = {13: "8-bit weights", 21: "weights of 4 and 16 bits", 25: "weights of 2 bits"}[least]
        remedy = "leave opset None"
        if blocks:
            why = "scales of groups of columns"
            remedy += ", or fit with granularity='per_channel'"
        raise ValueError(
            f"opset must be an integer from {least}, the first for {why}, to {most}, the last that the "
            f"installed onnx knows; got {opset!r}: {remedy}."
        )
    return opset


def ir_version(opset):
    """Return the version of the file format that belongs to a version of the operators."""
    return 8 if opset < 19 else 9 if opset < 21 else 10 if opset < 25 else 13


def lowered(model, opset):
    """Return a model in older operators.

    Parameters
    ----------
    model : onnx.ModelProto
        Of version 18.
    opset : int
        13 to 17.

    Raises
    ------
    ExportError
        If an operation of the model has no older form.
    """
    _strip(model, "noop_with_empty_axes")  # 0 where it is written
    try:
        older = version_converter.convert_version(model, max(opset, 14))
        if opset < 14:  # adds bfloat16 to types, and nothing else
            _strip(older, "allowzero")  # of arrays without samples
            older.opset_import[0].version = opset
        onnx.checker.check_model(older)
    except Exception as error:
        reason = str(error).strip().splitlines()[0].rpartition("failed: ")[2]
        raise ExportError(
            f"the module cannot be written in opset {opset}: {reason}; use 18 or a later one."
        ) from error
    older.ir_version = ir_version(opset)
    return older


def _strip(model, name):
    for node in model.graph.node:
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend(kept)
