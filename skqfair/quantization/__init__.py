"""Fewer bits for weights and activations of any torch module, or fewer weights.

Knows nothing of scikit-learn, groups or fairness.
"""

from skqfair.quantization._activations import (
    ACTIVATION_SCHEMES,
    ActivationQuantizer,
    ActivationStatistics,
    drop_quantizers,
    input_quantizers,
    observe_activations,
)
from skqfair.quantization._affine import check_bits, pack, q_max, unpack
from skqfair.quantization._allocation import CHOICES, allocate_bits, check_budget
from skqfair.quantization._batchnorm import has_batchnorm, move_batchnorm
from skqfair.quantization._calibration import CALIBRATIONS
from skqfair.quantization._convert import QuantizedModule, convert
from skqfair.quantization._fake_quantize import FakeQuantization
from skqfair.quantization._pruning import SCOPES, PrunedModule, amount_for_size, prune
from skqfair.quantization._pruning_masks import HeldMasks
from skqfair.quantization._quantize import QuantizedTensor, channel_shape, quantize
from skqfair.quantization._rounding import (
    ROUNDINGS,
    compensate_rounding,
    float_moments,
    round_alone,
)
from skqfair.quantization._scheme import FLOAT_BITS, QuantizationScheme
from skqfair.quantization._size import float_size, quantized_size
from skqfair.quantization._sparse import SparseTensor, sparse_size
from skqfair.quantization._targets import left_in_float, plain, plain_copy, quantizable_weights

__all__ = [
    "ACTIVATION_SCHEMES",
    "CALIBRATIONS",
    "CHOICES",
    "FLOAT_BITS",
    "ROUNDINGS",
    "SCOPES",
    "ActivationQuantizer",
    "ActivationStatistics",
    "FakeQuantization",
    "HeldMasks",
    "PrunedModule",
    "QuantizationScheme",
    "QuantizedModule",
    "QuantizedTensor",
    "SparseTensor",
    "allocate_bits",
    "amount_for_size",
    "channel_shape",
    "check_bits",
    "check_budget",
    "compensate_rounding",
    "convert",
    "drop_quantizers",
    "float_moments",
    "float_size",
    "has_batchnorm",
    "input_quantizers",
    "left_in_float",
    "move_batchnorm",
    "observe_activations",
    "pack",
    "plain",
    "plain_copy",
    "prune",
    "q_max",
    "quantizable_weights",
    "quantize",
    "quantized_size",
    "round_alone",
    "sparse_size",
    "unpack",
]

for _class in (ActivationQuantizer, QuantizedTensor):
    _class.__module__ = "skqfair.quantization"  # the name in saved files, which no move changes
