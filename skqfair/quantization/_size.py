"""Bytes of a model as it would be stored."""

from torch import nn

from skqfair.quantization._convert import QuantizedModule

__all__ = ["float_size", "quantized_size"]

_FLOAT_BYTES = 4


def _stored(module):
    """Yield what prediction needs: every parameter once, and the buffers but the batch counters."""
    yield from module.named_parameters()
    for name, buffer in module.named_buffers():
        if not name.endswith("num_batches_tracked"):
            yield name, buffer


def float_size(module: nn.Module) -> int:
    """Return the bytes of the module in float32: 4 for each number that prediction needs.

    Counted are all parameters (shared ones once) and buffers, but not the batch counters of
    BatchNorm, which prediction does not read.

    Parameters
    ----------
    module : torch.nn.Module
        Any module.

    Returns
    -------
    int
        Bytes.
    """
    return _FLOAT_BYTES * sum(tensor.numel() for _, tensor in _stored(module))


def quantized_size(quantized: QuantizedModule) -> int:
    r"""Return the bytes of a :class:`QuantizedModule`.

    .. math:: \sum_l \left( \lceil n_l b_l / 8 \rceil + 4 \cdot \#\text{scales} \right)
              + 4 \cdot \#\text{numbers left in float}

    Quantized activations add 4 bytes for the scale of each layer input.

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
        tensor.numel() for name, tensor in _stored(quantized.module) if name not in quantized.weights
    )
    scales = len(quantized.activations)
    packed = sum(weight.nbytes for weight in quantized.weights.values())
    return packed + _FLOAT_BYTES * (left_in_float + scales)
