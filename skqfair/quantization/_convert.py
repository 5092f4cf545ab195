"""A quantized copy of any module: dequantized weights baked in, quantizing hooks on inputs."""

from dataclasses import dataclass, field

import numpy as np
import torch

from skqfair.quantization._activations import ActivationQuantizer, ActivationStatistics
from skqfair.quantization._quantize import QuantizedTensor
from skqfair.quantization._scheme import FLOAT_BITS, QuantizationScheme
from skqfair.quantization._targets import (
    activation_targets,
    check_module,
    plain,
    plain_copy,
)

__all__ = ["QuantizedModule", "bake", "convert"]


@dataclass(frozen=True, eq=False)
class QuantizedModule:
    """The result of :func:`convert`.

    Parameters
    ----------
    module : torch.nn.Module
        A copy in eval mode whose weights are the dequantized ones.
    weights : dict of str to QuantizedTensor
        Codes and scales of every quantized weight, by parameter name.
    layer_bits : dict of str to (int or ndarray of int)
        Bits of every parameter of two or more dimensions, 32 for float.
    activations : dict of str to ActivationQuantizer
        Quantizers of inputs, by module name.
    """

    module: torch.nn.Module
    weights: dict[str, QuantizedTensor]
    layer_bits: dict[str, int | np.ndarray]
    activations: dict[str, ActivationQuantizer] = field(default_factory=dict)


def convert(
    module: torch.nn.Module,
    scheme: QuantizationScheme,
    statistics: dict[str, ActivationStatistics] | None = None,
) -> QuantizedModule:
    """Return a quantized copy of ``module``.

    Parameters
    ----------
    module : torch.nn.Module
        The float module, not changed.
    scheme : QuantizationScheme
        The bits of each layer, and how scales are found.
    statistics : dict of str to ActivationStatistics, optional
        From :func:`observe_activations`; needed for ``scheme.activation_bits``.

    Returns
    -------
    QuantizedModule
        The copy, its codes and its bits.

    Raises
    ------
    ValueError
        As :meth:`QuantizationScheme.resolve`; or activation bits without statistics.
    """
    check_module(module)
    if not isinstance(scheme, QuantizationScheme):
        raise TypeError(
            f"scheme must be a QuantizationScheme, got {type(scheme).__name__}; e.g. "
            "QuantizationScheme(weight_bits=4)."
        )
    if scheme.activation_bits is not None and statistics is None:
        raise ValueError(
            "statistics must be given when the scheme has activation_bits; collect them with "
            "observe_activations(module)."
        )
    module = plain(module)
    layer_bits = scheme.resolve(module)
    layouts, parameters = scheme.layouts(module), dict(module.named_parameters())
    weights = {
        name: QuantizedTensor.from_float(
            parameters[name].detach(), bits, calibration=scheme.calibration, **layouts[name]
        )
        for name, bits in layer_bits.items()
        if not (isinstance(bits, int) and bits == FLOAT_BITS)
    }
    inputs = {}
    if scheme.activation_bits is not None:
        inputs = {
            name: seen.quantizer(
                scheme.activation_bits, scheme.activation_calibration, scheme.activation_scheme
            )
            for name, seen in statistics.items()
        }
    return bake(module, layer_bits, weights, inputs)


def bake(module, layer_bits, weights, activations):
    """Return a copy in eval mode with these weights dequantized in it, and these hooks on inputs."""
    quantized = plain_copy(module).eval()
    parameters = dict(quantized.named_parameters())
    for name, weight in weights.items():
        parameters[name].detach().copy_(weight.dequantize())
    targets = activation_targets(quantized)
    for name, hook in activations.items():
        targets[name].register_forward_pre_hook(hook, with_kwargs=True)
    return QuantizedModule(quantized, weights, layer_bits, activations)
