"""Rounding that minds what a layer does with its inputs: error feedback, corrected biases."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import torch
from torch import nn

from skqfair._warnings import warn
from skqfair.exceptions import NearestRoundingWarning
from skqfair.quantization._affine import q_max
from skqfair.quantization._convert import QuantizedModule
from skqfair.quantization._gptq import round_with_feedback
from skqfair.quantization._layer_inputs import (
    InputMoments,
    as_matrices,
    from_matrices,
    moments_at,
    watched,
)
from skqfair.quantization._least_squares import round_to_outputs
from skqfair.quantization._passes import Passes, items_of, record
from skqfair.quantization._quantize import QuantizedTensor, channel_shape, check_choice
from skqfair.quantization._targets import plain, quantizable_weights

__all__ = ["ROUNDINGS", "compensate_rounding", "float_moments", "round_alone"]

ROUNDINGS = ("nearest", "gptq", "least_squares")
"""The rules by which weights are rounded."""


def compensate_rounding(
    quantized: QuantizedModule,
    original: nn.Module,
    run: Callable[[nn.Module], object]
    | Sequence[tuple[float, Callable[[nn.Module], object]]]
    | None = None,
    *,
    rounding: str = "least_squares",
    bias_correction: bool = False,
    moments: dict[str, InputMoments] | None = None,
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
        with the weight that these have in the errors of layers. None with ``moments``.
    rounding : {"nearest", "gptq", "least_squares"}, default="least_squares"
        "nearest" leaves the weights as they are.
    bias_correction : bool, default=False
        Whether biases of Linear, Conv and ConvTranspose modules are corrected.
    moments : dict of str to InputMoments, optional
        From :func:`float_moments`: what layers get in the float network, in place of what they get when
        those before them are rounded. They serve all widths, and lose some accuracy at the least.

        .. versionadded:: 0.2

    Returns
    -------
    QuantizedModule
        With the new codes. A weight whose inputs cannot be seen, or that is not used on these samples,
        keeps those of nearest rounding, with a warning.

    Raises
    ------
    ValueError
        For an unknown rounding, inputs of a layer that are not finite, or neither or both of ``run`` and
        ``moments``.

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
    if (run is None) == (moments is None):
        raise ValueError("give either run or moments, the one from float_moments(module, run).")
    original, rounds = plain(original), rounding != "nearest"
    names = list(quantizable_weights(original)) if bias_correction else list(quantized.weights)
    biases = {name: _own_bias(quantized.module, name) for name in names if bias_correction}
    weights = dict(quantized.weights)
    feeding = {name for name in weights if rounds}
    if moments is None:
        runs = [(1.0, run)] if callable(run) else run
        layers = _in_order(quantized.module, original, runs, names, feeding, biases, rounding)
    else:
        layers = (pair for pair in moments.items())
    floats = dict(original.named_parameters())
    inside = dict(quantized.module.named_parameters())
    seen = set()
    with closing(layers):
        for name, found in layers:
            seen.add(name)
            bias = biases.get(name)
            sums = [found.total, found.products, found.cross]
            if not all(bool(each.isfinite().all()) for each in sums if each is not None):
                raise ValueError(
                    f"the inputs of {name} on the calibration samples are not finite, or their squares; "
                    "check X and what run passes, or lower the learning rate of the training."
                )
            if name in feeding:
                own = found if bias is None or rounding == "gptq" else found.centered()
                weights[name] = _rounded(original, name, floats[name], weights[name], own, rounding)
                inside[name].detach().copy_(weights[name].dequantize())
            if bias is not None:
                change = _output_sum(original, name, floats[name], found.total_of_float)
                change -= _output_sum(original, name, inside[name], found.total)
                bias.detach().add_((change / found.count).to(bias))
    if rounds:
        _warn_of_nearest(original, [name for name in quantized.weights if name not in seen])
    return replace(quantized, weights=weights)


def _in_order(quantized, original, runs, names, feeding, biases, rounding):
    """Yield weights in the order of execution, with the moments of inputs that nothing changes later."""
    samples = record(original, runs, watched(names))
    items = items_of(samples)
    find = watched(names, items)
    aims = rounding == "least_squares"  # at the outputs of the float network
    with Passes(quantized, samples, find) as own, Passes(original, samples, find) as floats:
        for name in items:
            products, bias = name in feeding, biases.get(name)
            if products or bias is not None:
                beside = floats if aims or bias is not None else None
                moments = moments_at(name, own, beside, products=products, cross=aims)
                if moments.count:  # a layer may not be reached by what rounding left of the samples
                    yield name, moments


def float_moments(
    module: nn.Module,
    run: Callable[[nn.Module], object] | Sequence[tuple[float, Callable[[nn.Module], object]]],
) -> dict[str, InputMoments]:
    """Return the moments of the inputs of all weights, for roundings at several widths.

    .. versionadded:: 0.2

    Parameters
    ----------
    module : torch.nn.Module
        The float module, not changed.
    run : callable or list of (float, callable)
        As in :func:`compensate_rounding`.

    Returns
    -------
    dict of str to InputMoments
        By name, in the order of execution, of weights whose inputs can be seen. A weight of n columns
        takes 8 n² bytes.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skqfair.quantization import QuantizationScheme, compensate_rounding, convert, float_moments
    >>> net, X = nn.Linear(20, 10).eval(), torch.randn(500, 20)
    >>> moments = float_moments(net, lambda module: module(X))
    >>> for bits in (2, 3, 4):
    ...     nearest = convert(net, QuantizationScheme(bits))
    ...     rounded = compensate_rounding(nearest, net, moments=moments)
    >>> moments["weight"].count
    500.0
    """
    module = plain(module)
    runs = [(1.0, run)] if callable(run) else run
    return _of_float(module, runs, list(quantizable_weights(module)))


def _of_float(module, runs, names):
    """Return the moments of the inputs of some weights, each beside itself, by name."""
    samples = record(module, runs, watched(names))
    items, found = items_of(samples), {}
    with Passes(module, samples, watched(names, items)) as passes:
        for name in items:
            moments = found[name] = moments_at(name, passes)
            moments.total_of_float, moments.cross = moments.total, moments.products
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
    moments = _of_float(module, [(1.0, run)], [name]).get(name)
    if moments is None:
        return nearest
    weight = dict(module.named_parameters())[name]
    return [_rounded(module, name, weight, codes, moments, rounding) for codes in nearest]


def _rounded(module, name, weight, nearest, moments, rounding):
    """Return the codes of one weight by the moments of its inputs, on the scales of ``nearest``."""
    weight = weight.detach()
    limit = torch.as_tensor(q_max(nearest.bits), device=weight.device)
    if limit.ndim:
        limit = limit.reshape(channel_shape(weight, nearest.axis))
    blocks = (as_matrices(module, name, values) for values in (weight, nearest.spread_scale, limit))
    if rounding == "gptq":
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
