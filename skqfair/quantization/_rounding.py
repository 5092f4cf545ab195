"""Rounding that minds what a layer does with its inputs: error feedback, corrected biases."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from skqfair._warnings import warn
from skqfair.exceptions import NearestRoundingWarning
from skqfair.quantization._affine import q_max
from skqfair.quantization._convert import QuantizedModule
from skqfair.quantization._gptq import round_with_feedback
from skqfair.quantization._layer_inputs import as_matrices, from_matrices, moments_at, watched
from skqfair.quantization._least_squares import round_to_outputs
from skqfair.quantization._passes import Passes, record
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
        ``(module) -> anything``, passes the calibration samples through the float module; what it calls
        the module with is kept and passed through both. Or several, each of which passes some samples,
        with the weight that these have in the errors of layers.
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
    samples = record(original, [(1.0, run)] if callable(run) else run, watched(names))
    items = Counter()
    for sample in samples:
        items.update(sample.items)  # in the order of execution
    if rounds:
        _warn_of_nearest(original, [name for name in quantized.weights if name not in items])
    weights = dict(quantized.weights)
    floats = dict(original.named_parameters())
    inside = dict(quantized.module.named_parameters())
    find = watched(names, items)
    with Passes(quantized.module, samples, find) as after, Passes(original, samples, find) as before:
        for name in items:
            feeds = rounds and name in weights
            bias = _own_bias(quantized.module, name) if bias_correction else None
            if not feeds and bias is None:
                continue
            is_paired = rounding == "least_squares" or bias is not None
            moments = moments_at(name, after, before if is_paired else None, products=feeds)
            if not bool(moments.total.isfinite().all()):
                raise ValueError(
                    f"the inputs of {name} on the calibration samples are not finite; check X, or "
                    "lower the learning rate of the training."
                )
            if feeds:
                own = moments
                if rounding == "gptq":
                    own.cross = None
                elif bias is not None:
                    own = moments.centered()
                weights[name] = _rounded(original, name, floats[name], weights[name], own)
                inside[name].detach().copy_(weights[name].dequantize())
            if bias is not None:
                change = _output_sum(original, name, floats[name], moments.total_of_float)
                change -= _output_sum(original, name, inside[name], moments.total)
                bias.detach().add_((change / moments.count).to(bias))
    return replace(quantized, weights=weights)


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
    samples = record(module, [(1.0, run)], watched([name]))
    items = sum((Counter(sample.items) for sample in samples), Counter())
    if name not in items:
        return nearest
    with Passes(module, samples, watched([name], items)) as passes:
        moments = moments_at(name, passes)
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


def _output_sum(module, name, weight, inputs):
    """Return the sum of each output of a layer, less its bias, from that of the inputs."""
    return (as_matrices(module, name, weight.detach()).double() @ inputs[..., None]).flatten()


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
