"""Fewer bits for weights and activations of any torch module.

Knows nothing of scikit-learn, groups or fairness.
"""

from skqfair.quantization._activations import (
    ActivationQuantizer,
    ActivationStatistics,
    observe_activations,
)
from skqfair.quantization._affine import pack, unpack
from skqfair.quantization._batchnorm import has_batchnorm, reestimate_batchnorm
from skqfair.quantization._convert import QuantizedModule, convert
from skqfair.quantization._quantize import QuantizedTensor, quantize
from skqfair.quantization._scheme import FLOAT_BITS, QuantizationScheme
from skqfair.quantization._size import float_size, quantized_size
from skqfair.quantization._targets import plain_copy, quantizable_weights

__all__ = [
    "FLOAT_BITS",
    "ActivationQuantizer",
    "ActivationStatistics",
    "QuantizationScheme",
    "QuantizedModule",
    "QuantizedTensor",
    "convert",
    "float_size",
    "has_batchnorm",
    "observe_activations",
    "pack",
    "plain_copy",
    "quantizable_weights",
    "quantize",
    "quantized_size",
    "reestimate_batchnorm",
    "unpack",
]
