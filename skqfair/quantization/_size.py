"""Bytes of a model as it would be stored."""

from torch import nn

from skqfair.quantization._convert import QuantizedModule
from skqfair.quantization._targets import check_module

__all__ = ["float_size", "quantized_size"]

_FLOAT_BYTES = 4


def _stored(module):
    """Yield name and numbers of what is stored: every parameter once, and the persistent buffers.

    Left out are batch counters, which prediction does not read. A complex number is two.
    """
    kept = module.state_dict(keep_vars=True)
    buffers = [(name, buffer) for name, buffer in module.named_buffers() if name in kept]
    for name, tensor in [*module.named_parameters(), *buffers]:
        if not name.endswith("num_batches_tracked"):
            yield name, tensor.numel() * (2 if tensor.is_complex() else 1)


def float_size(module: nn.Module) -> int:
    """Return the bytes of the module in float32: 4 for each number that prediction needs.

    Counted are all parameters (shared ones once) and buffers, a complex number as two; but not buffers
    that the module does not store (``persistent=False``), nor the batch counters of BatchNorm, which
    prediction does not read.

    Parameters
    ----------
    module : torch.nn.Module
        Any module.

    Returns
    -------
    int
        Bytes.
    """
    check_module(module)
    return _FLOAT_BYTES * sum(numbers for _, numbers in _stored(module))


def quantized_size(quantized: QuantizedModule) -> int:
    r"""Return the bytes of a :class:`QuantizedModule`.

    .. math:: \sum_l \left( \lceil n_l b_l / 8 \rceil + 4 \cdot \#\text{scales} \right)
              + 4 \cdot \#\text{numbers left in float}

    Quantized activations add 4 bytes for the scale of each layer input, and 1 for a zero point (2
    beyond 8 bits).

    Parameters
    ----------
    quantized : QuantizedModule
        What :func:`convert` returned.

    Returns
    -------
    int
        Bytes.
    """
    left_in_float = sum(
        numbers for name, numbers in _stored(quantized.module) if name not in quantized.weights
    )
    scales = len(quantized.activations)
    zeros = sum(1 + (q.bits > 8) for q in quantized.activations.values() if q.zero_point is not None)
    packed = sum(weight.nbytes for weight in quantized.weights.values())
    return packed + zeros + _FLOAT_BYTES * (left_in_float + scales)
