"""A quantized copy of any module: dequantized weights baked in, quantizing hooks on inputs."""

from dataclasses import dataclass, field

import torch

from skqfair.quantization._quantize import QuantizedTensor
from skqfair.quantization._scheme import FLOAT_BITS
from skqfair.quantization._targets import activation_targets, plain_copy, quantizable_weights

__all__ = ["QuantizedModule", "convert"]


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
        Bits of every quantizable weight, 32 for float.
    activations : dict of str to ActivationQuantizer
        By module name.
    """

    module: torch.nn.Module
    weights: dict
    layer_bits: dict
    activations: dict = field(default_factory=dict)


def convert(module, scheme, statistics=None):
    """Return a quantized copy of ``module``.

    Parameters
    ----------
    module : torch.nn.Module
        The float module, not changed.
    scheme : QuantizationScheme
        What to quantize and how.
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
    if scheme.activation_bits is not None and statistics is None:
        raise ValueError(
            "statistics must be given when the scheme has activation_bits; collect them with "
            "observe_activations(module)."
        )
    quantized = plain_copy(module).eval()
    layer_bits = scheme.resolve(quantized)
    axes = quantizable_weights(quantized)
    parameters = dict(quantized.named_parameters())
    weights = {}
    for name, bits in layer_bits.items():
        if isinstance(bits, int) and bits == FLOAT_BITS:
            continue
        parameter = parameters[name].detach()
        weights[name] = QuantizedTensor.from_float(
            parameter,
            bits,
            per_channel=scheme.per_channel,
            calibration=scheme.calibration,
            axis=axes[name],
        )
        parameter.copy_(weights[name].dequantize())
    activations = {}
    if scheme.activation_bits is not None:
        targets = activation_targets(quantized)
        for name, seen in statistics.items():
            hook = seen.quantizer(scheme.activation_bits, scheme.calibration)
            targets[name].register_forward_pre_hook(hook, with_kwargs=True)
            activations[name] = hook
    return QuantizedModule(quantized, weights, layer_bits, activations)
