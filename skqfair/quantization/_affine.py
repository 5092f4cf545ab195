r"""Numbers to codes and back: :math:`T(w) = \mathrm{clamp}(\mathrm{round}(w / S), -q, q)`.

Every function divides by the scale in the dtype of the tensor, float32 at least, and rounds to nearest
even, so that a numpy reference (``np.rint(w / S)``) gives the same codes, bit for bit.
"""

import math
import numbers
import operator

import numpy as np
import torch

__all__ = [
    "MAX_BITS",
    "MIN_BITS",
    "check_bits",
    "dequantize",
    "pack",
    "q_max",
    "to_codes",
    "unpack",
    "widened",
]

MIN_BITS, MAX_BITS = 2, 16


def check_bits(bits: int, name: str = "bits") -> int:
    """Return ``bits`` as an int, or raise if it is not a whole number of bits in 2..16.

    Parameters
    ----------
    bits : int
        Width in bits.
    name : str
        Name of the argument, for the message.

    Returns
    -------
    int
        The bits, as a plain int.

    Raises
    ------
    ValueError
        If ``bits`` is no whole number from 2 to 16.
    """
    if isinstance(bits, bool) or not isinstance(bits, numbers.Integral):
        raise ValueError(
            f"{name} must be an integer from {MIN_BITS} to {MAX_BITS}, got {bits!r} of type "
            f"{type(bits).__name__}; use e.g. {name}=8."
        )
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(
            f"{name} must be an integer from {MIN_BITS} to {MAX_BITS}, got {bits}; "
            "use 2 bits for {-1, 0, 1} and None to leave a layer in float."
        )
    return int(bits)


def q_max(bits: int | np.ndarray | torch.Tensor) -> int | np.ndarray | torch.Tensor:
    """Return the largest code of signed symmetric quantization, ``2**(bits - 1) - 1``.

    Parameters
    ----------
    bits : int or integer tensor
        One width, or one per channel.

    Returns
    -------
    int or integer tensor
        The largest code, of the shape of ``bits``.
    """
    return 2 ** (bits - 1) - 1


def to_codes(tensor, scale, low, high):
    """Return ``clamp(round(tensor / scale), low, high)``, in float32 or wider."""
    return (widened(tensor) / scale).round_().clamp_(low, high)


def widened(tensor):
    """Return a tensor in float32 at least: half and bfloat16 do not hold the codes of 16 bits."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def dequantize(codes, scale):
    """Return ``codes * scale`` in the dtype of ``scale``."""
    return codes.to(scale.dtype) * scale


def pack(codes: np.ndarray | torch.Tensor, bits: int) -> np.ndarray:
    """Pack signed codes into a dense little-endian bit stream of ``ceil(n * bits / 8)`` bytes.

    Parameters
    ----------
    codes : array or tensor of int
        Signed codes, any shape, each within ``bits`` bits.
    bits : int
        Bits of each code, 2..16.

    Returns
    -------
    ndarray of uint8
        Two's complement codes, the first in the lowest bits of the first byte.

    Raises
    ------
    ValueError
        If a code is no integer, or does not fit into ``bits`` bits.
    """
    codes, limit = np.asarray(codes).reshape(-1), 2 ** (check_bits(bits) - 1)
    if not codes.size:
        return np.zeros(0, np.uint8)
    if codes.dtype.kind not in "iu":
        raise ValueError(f"codes must be integers, got dtype {codes.dtype}; see quantize.")
    if not -limit <= codes.min() <= codes.max() < limit:
        raise ValueError(
            f"codes must be from {-limit} to {limit - 1} at {bits} bits, got {codes.min()} to "
            f"{codes.max()}; give the bits that they were made with."
        )
    if bits == 8:
        return codes.astype(np.int8).view(np.uint8)
    unsigned = codes.astype(np.int16).view(np.uint16)
    planes = (unsigned[:, None] >> np.arange(bits, dtype=np.uint16)) & 1
    return np.packbits(planes.astype(np.uint8).reshape(-1), bitorder="little")


def unpack(packed: np.ndarray, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """Invert :func:`pack`.

    Parameters
    ----------
    packed : ndarray of uint8
        What :func:`pack` returned.
    bits : int
        Bits of each code.
    shape : tuple of int
        Shape of the codes.

    Returns
    -------
    ndarray of int16
        Signed codes of that shape.

    Raises
    ------
    ValueError
        If ``packed`` holds no bytes, or less than codes of that shape take.
    """
    bits, packed = check_bits(bits), np.asarray(packed)
    try:
        shape = tuple(int(operator.index(side)) for side in shape)
    except TypeError as error:
        raise ValueError(f"shape must be a sequence of integers, got {shape!r:.60}.") from error
    if any(side < 0 for side in shape):
        raise ValueError(f"shape must have no negative sides, got {shape}.")
    if packed.dtype != np.uint8 or packed.ndim != 1:
        raise ValueError(
            f"packed must be bytes, an array of uint8 of shape (n,); got {packed.dtype} of shape "
            f"{packed.shape}."
        )
    count = math.prod(shape)
    if 8 * len(packed) < count * bits:
        raise ValueError(
            f"packed has {len(packed)} bytes, but {count} codes of {bits} bits take "
            f"{-(-count * bits // 8)}: is it cut short, or the shape another?"
        )
    planes = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    weights = 1 << np.arange(bits, dtype=np.int32)
    weights[-1] *= -1  # two's complement: the top bit counts negative
    return (planes.astype(np.int32) @ weights).astype(np.int16).reshape(shape)
