"""Inputs of layers: their ranges from one pass over calibration data, and their quantization."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from skqfair.quantization._affine import check_bits, q_max, to_codes, widened
from skqfair.quantization._calibration import affine_range, clip_range, grid_of_range
from skqfair.quantization._targets import activation_targets, check_module

__all__ = [
    "ACTIVATION_SCHEMES",
    "ActivationQuantizer",
    "ActivationStatistics",
    "drop_quantizers",
    "input_quantizers",
    "observe_activations",
]

ACTIVATION_SCHEMES = ("symmetric", "affine")
"""Whether zero has its own code in the middle or at the end, or wherever the range asks for it."""

_VALUES_PER_CALL = 2**16


class ActivationStatistics:
    """Extremes and values of one layer's input over the calibration data.

    The extremes are exact. Percentile and mse look at the values, all of them up to 65,536 a call,
    beyond that a random draw of so many. One instance serves all bit widths and calibrations.

    Attributes
    ----------
    low, high : float
        Smallest and largest value seen.
    """

    def __init__(self):
        self.low, self.high = float("inf"), float("-inf")
        self._values, self._sampled = [], False
        self._generator = torch.Generator().manual_seed(0)

    def update(self, values: torch.Tensor) -> None:
        """Take in one call's input."""
        values = widened(values.detach().reshape(-1))
        if not values.numel():
            return
        low, high = torch.aminmax(values)
        ends = [self.low, float(low)], [self.high, float(high)]  # numpy keeps NaN, min does not
        self.low, self.high = float(np.min(ends[0])), float(np.max(ends[1]))
        if values.numel() > _VALUES_PER_CALL:
            index = torch.randint(values.numel(), (_VALUES_PER_CALL,), generator=self._generator)
            values, self._sampled = values[index.to(values.device)], True
        else:
            values = values.clone()
        self._values.append(values)

    @property
    def signed(self) -> bool:
        """Whether anything negative was seen."""
        return self.low < 0

    @property
    def mean_magnitude(self) -> float:
        """Mean of the magnitudes of the values looked at."""
        return float(torch.cat(self._values).abs().mean())

    def quantizer(self, bits: int, calibration: str, scheme: str = "symmetric") -> "ActivationQuantizer":
        """Return the :class:`ActivationQuantizer` for bits, calibration and scheme.

        An affine one has a zero point where a negative was seen.
        """
        bits, signed = check_bits(bits, "activation_bits"), self.signed
        if not np.isfinite([self.low, self.high]).all():
            raise ValueError(
                f"statistics of the inputs of a layer reach from {self.low:g} to {self.high:g}: on the "
                "calibration samples they are not finite; check X, or lower the learning rate."
            )
        if scheme == "affine" and signed:
            return self._affine(bits, calibration)
        levels = q_max(bits) if signed else 2**bits - 1
        return ActivationQuantizer(self._scale(calibration, levels), bits, signed)

    def rescaled(self, quantizer: "ActivationQuantizer", calibration: str) -> torch.Tensor:
        """Return the scale for these values of a quantizer that keeps its codes and zero point."""
        if not quantizer.zero_point:
            return self._scale(calibration, quantizer.high)
        low, high = affine_range(self._all(), calibration, quantizer.high - quantizer.low)
        ends = [(low, quantizer.low), (high, quantizer.high)]
        scale = max(value / code if code else 0.0 for value, code in ends)
        return torch.tensor(scale if scale > 0 else 1.0, dtype=self._values[0].dtype)

    def _all(self):
        values = self._values[0]
        extremes = torch.tensor([self.low, self.high], dtype=values.dtype, device=values.device)
        return torch.cat([*self._values, extremes] if self._sampled else self._values)

    def _affine(self, bits, calibration):
        levels = 2**bits - 1
        scale, zero = grid_of_range(*affine_range(self._all(), calibration, levels), levels)
        scale = torch.tensor(scale, dtype=self._values[0].dtype)
        return ActivationQuantizer(scale, bits, True, zero)

    def _scale(self, calibration, levels):
        values = self._values[0]
        largest = torch.tensor(max(abs(self.low), abs(self.high)), dtype=values.dtype)
        if calibration == "minmax":
            clip = largest
        else:
            extreme = [largest.to(values.device)[None]] if self._sampled else []
            magnitude = torch.cat([*self._values, *extreme]).abs()
            clip = clip_range(magnitude[None, :], calibration, grid=levels)[0].cpu()
        scale = clip / torch.tensor(levels, dtype=values.dtype)
        return torch.where(scale > 0, scale, 1.0)


