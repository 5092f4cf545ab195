"""Rounding that minds what a layer does with its inputs: error feedback, corrected biases."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from skqfair._warnings import warn
from skqfair.exceptions import NearestRoundingWarning
from skqfair.quantization._affine import q_max
from skqfair.quantization._convert import QuantizedModule
from skqfair.quantization._gptq import round_with_feedback
from skqfair.quantization._layer_inputs import (
    Beside,
    InputMoments,
    as_matrices,
    from_matrices,
    holders,
    watch_inputs,
)
from skqfair.quantization._least_squares import round_to_outputs
from skqfair.quantization._partial_passes import recorded, up_to
from skqfair.quantization._quantize import QuantizedTensor, channel_shape, check_choice
from skqfair.quantization._targets import plain, quantizable_weights

__all__ = ["ROUNDINGS", "compensate_rounding", "round_alone"]

ROUNDINGS = ("nearest", "gptq", "least_squares")
"""The rules by which weights are rounded."""


def compensate_rounding(
    quantized: QuantizedModule,
    original: nn.Module,
    run: Callable[[nn.Module], object] | Sequence[tuple[float, Callable[[nn.Module], object]]],
    *,
    rounding: str = "least_squares",
    bias_correction: bool = False,
) -> QuantizedModule:
    r"""Round the weights again, so that each layer's outputs lose least on calibration data.

    Layer after layer in the order of execution, with the inputs that the layer has when all before it
    are quantized. "gptq" spreads the error of each rounded column of a weight over those left, by the
    covariance of the layer's inputs; "least_squares" seeks the codes whose outputs are nearest to those
    that the layer has in the float network, so that it also makes good what the layers before it lost.
    ``bias_correction`` adds to each bias what quantization took from the mean of that output,

    .. math:: b \leftarrow b + W\,\bar x_f - \hat W\,\bar x_q,

    with the mean inputs of the float network (f) and of the quantized one (q).

    Parameters
    ----------
    quantized : QuantizedModule
        From :func:`convert`; its module is changed in place. Scales stay.
    original : torch.nn.Module
        The float module, not changed.
    run : callable or list of (float, callable)
        ``(module) -> anything``, passes the calibration samples through a module, the same at each call.
        Once the float module has been passed, passes end at the layer in question, and the outputs are
        those of the float module. Or several, each of which passes some samples, with the weight that
        these have in the errors of layers.
    rounding : {"nearest", "gptq", "least_squares"}, default="least_squares"
        "nearest" leaves the weights as they are.
    bias_correction : bool, default=False
        Whether biases of Linear, Conv and ConvTranspose modules are corrected.

    Returns
    -------
    QuantizedModule
        With the new codes. A weight whose inputs cannot be seen, or that is not used on these samples,
        keeps those of nearest rounding, with a warning.

    Raises
    ------
    ValueError
        For an unknown rounding, or inputs of a layer that are not finite.

    References
    ----------
    Frantar, E. et al. (2023). GPTQ: accurate post-training quantization for generative pre-trained
    transformers. ICLR.

    Li, Y. et al. (2025). GPTAQ: efficient finetuning-free quantization for asymmetric calibration. ICML.

    Behdin, K. et al. (2023). QuantEase: optimization-based quantization for language models.
    arXiv:2309.01885.

    Nagel, M. et al. (2019). Data-free quantization through weight equalization and bias correction.
    ICCV.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skqfair.quantization import QuantizationScheme, compensate_rounding, convert
    >>> _ = torch.manual_seed(0)
    >>> net, X = nn.Linear(20, 10).eval(), torch.randn(500, 5) @ torch.randn(5, 20)
    >>> nearest = convert(net, QuantizationScheme(weight_bits=2))
    >>> def error(module):
    ...     return (module(X) - net(X)).detach().square().mean().item()
    >>> before = error(nearest.module)
    >>> error(compensate_rounding(nearest, net, lambda module: module(X)).module) < before / 5
    True
    """
    check_choice(rounding, "rounding", ROUNDINGS)
    original, rounds = plain(original), rounding != "nearest"
    names = list(quantizable_weights(original)) if bias_correction else list(quantized.weights)
    runs = [(1.0, run)] if callable(run) else run
    whole, passes = recorded(original, {name: holders(original, name) for name in names})
    of_float = _collected(original, names, runs, whole, products=False)
    if rounds:
        _warn_of_nearest(original, [name for name in quantized.weights if name not in of_float])
    weights = dict(quantized.weights)
    floats = dict(original.named_parameters())
    inside = dict(quantized.module.named_parameters())
    beside = original if rounding == "least_squares" else None
    for name, before in of_float.items():  # in the order of execution
        feeds = rounds and name in weights
        bias = _own_bias(quantized.module, name) if bias_correction else None
        if not feeds and bias is None:
            continue
        through = up_to(quantized.module, holders(quantized.module, name), name, passes)
        if beside is not None:
            through = Beside(up_to(beside, holders(beside, name), name, passes), through)
        moments = _collected(quantized.module, [name], runs, through, products=feeds, original=beside)[
            name
        ]
        sums = [moments.total, moments.products, moments.cross]
        if not all(bool(each.isfinite().all()) for each in sums if each is not None):
            raise ValueError(
                f"the inputs of {name} on the calibration samples are not finite, or their squares; "
                "check X and what run passes, or lower the learning rate of the training."
            )
        if feeds:
            own = moments if bias is None or beside is None else moments.centered(before)
            weights[name] = _rounded(original, name, floats[name], weights[name], own)
            inside[name].detach().copy_(weights[name].dequantize())
        if bias is not None:
            after = inside[name].detach()
            change = _mean(original, name, floats[name], before) - _mean(original, name, after, moments)
            bias.detach().add_(change.to(bias))
    return replace(quantized, weights=weights)


def _collected(module, names, runs, through, **options):
    """Return the moments of the inputs of some weights over all runs, each by its weight."""
    found = {}
    for weight, run in runs:
        with watch_inputs(module, names, **options) as seen:
            run(through)
        for name, moments in seen.items():
            found.setdefault(name, InputMoments()).add(moments, weight)
    return found


def round_alone(
    module: nn.Module,
    name: str,
    nearest: list[QuantizedTensor],
    run: Callable[[nn.Module], object],
    *,
    rounding: str = "least_squares",
) -> list[QuantizedTensor]:
    """Round one weight at several widths while all others stay in float.

    Parameters
    ----------
    module : torch.nn.Module
        The float module, not changed.
    name : str
        The weight.
    nearest : list of QuantizedTensor
        The weight rounded to nearest, at several widths.
    run : callable
        ``(module) -> anything``, passes the calibration samples through the module.
    rounding : {"nearest", "gptq", "least_squares"}, default="least_squares"
        The rule; with one layer alone the last two differ in the descent only.

    Returns
    -------
    list of QuantizedTensor
        Those of ``nearest`` where the inputs of the weight cannot be seen.
    """
    if rounding == "nearest":
        return nearest
    with watch_inputs(module, [name]) as seen:
        run(module)
    if name not in seen:
        return nearest
    moments = seen[name]
    if rounding == "least_squares":
        moments.cross = moments.products
    weight = dict(module.named_parameters())[name]
    return [_rounded(module, name, weight, codes, moments) for codes in nearest]


def _rounded(module, name, weight, nearest, moments):
    """Return the codes of one weight by the moments of its inputs, on the scales of ``nearest``."""
    weight = weight.detach()
    limit = torch.as_tensor(q_max(nearest.bits), device=weight.device)
    if limit.ndim:
        limit = limit.reshape(channel_shape(weight, nearest.axis))
    blocks = (as_matrices(module, name, values) for values in (weight, nearest.spread_scale, limit))
    if moments.cross is None:
        moved = round_with_feedback(*blocks, moments.products)
    else:
        moved = round_to_outputs(*blocks, moments.products, moments.cross)
    moved = from_matrices(module, name, moved)
    return nearest.requantized(moved)


def _own_bias(module, name):
    """Return the bias of the module that holds a weight, None where another one shares the weight."""
    path, _, own = name.rpartition(".")
    owner = module.get_submodule(path)
    bias, weight = getattr(owner, "bias", None), getattr(owner, "weight", None)
    if own != "weight" or not isinstance(bias, nn.Parameter):
        return None
    sharing = sum(getattr(other, "weight", None) is weight for other in module.modules())
    return bias if sharing == 1 else None


def _mean(module, name, weight, moments):
    """Return the mean of each output of a layer, less its bias."""
    mean = (moments.total / moments.count)[..., None]
    return (as_matrices(module, name, weight.detach()).double() @ mean).flatten()


def _warn_of_nearest(module, names):
    """Warn of weights that error feedback cannot serve; rows of embeddings need none."""
    left = [n for n in names if not isinstance(module.get_submodule(n.rpartition(".")[0]), nn.Embedding)]
    if left:
        warn(
            f"rounded to nearest, for their inputs cannot be seen or did not come: {', '.join(left)}. "
            "Error feedback is for Linear, Conv, ConvTranspose, recurrent and attention modules that "
            "are called on the calibration samples.",
            NearestRoundingWarning,
        )
