"""Scales of groups of columns: n inputs of an output channel share one, the last group may be smaller.

A matrix with its channels along ``axis`` has a matrix of scales, in which each group of columns is one
entry along the other axis: the layout of a blocked DequantizeLinear of ONNX.
"""

import numbers

import torch
from torch.nn import functional as F

from skqfair.quantization._calibration import clip_range

__all__ = ["group_clips", "group_sums", "parse_granularity", "spread"]


def parse_granularity(granularity: str | tuple[str, int]) -> tuple[bool, int | None]:
    """Return whether channels have scales of their own, and how many columns share one.

    Parameters
    ----------
    granularity : {"per_channel", "per_tensor"} or ("per_group", n)
        As :func:`quantize` takes it.

    Returns
    -------
    per_channel : bool
        Also of groups.
    group_size : int or None
        None is all columns.

    Raises
    ------
    ValueError
        If it is none of these, or n is no whole number of 2 or more.
    """
    if isinstance(granularity, str) and granularity in ("per_channel", "per_tensor"):
        return granularity == "per_channel", None
    if isinstance(granularity, tuple) and len(granularity) == 2:
        name, size = granularity
        whole = isinstance(size, numbers.Integral) and not isinstance(size, bool)
        if isinstance(name, str) and name == "per_group" and whole and size >= 2:
            return True, int(size)
    raise ValueError(
        "granularity must be one of 'per_channel', 'per_tensor' and ('per_group', n), a tuple with the "
        "2 or more columns that share a scale, e.g. granularity=('per_group', 32); got "
        f"{granularity!r}."
    )


def group_clips(
    magnitude: torch.Tensor, group_size: int, calibration: str, grid: torch.Tensor
) -> torch.Tensor:
    """Return the largest magnitude to be represented in each group.

    Parameters
    ----------
    magnitude : tensor of shape (channels, columns)
        Absolute weights.
    group_size : int
        Columns of a group.
    calibration : {"minmax", "percentile", "mse"}
        As in :func:`clip_range`.
    grid : tensor of shape (channels,) or ()
        The largest code of each channel.

    Returns
    -------
    tensor of shape (channels, groups)
        Of the last group over the columns that it has.
    """
    channels, columns = magnitude.shape
    whole = columns // group_size * group_size
    clips = [magnitude.new_zeros(channels, 0)]
    for part, size in ((magnitude[:, :whole], group_size), (magnitude[:, whole:], columns - whole)):
        if part.numel():
            limits = grid.expand(channels).repeat_interleave(part.shape[1] // size)
            found = clip_range(part.reshape(-1, size), calibration, grid=limits)
            clips.append(found.reshape(channels, -1))
    return torch.cat(clips, 1)


def spread(values: torch.Tensor, like: torch.Tensor, axis: int, group_size: int | None) -> torch.Tensor:
    """Return values of groups with the shape that goes with the weights.

    Parameters
    ----------
    values : tensor
        One for each group, or with ``group_size=None`` what broadcasts already.
    like : tensor
        Of the shape of the weights.
    axis : int
        The axis of the channels.
    group_size : int or None
        Columns of a group.

    Returns
    -------
    tensor
        Broadcasts against ``like``.
    """
    if group_size is None:
        return values
    columns = 1 - axis
    group = torch.arange(like.shape[columns], device=values.device) // group_size
    return values.index_select(columns, group)


def group_sums(values: torch.Tensor, axis: int, group_size: int) -> torch.Tensor:
    """Return the sum of each group of columns of a matrix, laid out as scales are."""
    rows = values.movedim(axis, 0)
    padded = F.pad(rows, (0, -rows.shape[1] % group_size))
    return padded.unflatten(1, (-1, group_size)).sum(2).movedim(0, axis)
