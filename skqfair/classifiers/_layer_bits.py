"""Bits of each layer or channel, chosen from what the trained network loses."""

from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.utils._param_validation import Interval, StrOptions
from skorch.dataset import unpack_data

from skqfair._losses import group_means, log_probabilities
from skqfair._seeding import seeded
from skqfair._warnings import warn
from skqfair.exceptions import UnquantizedWeightsWarning
from skqfair.quantization import (
    ACTIVATION_SCHEMES,
    CALIBRATIONS,
    CHOICES,
    ROUNDINGS,
    QuantizationScheme,
    QuantizedTensor,
    allocate_bits,
    check_budget,
    left_in_float,
    plain,
    plain_copy,
    round_alone,
)

__all__ = ["BIT_CONSTRAINTS", "build_scheme", "check_layer_bits", "losses", "warn_of_float"]

AUTOMATIC = ("auto", "fairquant", "first_last_8")
"""The rules that ``layer_bits`` can name."""

BIT_CONSTRAINTS = {
    "weight_bits": [Interval(Integral, 2, 16, closed="both"), None],
    "activation_bits": [Interval(Integral, 2, 16, closed="both"), None],
    "layer_bits": [dict, StrOptions(set(AUTOMATIC)), None],
    "bit_budget": [Interval(Real, 0, None, closed="neither"), None],
    "quantize_parameters": [dict, None],
    "granularity": "no_validation",  # by check_layer_bits
    "calibration_size": [Interval(Integral, 1, None, closed="left")],
    "activation_scheme": [StrOptions(set(ACTIVATION_SCHEMES))],
    "activation_calibration": [StrOptions(set(CALIBRATIONS)), None],
    "rounding": [StrOptions(set(ROUNDINGS))],
}
"""What the parameters that all quantizing classifiers share may be."""

_BUDGETED = ("auto", "fairquant")
_FAIRQUANT = (2, 4, 8)


def check_layer_bits(layer_bits, bit_budget, weight_bits, granularity):
    """Raise if the granularity is none, or ``bit_budget`` does not fit ``layer_bits``."""
    per_channel = QuantizationScheme(granularity=granularity).per_channel
    budgeted = isinstance(layer_bits, str) and layer_bits in _BUDGETED
    if bit_budget is not None and not budgeted:
        raise ValueError(
            f'bit_budget={bit_budget!r} is for layer_bits="auto" or "fairquant" only; leave it None, '
            'or set layer_bits="auto".'
        )
    if budgeted and bit_budget is None:
        raise ValueError(
            f"layer_bits={layer_bits!r} needs bit_budget, the mean bits per weight; e.g. bit_budget=4."
        )
    if budgeted:
        check_budget(bit_budget, CHOICES if layer_bits == "auto" else _FAIRQUANT, "bit_budget")
    if layer_bits == "fairquant" and not per_channel:
        raise ValueError(
            'layer_bits="fairquant" chooses bits for each channel and needs granularity="per_channel" '
            'or ("per_group", n).'
        )
    if layer_bits == "first_last_8" and weight_bits is None:
        raise ValueError('layer_bits="first_last_8" needs weight_bits for the layers between.')


def build_scheme(clf, calibration, trained=None, rows=None):
    """Return the scheme of a classifier.

    Parameters
    ----------
    clf : NetworkClassifier
        With the parameters of the quantization.
    calibration : str
        How scales are found.
    trained : TrainedNetwork, optional
        Without it, what depends on the trained weights is left out.
    rows : callable, optional
        Draws the positions of the calibration sample.
    """
    layer_bits = clf.layer_bits
    options = {
        "weight_bits": clf.weight_bits,
        "activation_bits": clf.activation_bits,
        "granularity": clf.granularity,
        "calibration": calibration,
        "activation_calibration": clf.activation_calibration,
        "activation_scheme": clf.activation_scheme,
        "quantize_parameters": clf.quantize_parameters,
    }
    if isinstance(layer_bits, str):
        if trained is None:
            return QuantizationScheme(**options)
        module, plainly = plain_copy(trained.network.module).eval(), QuantizationScheme(**options)
        axes = plainly.axes(module)
        if layer_bits == "first_last_8":
            names = list(axes)
            layer_bits = {names[0]: 8, names[-1]: 8}
        elif layer_bits == "auto":
            layer_bits = _minimax(module, plainly, trained, rows(), clf.bit_budget, clf.rounding)
        else:
            layer_bits = _by_importance(module, axes, trained, rows(), clf.bit_budget)
    return QuantizationScheme(**options, layer_bits=layer_bits)


def warn_of_float(module, quantize_parameters, verb="quantized"):
    """Warn of the weights that no module of a known kind holds, with their share of all."""
    module = plain(module)
    parameters, left = dict(module.named_parameters()), left_in_float(module, quantize_parameters)
    if not left:
        return
    total = sum(parameter.numel() for parameter in parameters.values())
    share = sum(parameters[name].numel() for name in left) / total
    named = ", ".join(f"{name} {tuple(parameters[name].shape)}" for name in left[:10])
    named += f" and {len(left) - 10} more" if len(left) > 10 else ""
    if verb == "quantized":
        named += "; quantize_parameters={pattern: axis of the output channels} adds weights by name"
    warn(
        f"{share:.1%} of the weights of {type(module).__name__} are not {verb}, since no Linear, Conv, "
        f"recurrent, Embedding or attention module holds them: {named}.",
        UnquantizedWeightsWarning,
    )