class ActivationQuantizer:
    """A forward pre-hook that quantizes and dequantizes the input of its module.

    Parameters
    ----------
    scale : tensor, 0-dim
        The scale.
    bits : int
        Bits of the codes.
    signed : bool
        Codes are -q..q with q = 2^(bits - 1) - 1 if signed, else 0..2^bits - 1.
    zero_point : int or None, default=None
        With it, z, codes are -z..2^bits - 1 - z; they are stored as 0..2^bits - 1.
    """

    def __init__(self, scale: torch.Tensor, bits: int, signed: bool, zero_point: int | None = None):
        self.scale, self.bits, self.signed, self.zero_point = scale, bits, signed, zero_point
        if zero_point is None:
            self.high = q_max(bits) if signed else 2**bits - 1
            self.low = -self.high if signed else 0
        else:
            self.low, self.high = -zero_point, 2**bits - 1 - zero_point

    def quantize(self, values: torch.Tensor) -> torch.Tensor:
        """Return ``values`` rounded to the codes, in their own dtype."""
        scale = self.scale.to(widened(values))
        return to_codes(values, scale, self.low, self.high).mul_(scale).to(values.dtype)

    def __call__(self, module, args, kwargs):
        """Quantize the first argument, wherever it was passed."""
        return _map_input(self.quantize, args, kwargs)

    def __repr__(self):
        kind = "signed" if self.signed else "unsigned"
        kind = kind if self.zero_point is None else f"zero_point={self.zero_point}"
        return f"ActivationQuantizer(bits={self.bits}, scale={float(self.scale):.4g}, {kind})"


class _Observer:
    """A forward pre-hook that shows the input to the statistics of its module."""

    def __init__(self, statistics):
        self.statistics = statistics

    def __call__(self, module, args, kwargs):
        def look(values):
            self.statistics.update(values)
            return values

        _map_input(look, args, kwargs)


def input_quantizers(module: torch.nn.Module) -> dict[str, ActivationQuantizer]:
    """Return the quantizers of inputs in a converted module.

    Parameters
    ----------
    module : torch.nn.Module
        From :func:`convert`.

    Returns
    -------
    dict of str to ActivationQuantizer
        The quantizers, by module name.
    """
    return {
        name: hook
        for name, child in module.named_modules()
        for hook in child._forward_pre_hooks.values()
        if isinstance(hook, ActivationQuantizer)
    }


def drop_quantizers(module: torch.nn.Module) -> None:
    """Let the inputs in a converted module be float again, in place.

    Parameters
    ----------
    module : torch.nn.Module
        From :func:`convert`.
    """
    for child in module.modules():
        for key, hook in list(child._forward_pre_hooks.items()):
            if isinstance(hook, ActivationQuantizer):
                del child._forward_pre_hooks[key]
                child._forward_pre_hooks_with_kwargs.pop(key, None)


def _map_input(function, args, kwargs):
    """Apply ``function`` to a module's first input, a tensor or packed sequence, positional or not."""
    value = args[0] if args else kwargs.get("input")
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        value = value._replace(data=function(value.data))
    elif isinstance(value, torch.Tensor) and value.is_floating_point():
        value = function(value)
    if args:
        return (value, *args[1:]), kwargs
    return args, {**kwargs, "input": value}


@contextmanager
def observe_activations(module: torch.nn.Module) -> Iterator[dict[str, ActivationStatistics]]:
    """Collect the inputs of all layers whose inputs can be quantized while data flows through.

    Parameters
    ----------
    module : torch.nn.Module
        The float module; hooks are attached and removed again.

    Yields
    ------
    dict of str to ActivationStatistics
        By module name. After the block only modules whose hooks were called are left: the output
        projection inside attention never is, and stays in float.
    """
    check_module(module)
    statistics = {name: ActivationStatistics() for name in activation_targets(module)}
    handles = [
        child.register_forward_pre_hook(_Observer(statistics[name]), with_kwargs=True)
        for name, child in activation_targets(module).items()
    ]
    try:
        with torch.no_grad():
            yield statistics
    finally:
        for handle in handles:
            handle.remove()
    for name in [name for name, seen in statistics.items() if not seen._values]:
        del statistics[name]
