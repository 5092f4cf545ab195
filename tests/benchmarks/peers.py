"""Post-training quantization by other packages, where they are installed: one function each.

Each takes a float module, float32 calibration samples, bits of weights and of activations (or None), and
returns a function from samples to logits, and the bytes of weights, scales and the rest.
"""

import copy
import importlib.util
import io
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn

from skqfair import QuantizedClassifier
from skqfair.export import to_onnx
from skqfair.quantization import has_batchnorm

KINDS = (nn.Linear, nn.Conv2d)
BATCH = 128


def installed():
    """Return the rules of all packages that are there, by name."""
    rules = {
        "skqfair, nearest": ours("nearest"),
        "skqfair, GPTQ": ours("gptq"),
        "skqfair, least squares": ours("least_squares"),
    }
    if has("brevitas"):
        rules["brevitas, nearest"] = brevitas(equalize=0, gptq=False, bias=False)
        rules["brevitas, equalization and bias correction"] = brevitas(gptq=False)
        rules["brevitas, equalization, GPTQ, bias correction"] = brevitas()
    if has("torchao"):
        rules["torchao, nearest (Linear only)"] = torchao
    if has("neural_compressor"):
        rules["neural-compressor, nearest (Linear only)"] = neural_compressor
    if has("onnxruntime"):
        rules["onnxruntime, static"] = onnxruntime_static
    return rules


def has(package):
    """Whether a package is installed."""
    return importlib.util.find_spec(package) is not None


def batches(samples):
    """Return samples as tensors of at most ``BATCH`` rows."""
    return torch.from_numpy(samples).split(BATCH)


def logits_of(module):
    """Return a function from samples to the logits of a module."""

    def logits(samples):
        with torch.no_grad():
            return torch.cat([module(batch) for batch in batches(samples)]).numpy()

    return logits


def counted(module, bits, kinds=KINDS):
    """Return the bytes of a module whose layers of these kinds have codes and a scale a channel."""
    weights = [child.weight for child in module.modules() if isinstance(child, kinds)]
    rest = sum(p.numel() for p in module.parameters()) - sum(w.numel() for w in weights)
    return sum(-(-w.numel() * bits // 8) + 4 * len(w) for w in weights) + 4 * rest


def ours(rounding):
    """Return a rule of this package; BatchNorm statistics are moved where there are any."""

    def quantize(net, samples, labels, weight_bits, activation_bits):
        norms = has_batchnorm(net.module_)
        clf = QuantizedClassifier(
            FrozenEstimator(net),
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            rounding=rounding,
            recalibrate_batchnorm=norms,
            bias_correction=not norms and rounding != "nearest",
            calibration_size=len(samples),
            random_state=0,
        ).fit(samples, labels)
        return logits_of(clf.module_.eval()), clf.model_size_

    return quantize


def brevitas(*, equalize=20, gptq=True, bias=True):
    """Return a rule of brevitas: scales by mean squared error, as here."""

    def quantize(net, samples, labels, weight_bits, activation_bits):
        import brevitas.nn as qnn
        from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
        from brevitas.graph.gptq import gptq_mode
        from brevitas.graph.quantize import layerwise_quantize, preprocess_for_quantize
        from brevitas.quant.scaled_int import Int8ActPerTensorFloat, Int8WeightPerChannelFloatMSE

        options = {"weight_quant": Int8WeightPerChannelFloatMSE, "weight_bit_width": weight_bits}
        if activation_bits:
            options |= {"input_quant": Int8ActPerTensorFloat, "input_bit_width": activation_bits}
        layers = {nn.Conv2d: (qnn.QuantConv2d, options), nn.Linear: (qnn.QuantLinear, dict(options))}
        module = copy.deepcopy(net.module_).eval()
        module = preprocess_for_quantize(module, equalize_iters=equalize, trace_model=True)
        size = counted(module, weight_bits)
        module = layerwise_quantize(module, compute_layer_map=layers).eval()
        run = batches(samples)
        with torch.no_grad():
            module(run[0])
            if activation_bits:
                with calibration_mode(module):
                    list(map(module, run))
            if gptq:
                with gptq_mode(
                    module, use_quant_activations=bool(activation_bits), act_order=True
                ) as mode:
                    for _ in range(mode.num_layers):
                        list(map(mode.model, run))
                        mode.update()
            if bias:
                with bias_correction_mode(module):
                    list(map(module, run))
        return logits_of(module), size

    return quantize


def torchao(net, samples, labels, weight_bits, activation_bits):
    """Round the weights of linear layers to nearest, which is all that torchao's own rules know."""
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis

    if activation_bits:
        raise NotImplementedError("int8 activations are scaled anew for each row there")
    module = copy.deepcopy(net.module_).eval()
    kind = getattr(torch, f"int{weight_bits}")
    quantize_(module, IntxWeightOnlyConfig(weight_dtype=kind, granularity=PerAxis(0)))
    return logits_of(module), counted(net.module_, weight_bits, nn.Linear)


def neural_compressor(net, samples, labels, weight_bits, activation_bits):
    """Round the weights of linear layers to nearest; its GPTQ is for language models alone."""
    from neural_compressor.torch.quantization import RTNConfig, convert, prepare

    if activation_bits:
        raise NotImplementedError("static quantization needs a module exported by torch there")
    config = RTNConfig(bits=weight_bits, group_size=-1, use_sym=True)
    module = convert(prepare(copy.deepcopy(net.module_).eval(), config))
    return logits_of(module), counted(net.module_, weight_bits, nn.Linear)


def onnxruntime_static(net, samples, labels, weight_bits, activation_bits):
    """Round weights and activations of a file, 8 or 4 bits and 8 bits, a scale a channel."""
    from onnxruntime import InferenceSession
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if activation_bits != 8 or weight_bits not in (8, 4):
        raise NotImplementedError("static quantization is 8 or 4 bits by 8 there")

    class Reader(CalibrationDataReader):
        rest = [{"X": batch.numpy()} for batch in batches(samples)]

        def get_next(self):
            return self.rest.pop() if self.rest else None

    clf = QuantizedClassifier(FrozenEstimator(net), weight_bits=None).fit(samples, labels)
    with tempfile.TemporaryDirectory() as folder:
        plain, ready, path = (str(Path(folder, name)) for name in ("float", "ready", "quantized"))
        quant_pre_process(to_onnx(clf, plain + ".onnx"), ready)
        kind = QuantType.QInt8 if weight_bits == 8 else QuantType.QInt4
        quantize_static(
            ready,
            path,
            Reader(),
            per_channel=True,
            weight_type=kind,
            activation_type=QuantType.QInt8,
            extra_options={"WeightSymmetric": True},
        )
        content = Path(path).read_bytes()
    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda samples: np.asarray(session.run(None, {"X": samples})[0]), len(content)


def quietly(rule, *arguments):
    """Call a rule without what the packages print and warn of."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return rule(*arguments)