def losses(network, module, X, y):
    """Return the cross-entropy of each sample under ``module``, float64, shape (n,)."""
    outputs = network.outputs(X, module).double().numpy()
    rows = np.arange(len(y))
    if network.returns_logits:
        return -log_softmax(outputs, axis=1)[rows, y]
    return -log_probabilities(outputs[rows, y])


def _sample(trained, rows):
    codes = np.zeros(len(rows), int) if trained.groups is None else trained.groups.codes[rows]
    return trained.X[rows], trained.y[rows], codes


def _minimax(module, scheme, trained, rows, budget, rounding):
    """Return the allocation whose worst group loses least, from measured sensitivities."""

    def compute():
        with seeded(trained.seed):
            return _measured(module, scheme, trained, rows, rounding)

    axes = scheme.axes(module)
    kind = scheme.granularity, scheme.calibration, rounding, CHOICES, list(axes.items())
    parts = ("sensitivity", *_sample(trained, rows), *kind)
    sensitivity = trained.cached(parts, compute)
    parameters = dict(module.named_parameters())
    sizes = [parameters[name].numel() for name in axes]
    bits = allocate_bits(sensitivity, sizes, budget=budget)
    return {name: int(b) for name, b in zip(axes, bits, strict=True)}


def _measured(module, scheme, trained, rows, rounding):
    """Return the loss increase of each group when one layer alone is quantized, shape (L, choices, G).

    One pass over the sample for each layer and width serves all groups; a second-order prediction
    needs a Hessian-vector product for each layer, width and group, and is only a prediction.
    """
    X, y, codes = _sample(trained, rows)
    before = group_means(losses(trained.network, module, X, y), codes)
    parameters = dict(module.named_parameters())
    increases = []
    for name, layout in scheme.layouts(module).items():
        parameter = parameters[name].detach()
        values = parameter.clone()
        nearest = [
            QuantizedTensor.from_float(values, bits, calibration=scheme.calibration, **layout)
            for bits in CHOICES
        ]
        run = partial(trained.network.outputs, X)
        for quantized in round_alone(module, name, nearest, run, rounding=rounding):
            parameter.copy_(quantized.dequantize())
            after = losses(trained.network, module, X, y)
            increases.append(group_means(after, codes) - before)
        parameter.copy_(values)
    return np.reshape(increases, (-1, len(CHOICES), len(before)))


def _by_importance(module, axes, trained, rows, budget):
    """Return FairQuant's bits of each channel: 2, 4 or 8 by quantiles of the groups' importance.

    The importance of a weight to a group is (gradient of the group's loss x weight)², summed over
    batches; each group's map is divided by its share of the total, and the largest over the groups
    counts, averaged over the channel. The shares of channels at 4 and 8 bits are equal (at 2 none
    beyond 6 bits), as large as the budget allows.
    """

    def compute():
        with seeded(trained.seed):
            return _channel_importance(module, axes, trained, rows)

    importance = trained.cached(("importance", *_sample(trained, rows), list(axes.items())), compute)
    parameters = dict(module.named_parameters())
    sizes = [
        np.full(len(importance[name]), parameters[name].numel() / len(importance[name])) for name in axes
    ]
    scores, weights = np.concatenate([importance[name] for name in axes]), np.concatenate(sizes)
    order = np.argsort(-scores, kind="stable")
    best = None
    for level in np.linspace(0, 1, 1001):
        eight, four = (level, level) if level <= 0.5 else (level, 1 - level)
        bits = np.full(len(scores), 2)
        bits[order[: round((eight + four) * len(order))]] = 4
        bits[order[: round(eight * len(order))]] = 8
        if (bits * weights).sum() <= budget * weights.sum() * (1 + 1e-9):
            best = bits
    ends = np.cumsum([len(size) for size in sizes])[:-1]
    return {name: part.tolist() for name, part in zip(axes, np.split(best, ends), strict=True)}


def _inferred(view, X):
    """Return what the net infers, with its gradient; batches and inputs may be of the user's making."""
    batches = view.get_iterator(view.get_dataset(X), training=False)
    return torch.cat([view.infer(unpack_data(batch)[0]) for batch in batches])


def _channel_importance(module, axes, trained, rows):
    X, y, codes = _sample(trained, rows)
    parameters = dict(module.named_parameters())
    wanted = [parameters[name].requires_grad_() for name in axes]
    groups = np.unique(codes)
    maps = {g: [torch.zeros_like(p) for p in wanted] for g in groups}
    network, size = trained.network, trained.network.batch_size(len(X))
    view = network.view(module)
    for start in np.arange(0, len(X), size):
        part = slice(start, start + size)
        for g in groups:
            members = codes[part] == g
            if not members.any():
                continue
            logits = network.class_logits(_inferred(view, X[part][members]))
            target = torch.as_tensor(y[part][members], device=logits.device)
            loss = torch.nn.functional.cross_entropy(logits, target)
            gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
            for total, gradient, weight in zip(maps[g], gradients, wanted, strict=True):
                if gradient is not None:
                    total += (gradient * weight.detach()).square()
    totals = np.array([float(sum(m.sum() for m in maps[g])) for g in groups])
    shares = np.maximum(totals / (totals.sum() or 1.0), 1e-8)
    result = {}
    for i, (name, axis) in enumerate(axes.items()):
        worst = torch.stack([maps[g][i] / s for g, s in zip(groups, shares, strict=True)]).amax(0)
        result[name] = worst.movedim(axis, 0).flatten(1).mean(1).cpu().numpy()
    return result
