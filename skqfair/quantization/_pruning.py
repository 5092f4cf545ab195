"""The smallest weights of a module set to zero: magnitude pruning."""

import math
from bisect import bisect_left
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch

from skqfair.quantization._quantize import check_choice
from skqfair.quantization._size import float_size
from skqfair.quantization._sparse import flat_values, sparse_nbytes
from skqfair.quantization._targets import check_module, plain, plain_copy, quantizable_weights

__all__ = ["SCOPES", "PrunedModule", "amount_for_size", "prune"]

SCOPES = ("global", "layer")


@dataclass(frozen=True, eq=False)
class PrunedModule:
    """The result of :func:`prune`.

    Parameters
    ----------
    module : torch.nn.Module
        A copy in eval mode with the smallest weights at zero.
    masks : dict of str to tensor of bool
        Parameter name to what was set to zero.
    threshold : float or dict of str to float
        The largest magnitude that was set to zero, 0 if there is none; for scope "layer" of each
        weight, by parameter name.
    """

    module: torch.nn.Module
    masks: dict[str, torch.Tensor]
    threshold: float | dict[str, float]


def prune(module: torch.nn.Module, amount: float = 0.5, *, scope: str = "global") -> PrunedModule:
    r"""Return a copy of a module whose weights of smallest magnitude are zero.

    Of n weights :math:`\mathrm{round}(amount \cdot n)` are set to zero; among equal magnitudes those
    that come first. The weights are those that quantization targets, see
    :func:`quantizable_weights`, shared ones once; biases and normalisation are left as they are.

    Parameters
    ----------
    module : torch.nn.Module
        The float module, not changed.
    amount : float, default=0.5
        Share of the weights that is set to zero, at least 0 and below 1.
    scope : {"global", "layer"}, default="global"
        One threshold for all weights together, or the same share of each.

    Returns
    -------
    PrunedModule
        The copy, its masks and its threshold.

    Raises
    ------
    ValueError
        For another amount or scope, or weights that are not finite or not there.
    TypeError
        If ``module`` is not a torch module.

    References
    ----------
    Han, S., Pool, J., Tran, J. & Dally, W. J. (2015). Learning both weights and connections for
    efficient neural networks. NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skqfair.quantization import prune
    >>> layer = torch.nn.Linear(2, 2, bias=False)
    >>> layer.weight.data = torch.tensor([[0.5, -0.25], [-2.0, 1.0]])
    >>> pruned = prune(layer, 0.5)
    >>> pruned.module.weight.tolist(), pruned.threshold
    ([[0.0, 0.0], [-2.0, 1.0]], 0.5)
    """
    _check_amount(amount)
    check_choice(scope, "scope", SCOPES)
    check_module(module)
    pruned = plain_copy(module).eval()
    weights = _weights(pruned)
    magnitudes = {name: _magnitudes(weight, name) for name, weight in weights.items()}
    found, threshold = _masks(magnitudes, amount, scope)
    masks = {}
    for name, weight in weights.items():
        masks[name] = torch.from_numpy(found[name]).reshape(weight.shape).to(weight.device)
        weight.detach().masked_fill_(masks[name], 0.0)
    return PrunedModule(pruned, masks, threshold)


