"""Quantize one tensor: scale, codes, and what is stored of them."""

import numbers
from dataclasses import dataclass

import numpy as np
import torch

from skqfair.quantization._affine import check_bits, dequantize, pack, q_max, to_codes, widened
from skqfair.quantization._calibration import CALIBRATIONS, clip_range
from skqfair.quantization._column_groups import group_clips, parse_granularity, spread

__all__ = ["QuantizedTensor", "quantize", "weight_scale"]


def check_choice(value, name, choices):
    """Raise if ``value`` is none of ``choices``."""
    if value not in choices:
        expected = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {expected}; got {value!r}.")


def quantize(
    tensor: torch.Tensor | np.ndarray,
    bits: int,
    *,
    granularity: str | tuple[str, int] = "per_channel",
    calibration: str = "mse",
    axis: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Quantize a tensor symmetrically to signed integer codes.

    .. math:: T(w) = \mathrm{clamp}(\mathrm{round}(w / S), -q, q), \qquad q = 2^{b-1} - 1

    rounded to nearest even, without zero point; 2 bits are {-1, 0, 1}. :math:`S = c / q` with the
    clip magnitude :math:`c` from ``calibration``; a tensor or channel of zeros has :math:`S = 1`.

    Parameters
    ----------
    tensor : tensor or array of float
        What to quantize, finite; at least one dimension for "per_channel".
    bits : int
        Bits of each code, 2..16.
    granularity : {"per_channel", "per_tensor"} or ("per_group", n), default="per_channel"
        One scale for each index of ``axis``, one in all, or of a matrix one for each n columns of each
        index of ``axis``; the last group is smaller where n does not divide the columns.
    calibration : {"minmax", "percentile", "mse"}, default="mse"
        The clip :math:`c`: the largest magnitude; the 99.99th percentile of magnitudes; or the
        :math:`k / 100` of the largest, :math:`k = 1..100`, with the least squared error.
    axis : int, default=0
        The channel axis (1 for the weight of a transposed convolution).

    Returns
    -------
    codes : tensor of int8 (up to 8 bits) or int16
        Same shape as ``tensor``.
    scale : tensor of float
        Broadcasts against ``codes``: the dequantized tensor is ``codes * scale``. In the dtype of
        ``tensor``, float32 for half and bfloat16. Of groups the scale of each weight, so that each
        n-th column is what need be stored.

    Raises
    ------
    ValueError
        For bits outside 2..16, an unknown granularity or calibration, an axis that is not there,
        groups of what is no matrix, or a tensor that is empty, sparse, not of floats, or not finite.

    References
    ----------
    Nagel, M. et al. (2021). A white paper on neural network quantization. arXiv:2106.08295.

    Examples
    --------
    >>> import torch
    >>> from skqfair.quantization import quantize
    >>> codes, scale = quantize(torch.tensor([[0.1, -0.5, 1.0], [2.0, 0.0, -4.0]]), 3,
    ...                         calibration="minmax")
    >>> codes
    tensor([[ 0, -2,  3],
            [ 2,  0, -3]], dtype=torch.int8)
    >>> scale.flatten()
    tensor([0.3333, 1.3333])
    """
    tensor = _dense(tensor)
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(
            "tensor must be finite, got NaN or infinity; a diverged training is the usual cause."
        )
    bits = check_bits(bits)
    per_channel, group_size = parse_granularity(granularity)
    check_choice(calibration, "calibration", CALIBRATIONS)
    if group_size is not None and tensor.ndim != 2:
        raise ValueError(
            f"granularity={granularity!r} is for matrices; tensor has {tensor.ndim} dimensions: use "
            "'per_channel', or reshape it."
        )
    whole = isinstance(axis, numbers.Integral) and not isinstance(axis, bool)
    if per_channel and not (whole and -tensor.ndim <= axis < tensor.ndim):
        raise ValueError(f"axis must index one of {tensor.ndim} dimensions, got {axis!r}.")
    quantized = QuantizedTensor.from_float(
        tensor,
        bits,
        per_channel=per_channel,
        calibration=calibration,
        axis=axis if group_size is None else axis % 2,
        group_size=group_size,
    )
    return quantized.codes, quantized.spread_scale


def _dense(tensor):
    """Return a tensor of floats that torch can count with."""
    if isinstance(tensor, np.ma.MaskedArray):
        raise ValueError("tensor is a masked array; fill in what is masked, e.g. tensor.filled(0).")
    try:
        if isinstance(tensor, np.ndarray) and tensor.dtype.kind in "fiub":
            native = tensor.astype(tensor.dtype.newbyteorder("="), copy=False)
            tensor = torch.as_tensor(np.require(native, requirements=["C", "W"]))
        tensor = torch.as_tensor(tensor).detach()
    except Exception as error:  # of frames and other sequences, whatever they raise
        raise ValueError(
            f"tensor must be a tensor or array of floats, got {_described(tensor)}."
        ) from error
    if tensor.layout != torch.strided or tensor.is_nested:
        layout = "nested" if tensor.is_nested else tensor.layout
        raise ValueError(f"tensor must be dense, got layout {layout}; use tensor.to_dense().")
    if tensor.is_meta:
        raise ValueError("tensor has no values (device 'meta'); load its values first.")
    if not tensor.is_floating_point() or tensor.dtype.itemsize == 1:
        raise ValueError(
            f"tensor must be floating point of 16 bits or more, got dtype {tensor.dtype}; cast it first."
        )
    if not tensor.numel():
        raise ValueError(
            f"tensor is empty, of shape {tuple(tensor.shape)}: there is nothing to quantize."
        )
    return tensor


def _described(values):
    name = type(values).__name__
    return f"{name} of {values.dtype}" if isinstance(values, np.ndarray) else name


def weight_scale(tensor, bits, *, per_channel, calibration, axis=0, group_size=None):
    """Return the scale of a weight, shaped to broadcast against it (0-dim for per tensor).

    ``bits`` may be an integer tensor of one width per channel. With ``group_size`` the scale has one
    entry for each group of columns, see :func:`spread`.
    """
    tensor = widened(tensor)
    magnitude = tensor.abs()
    channels = tensor.shape[axis] if per_channel else 1
    rows = magnitude.movedim(axis, 0).reshape(channels, -1) if per_channel else magnitude.reshape(1, -1)
    grid = torch.as_tensor(q_max(bits), dtype=tensor.dtype, device=tensor.device)
    if group_size is not None:
        clip = group_clips(rows, group_size, calibration, grid)
        grid = grid.reshape(-1, 1)
    else:
        clip = clip_range(rows, calibration, grid=grid) if rows.numel() else rows.new_zeros(channels)
    scale = torch.where(clip > 0, clip / grid, 1.0)
    # a subnormal clip can round to a scale of 0; the channel is then zero for all purposes
    scale = torch.where(scale > 0, scale, 1.0)
    if group_size is not None:
        return scale.movedim(0, axis)
    if not per_channel:
        return scale.reshape(())
    return scale.reshape(channel_shape(tensor, axis))


def channel_shape(tensor: torch.Tensor, axis: int) -> list[int]:
    """Return the shape that broadcasts one value per channel against a tensor.

    Parameters
    ----------
    tensor : Tensor
        A tensor with channels.
    axis : int
        The axis of its channels.

    Returns
    -------
    list of int
        1 in all places but ``axis``.
    """
    shape = [1] * tensor.ndim
    shape[axis] = -1
    return shape


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """Codes and scale of one quantized weight.

    Parameters
    ----------
    codes : tensor of int8 or int16
        Signed codes.
    scale : tensor of float
        Broadcasts against the codes; with ``group_size`` one entry for each group of columns.
    bits : int or ndarray of int
        Bits of each code, one number or one for each channel.
    axis : int
        The channel axis.
    group_size : int or None
        Columns of a matrix that share a scale; the last group may have fewer.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    bits: int | np.ndarray
    axis: int = 0
    group_size: int | None = None

    @classmethod
    def from_float(
        cls,
        tensor: torch.Tensor,
        bits: int | np.ndarray,
        *,
        per_channel: bool,
        calibration: str,
        axis: int = 0,
        group_size: int | None = None,
    ) -> "QuantizedTensor":
        """Quantize ``tensor``; ``bits`` is an int or one int for each channel."""
        widths = bits if isinstance(bits, int) else torch.as_tensor(bits, device=tensor.device)
        scale = weight_scale(
            tensor,
            widths,
            per_channel=per_channel,
            calibration=calibration,
            axis=axis,
            group_size=group_size,
        )
        return cls.from_scale(tensor, scale, bits, axis, group_size)

    @classmethod
    def from_scale(
        cls,
        tensor: torch.Tensor,
        scale: torch.Tensor,
        bits: int | np.ndarray,
        axis: int = 0,
        group_size: int | None = None,
    ) -> "QuantizedTensor":
        """Quantize ``tensor`` with a scale that is known."""
        tensor = widened(tensor)
        of_each = spread(scale, tensor, axis, group_size)
        if isinstance(bits, int):
            codes = to_codes(tensor, of_each, -q_max(bits), q_max(bits))
        else:
            bits = np.asarray(bits)
            limit = torch.as_tensor(q_max(bits), dtype=tensor.dtype, device=tensor.device)
            limit = limit.reshape(channel_shape(tensor, axis))
            codes = to_codes(tensor, of_each, -limit, limit)
        storage = torch.int8 if int(np.max(bits)) <= 8 else torch.int16
        return cls(codes.to(storage), scale, bits, axis, group_size)

    def requantized(self, tensor: torch.Tensor) -> "QuantizedTensor":
        """Quantize other values with the same scales and bits."""
        return self.from_scale(tensor, self.scale, self.bits, self.axis, self.group_size)

    @property
    def spread_scale(self) -> torch.Tensor:
        """The scale of each code, which broadcasts against the codes whatever shares it."""
        return spread(self.scale, self.codes, self.axis, self.group_size)

    def dequantize(self) -> torch.Tensor:
        """Return the float tensor that the codes stand for."""
        return dequantize(self.codes, self.spread_scale)

    def pack(self) -> np.ndarray:
        """Return the codes as packed bytes, channel by channel where widths differ."""
        if isinstance(self.bits, int):
            return pack(self.codes.cpu(), self.bits)
        rows = self.codes.cpu().movedim(self.axis, 0).flatten(1)
        streams = [
            np.unpackbits(pack(row, int(b)), count=row.numel() * int(b), bitorder="little")
            for row, b in zip(rows, self.bits, strict=True)
        ]
        return np.packbits(np.concatenate(streams), bitorder="little")

    @property
    def nbytes(self) -> int:
        """Bytes of the packed codes, ``ceil(numel * bits / 8)``, and 4 bytes for each scale."""
        n_bits = self.codes.numel() * float(np.mean(self.bits))
        return -(-round(n_bits) // 8) + 4 * self.scale.numel()
