"""What is quantized, and to how many bits: decided once, for training, prediction, export and audit."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from torch import nn

from skqfair.quantization._activations import ACTIVATION_SCHEMES
from skqfair.quantization._affine import check_bits
from skqfair.quantization._calibration import CALIBRATIONS
from skqfair.quantization._column_groups import parse_granularity
from skqfair.quantization._quantize import check_choice
from skqfair.quantization._targets import (
    left_in_float,
    matches,
    matrix_weights,
    plain,
    quantizable_weights,
)

__all__ = ["FLOAT_BITS", "QuantizationScheme"]

FLOAT_BITS = 32
"""Bits reported for a weight that stays in float."""


@dataclass(frozen=True)
class QuantizationScheme:
    """Bits of every layer, granularity and calibration.

    Parameters
    ----------
    weight_bits : int or None, default=8
        Bits of the weights that no pattern names, 2..16; None leaves them in float.
    activation_bits : int or None, default=None
        Bits of the inputs of Linear, Conv and recurrent modules, 2..16; None leaves them in float.
    layer_bits : dict of str to (int, None or sequence of int), default=None
        Shell patterns (:mod:`fnmatch`) on names of parameters or modules, to bits; a sequence gives
        one width per output channel. A pattern that names a module holds for all below it. A plain
        name goes before a pattern with wildcards; among equals the later one holds.
    granularity : {"per_channel", "per_tensor"} or ("per_group", n), default="per_channel"
        One scale per output channel of a weight, or one per weight; or one for each n columns (inputs)
        of each output channel, the last group smaller where n does not divide them. Groups are for the
        weights of Linear and MultiheadAttention modules and for matrices that ``quantize_parameters``
        names; Conv, ConvTranspose, Bilinear, recurrent and Embedding modules, and weights of no more
        than n columns, have one scale per channel then. Activations have one per tensor.
    calibration : {"minmax", "percentile", "mse"}, default="mse"
        How scales are found, see :func:`quantize`.
    activation_calibration : {"minmax", "percentile", "mse"} or None, default=None
        How ranges of activations are found; None is as ``calibration``.
    activation_scheme : {"symmetric", "affine"}, default="symmetric"
        Affine activations have a zero point where calibration saw negatives.
    quantize_parameters : dict of str to int, default=None
        Further parameters to quantize, beside those of :func:`quantizable_weights`: shell patterns as
        in ``layer_bits``, to the axis of the output channels.

    Raises
    ------
    ValueError
        For bits outside 2..16 or an unknown granularity or calibration.

    Examples
    --------
    >>> from torch import nn
    >>> from skqfair.quantization import QuantizationScheme
    >>> scheme = QuantizationScheme(weight_bits=4, layer_bits={"2": 8})
    >>> scheme.resolve(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)))
    {'0.weight': 4, '2.weight': 8}
    """

    weight_bits: int | None = 8
    activation_bits: int | None = None
    layer_bits: Mapping | None = None
    granularity: str | tuple[str, int] = "per_channel"
    calibration: str = "mse"
    activation_calibration: str | None = None
    activation_scheme: str = "symmetric"
    quantize_parameters: Mapping | None = None

    def __post_init__(self):
        for name in ("weight_bits", "activation_bits"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_bits(getattr(self, name), name))
        parse_granularity(self.granularity)
        check_choice(self.calibration, "calibration", CALIBRATIONS)
        if self.activation_calibration is None:
            object.__setattr__(self, "activation_calibration", self.calibration)
        check_choice(self.activation_calibration, "activation_calibration", CALIBRATIONS)
        check_choice(self.activation_scheme, "activation_scheme", ACTIVATION_SCHEMES)
        if self.layer_bits is not None and not isinstance(self.layer_bits, Mapping):
            raise ValueError(
                "layer_bits must be a dict of patterns to bits, e.g. {'*.0.weight': 8}; "
                f"got {self.layer_bits!r}."
            )
        check_parameters(self.quantize_parameters)
        for pattern, bits in (self.layer_bits or {}).items():
            if not isinstance(pattern, str):
                raise ValueError(f"layer_bits must have patterns (str) as keys; got {pattern!r}.")
            for width in bits if _is_per_channel(bits) else [bits]:
                if width is not None or _is_per_channel(bits):
                    check_bits(width, f"layer_bits[{pattern!r}]")
            if _is_per_channel(bits) and not self.per_channel:
                raise ValueError(
                    f"layer_bits[{pattern!r}] gives bits for each channel, which needs "
                    "granularity='per_channel' or ('per_group', n)."
                )

    @property
    def per_channel(self) -> bool:
        """Whether each output channel of a weight has a scale of its own, or several."""
        return parse_granularity(self.granularity)[0]

    @property
    def quantizes_weights(self) -> bool:
        """Whether any weight is quantized."""
        return any(bits is not None for bits in (self.weight_bits, *(self.layer_bits or {}).values()))

    def axes(self, module: nn.Module) -> dict[str, int]:
        """Return the weights of a plain module that can be quantized, to the axis of their channels."""
        return quantizable_weights(module, self.quantize_parameters)

    def layouts(self, module: nn.Module) -> dict[str, dict[str, int | bool | None]]:
        """Return what shares a scale in each weight of a plain module that can be quantized.

        Returns
        -------
        dict of str to dict
            By name ``axis``, ``per_channel`` and ``group_size``, as :class:`QuantizedTensor` takes them.
        """
        (per_channel, size), axes = parse_granularity(self.granularity), self.axes(module)
        parameters = dict(module.named_parameters())
        cut = set()
        if size is not None:
            matrices = matrix_weights(module, self.quantize_parameters)
            cut = {name for name in matrices if parameters[name].shape[1 - axes[name]] > size}
        return {
            name: {"axis": axis, "per_channel": per_channel, "group_size": size if name in cut else None}
            for name, axis in axes.items()
        }

    def resolve(self, module: nn.Module) -> dict[str, int | np.ndarray]:
        """Return the bits of every weight of ``module``.

        Parameters
        ----------
        module : torch.nn.Module
            The float module.

        Returns
        -------
        dict of str to (int or ndarray of int)
            Name to bits, for each parameter of two or more dimensions; 32 for those that stay in float.

        Raises
        ------
        ValueError
            If the module has no quantizable weight, or none that can be cut into groups where the
            granularity asks for them; if a pattern matches nothing or decides nothing; or if a list of
            bits per channel has another length than the channels.
        """
        module = plain(module)
        axes = self.axes(module)
        if not axes:
            raise ValueError(
                f"the module {type(module).__name__} has no quantizable weight: none of its modules "
                "is a Linear, Bilinear, Conv, ConvTranspose, Embedding, EmbeddingBag, recurrent or "
                "MultiheadAttention module with parameters; build the network from these, or name "
                "its parameters in quantize_parameters={pattern: output axis}."
            )
        grouped = parse_granularity(self.granularity)[1] is not None
        if grouped and not matrix_weights(module, self.quantize_parameters):
            raise ValueError(
                f"granularity={self.granularity!r}: the module {type(module).__name__} has no weight "
                "whose columns can be cut into groups, none of a Linear or MultiheadAttention module; "
                "use granularity='per_channel'."
            )
        patterns = self.layer_bits or {}
        bits = dict.fromkeys(axes, self.weight_bits)
        decided_by = {}
        # plain names last, so that they win; sorted() is stable: the later of equals wins
        for pattern in sorted(patterns, key=lambda p: not any(c in p for c in "*?[")):
            names = [name for name in axes if matches(name, pattern)]
            if not names:
                raise ValueError(
                    f"layer_bits: the pattern {pattern!r} matches no quantizable weight; "
                    f"the names are {', '.join(axes)}."
                )
            for name in names:
                bits[name], decided_by[name] = patterns[pattern], pattern
        for pattern in patterns:
            if pattern not in decided_by.values():
                raise ValueError(
                    f"layer_bits: the pattern {pattern!r} decides nothing, because others match all "
                    "its weights and the later pattern holds; put it after them or remove it."
                )
        parameters = dict(module.named_parameters())
        widths = {
            name: _widths(width, name, parameters[name].shape[axes[name]])
            for name, width in bits.items()
        }
        widths |= dict.fromkeys(left_in_float(module, self.quantize_parameters), FLOAT_BITS)
        return {name: widths[name] for name in parameters if name in widths}


def check_parameters(quantize_parameters):
    """Raise if ``quantize_parameters`` is no dict of patterns to axes."""
    if quantize_parameters is None:
        return
    if not isinstance(quantize_parameters, Mapping) or not all(
        isinstance(pattern, str) and isinstance(axis, Integral) and not isinstance(axis, bool)
        for pattern, axis in quantize_parameters.items()
    ):
        raise ValueError(
            "quantize_parameters must be a dict of patterns to the axis of the output channels, e.g. "
            f"{{'*.c_attn.weight': 1}}; got {quantize_parameters!r}."
        )


def _is_per_channel(bits):
    return isinstance(bits, (list, tuple, np.ndarray)) and np.ndim(bits) == 1


def _widths(bits, name, channels):
    """Return 32 for float, an int, or an int array of one width per channel."""
    if bits is None:
        return FLOAT_BITS
    if not _is_per_channel(bits):
        return int(bits)
    if len(bits) != channels:
        raise ValueError(
            f"layer_bits: {name} has {channels} output channels, but got {len(bits)} bits; "
            "give one number, or one for each channel."
        )
    return np.asarray(bits, dtype=np.int64)
