"""From a fitted module to an ONNX graph: inputs quantized as in the module, weights by name."""

import copy
import io
import logging
import re
import threading
import warnings
from contextlib import contextmanager, redirect_stdout

import torch
from onnxscript import optimizer

from skqfair.exceptions import ExportError
from skqfair.export._graph import opaque
from skqfair.quantization import ActivationQuantizer, drop_quantizers, input_quantizers

__all__ = ["trace"]

_VERSION = 13  # of the quantizing operators, for bytes
_ALONE = threading.Lock()  # torch.export is not made for threads


def trace(module, example, opset, outputs=None):
    """Return the ONNX graph of a module, for any number of samples.

    Parameters
    ----------
    module : torch.nn.Module
        Quantized or float; not changed.
    example : tensor of shape (2, ...)
        Samples that the module takes.
    opset : int
        Version of the ONNX operators.
    outputs : callable, optional
        What is made of the outputs of the module, in the graph too.

    Returns
    -------
    model : onnx_ir.Model
        Its input is called "X", its output "output".
    parameters : dict of str to list of onnx_ir.Value
        The initializers of each parameter by its first name; several where it is shared.

    Raises
    ------
    ExportError
        If torch cannot express the module in ONNX; the message names the operation.
    """
    _refuse_wrong_exports(module)
    marked = _with_markers(module)
    if outputs is not None:
        marked.register_forward_hook(lambda module, args, output: outputs(output))
    example = example.float() if example.is_floating_point() else example
    try:
        with _ALONE, _quiet(), torch.no_grad():
            program = torch.onnx.export(
                marked,
                (example,),
                dynamo=True,
                optimize=False,
                opset_version=opset,
                dynamic_shapes=({0: torch.export.Dim("n")},),
                verbose=False,
            )
    except Exception as error:
        raise ExportError(_explain(type(module).__name__, error)) from error
    model = program.model
    if isinstance(model.graph.inputs[0].shape[0], int):
        raise ExportError(
            f"the module {type(module).__name__} cannot be exported for any number of samples: forward "
            "makes it a constant, as len(x) and int(x.shape[0]) do; write x.shape[0], or x.flatten(1) "
            "for x.reshape(len(x), -1)."
        )
    found = _parameters(marked, model.graph)
    names = [value.name for values in found.values() for value in values]
    with _ALONE, _quiet(), opaque(model.graph, names):
        optimizer.optimize(model)
    model.graph.inputs[0].name, model.graph.outputs[0].name = "X", "output"
    _strip(model)
    return model, found


class _Marker(ActivationQuantizer):
    """Writes the quantization of an input into the graph, as operators that runtimes know.

    The codes are unsigned bytes, around 128 or the zero point where the input is signed: the kernels of
    processors take such bytes. Codes that do not fill the byte are clipped as codes, so that nothing
    stands between a layer and its quantization, where runtimes look for it.
    """

    def quantize(self, values):
        scale = self.scale.to(values)
        zero = self.zero_point if self.zero_point is not None else 128 if self.signed else 0
        zero_point = _byte(zero)
        codes = _operator("QuantizeLinear", (values, scale, zero_point), torch.uint8, values)
        low, high = self.low + zero, self.high + zero
        if (low, high) != (0, 255):
            codes = _operator("Clip", (codes, _byte(low), _byte(high)), torch.uint8, values)
        return _operator("DequantizeLinear", (codes, scale, zero_point), values.dtype, values)


def _byte(value):
    return torch.tensor(value, dtype=torch.uint8)


def _operator(name, inputs, dtype, like):
    return torch.onnx.ops.symbolic(name, inputs, dtype=dtype, shape=like.shape, version=_VERSION)


def _with_markers(module):
    """Return a copy in float32, on the CPU, that writes quantizers of bytes down as such.

    Wider ones stay what they compute: division, rounding, clipping and product.
    """
    marked = copy.deepcopy(module).cpu().float().eval()
    quantizers = input_quantizers(marked)
    drop_quantizers(marked)
    for name, found in quantizers.items():
        kind = _Marker if found.bits <= 8 else ActivationQuantizer
        hook = kind(found.scale.cpu().float(), found.bits, found.signed, found.zero_point)
        marked.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True)
    return marked.requires_grad_(False)


def _refuse_wrong_exports(module):
    """Raise for modules that torch exports to something else, without a word."""
    for name, child in module.named_modules():
        if isinstance(child, torch.nn.LSTM) and child.proj_size:
            raise ExportError(
                f"the module {name or type(module).__name__} cannot be exported: ONNX has no LSTM with "
                "proj_size; use an LSTM without it and a Linear layer."
            )


def _strip(model):
    """Remove what torch writes down of its own: kilobytes a layer, with the paths of this machine."""
    for part in (model, model.graph, *model.functions.values()):
        part.metadata_props.clear()
        part.doc_string = None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _parameters(module, graph):
    """Return the initializers of each parameter; a shared one may be there under any of its names."""
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    found = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if name in graph.initializers:
            found.setdefault(first[id(parameter)], []).append(graph.initializers[name])
    return found


def _explain(name, error):
    """Return a message that names the operation, where torch says which it is."""
    text, cause = str(error), error
    while cause.__cause__ is not None:
        cause = cause.__cause__
        text += f"\n{cause}"
    operations = re.findall(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'", text)
    operations += re.findall(r"No decompositions registered for (\w+[.:][\w.:]+)", text)
    if operations:
        listed = ", ".join(sorted(set(operations)))
        return (
            f"the module {name} cannot be exported: ONNX has nothing for the operation {listed}; "
            "replace it in forward by operations of torch.nn that ONNX has."
        )
    reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), repr(cause))
    return (
        f"the module {name} cannot be exported: torch.export stops with {type(cause).__name__}: "
        f"{reason} Usual causes are Python control flow that depends on values, packed sequences, and "
        "a batch size that is fixed in forward."
    )


@contextmanager
def _quiet():
    """Silence what torch says about itself while it exports."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