def amount_for_size(module: torch.nn.Module, size: int, *, scope: str = "global") -> float:
    """Return the share of weights to prune so that a module takes no more than ``size`` bytes.

    Parameters
    ----------
    module : torch.nn.Module
        The float module, e.g. ``estimator_.module_`` of a fitted classifier.
    size : int
        Bytes, counted as by :func:`sparse_size`.
    scope : {"global", "layer"}, default="global"
        As in :func:`prune`.

    Returns
    -------
    float
        The smallest amount, in multiples of 1 over the number of weights, at which
        ``prune(module, amount, scope=scope)`` fits. With one of them less it takes more bytes, unless
        it is 0. As more weights go, the bytes never grow.

    Raises
    ------
    ValueError
        If the module does not fit even with a single weight left, or the size is no number.
    TypeError
        If ``module`` is not a torch module.

    Examples
    --------
    >>> import torch
    >>> from skqfair.quantization import amount_for_size, prune, sparse_size
    >>> module = torch.nn.Linear(100, 10)
    >>> amount = amount_for_size(module, 1000)
    >>> sparse_size(prune(module, amount).module) <= 1000
    True
    >>> sparse_size(prune(module, amount - 1 / 1000).module) <= 1000
    False
    """
    check_choice(scope, "scope", SCOPES)
    if isinstance(size, bool) or not isinstance(size, Real) or not size > 0:
        raise ValueError(f"size must be a positive number of bytes; got {size!r}.")
    check_module(module)
    module = plain(module)
    weights = _weights(module)
    magnitudes = {name: _magnitudes(weight, name) for name, weight in weights.items()}
    values = {name: flat_values(weight) for name, weight in weights.items()}
    n_weights = sum(len(flat) for flat in values.values())
    left_in_float = float_size(module) - 4 * n_weights

    def bytes_at(count):
        masks, _ = _masks(magnitudes, count / n_weights, scope)
        return left_in_float + sum(
            sparse_nbytes(np.where(masks[name], np.float32(0), flat)) for name, flat in values.items()
        )

    count = bisect_left(range(n_weights), True, key=lambda count: bytes_at(count) <= size)
    if count == n_weights:
        raise ValueError(
            f"size={size} is too small: with a single weight left the module takes "
            f"{bytes_at(n_weights - 1)} bytes, of which {left_in_float} are not pruned (biases, "
            "normalisation); allow more bytes."
        )
    return count / n_weights


def _weights(module):
    """Return the parameters that are pruned, by name."""
    parameters = dict(module.named_parameters())
    weights = {name: parameters[name] for name in quantizable_weights(module)}
    if not any(weight.numel() for weight in weights.values()):
        raise ValueError(
            f"the module {type(module).__name__} has no weight to prune: none of its modules is a "
            "Linear, Bilinear, Conv, ConvTranspose, Embedding, EmbeddingBag, recurrent or "
            "MultiheadAttention module with parameters; build the network from these."
        )
    return weights


def _magnitudes(weight, name):
    magnitudes = weight.detach().abs().double().cpu().numpy().reshape(-1)
    if not np.isfinite(magnitudes).all():
        raise ValueError(
            f"the weight {name} must be finite, got NaN or infinity; a diverged training is the usual "
            "cause."
        )
    return magnitudes


def _check_amount(amount):
    number = isinstance(amount, Real) and not isinstance(amount, bool) and math.isfinite(amount)
    if not number or not 0 <= amount < 1:
        raise ValueError(
            f"amount must be a share of the weights, at least 0 and below 1; got {amount!r}."
        )


def _masks(magnitudes, amount, scope):
    """Return what is set to zero, flat, by name, and the threshold."""
    if scope == "layer":
        found = {name: _smallest(values, amount) for name, values in magnitudes.items()}
        masks = {name: mask for name, (mask, _) in found.items()}
        return masks, {name: threshold for name, (_, threshold) in found.items()}
    mask, threshold = _smallest(np.concatenate(list(magnitudes.values())), amount)
    ends = np.cumsum([len(values) for values in magnitudes.values()])[:-1]
    return dict(zip(magnitudes, np.split(mask, ends), strict=True)), threshold


def _smallest(magnitudes, amount):
    """Return the mask of the round(amount * n) smallest, the first of equals, and their largest."""
    count = round(float(amount) * len(magnitudes))
    if not count:
        return np.zeros(len(magnitudes), dtype=bool), 0.0
    threshold = np.partition(magnitudes, count - 1)[count - 1]
    mask = magnitudes < threshold
    equal = np.flatnonzero(magnitudes == threshold)
    mask[equal[: count - np.count_nonzero(mask)]] = True
    return mask, float(threshold)
