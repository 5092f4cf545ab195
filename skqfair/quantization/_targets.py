"""Which weights of a module can be quantized, by name, and along which axis their channels lie."""

import contextlib
from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from skqfair._copies import deep_copy, keep_padding

__all__ = [
    "activation_targets",
    "check_module",
    "is_reparametrized",
    "left_in_float",
    "matches",
    "matrix_weights",
    "plain",
    "plain_copy",
    "quantizable_weights",
]

_CONV_TRANSPOSE = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_CONV_TRANSPOSE)
_RNN = (nn.RNNBase, nn.RNNCellBase)
_PLAIN = (nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, *_CONV)
_COMPUTING = {WeightNorm: "name", SpectralNorm: "name", prune.BasePruningMethod: "_tensor_name"}
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def _weight_names(module):
    if isinstance(module, _PLAIN):
        return ["weight"]
    if isinstance(module, _RNN):
        return [name for name, _ in module.named_parameters(recurse=False) if name.startswith("weight")]
    if isinstance(module, nn.MultiheadAttention):
        return list(_ATTENTION)
    return []


def quantizable_weights(module: nn.Module, more: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return the weights that can be quantized.

    These are the weights of Linear, Bilinear, Conv1-3d, ConvTranspose1-3d, Embedding, EmbeddingBag,
    the recurrent modules and cells, and MultiheadAttention, of subclasses of these, and of modules
    that contain them. A parameter that is shared comes once, under its first name.

    Parameters
    ----------
    module : torch.nn.Module
        Any module.
    more : dict of str to int, optional
        Shell patterns on names of other parameters of two or more dimensions, or of modules that have
        some, to the axis of their channels.

    Returns
    -------
    dict of str to int
        Parameter names as in ``module.named_parameters()``, to the axis of the channels: 0, or 1
        for transposed convolutions.

    Raises
    ------
    ValueError
        If a pattern of ``more`` matches nothing, or the axis is not there.
    """
    check_module(module)
    axes = {}  # by identity: a tied parameter has its axis from the first module that owns it
    for child in module.modules():
        axis = 1 if isinstance(child, _CONV_TRANSPOSE) else 0
        for name in _weight_names(child):
            weight = getattr(child, name, None)
            if isinstance(weight, nn.Parameter) and weight.is_floating_point():
                axes.setdefault(id(weight), axis)
    named = dict(module.named_parameters())
    found = {name: axes[id(weight)] for name, weight in named.items() if id(weight) in axes}
    for pattern, axis in (more or {}).items():
        found |= _others(named, found, pattern, axis)
    return {name: found[name] for name in named if name in found}


def matrix_weights(module: nn.Module, more: Mapping[str, int] | None = None) -> list[str]:
    """Return the quantizable weights that multiply their inputs as a matrix.

    Those of Linear and MultiheadAttention modules, and the matrices that ``more`` names.

    Parameters
    ----------
    module : torch.nn.Module
        Any module.
    more : dict of str to int, optional
        As in :func:`quantizable_weights`.

    Returns
    -------
    list of str
        Names. Their columns lie along the axis that is not that of the channels.
    """
    owned = {
        id(getattr(child, name, None))
        for child in module.modules()
        if isinstance(child, (nn.Linear, nn.MultiheadAttention))
        for name in _weight_names(child)
    }
    known, parameters = quantizable_weights(module), dict(module.named_parameters())
    return [
        name
        for name in quantizable_weights(module, more)
        if parameters[name].ndim == 2 and (name not in known or id(parameters[name]) in owned)
    ]


def _others(named, known, pattern, axis):
    """Return the parameters that a pattern of ``quantize_parameters`` adds, with their axis."""
    others = {name: named[name] for name in _unknown(named, known)}
    names = [name for name in others if matches(name, pattern)]
    if not names:
        raise ValueError(
            f"quantize_parameters: the pattern {pattern!r} matches no parameter of two or more "
            f"dimensions that would stay in float; these are {', '.join(others) or 'none'}."
        )
    for name in names:
        ndim = others[name].ndim
        if not -ndim <= axis < ndim:
            raise ValueError(
                f"quantize_parameters[{pattern!r}] must be an axis of {name}, which has {ndim} "
                f"dimensions; got {axis}."
            )
    return {name: axis % others[name].ndim for name in names}


def _unknown(named, known):
    """Return the names of other weights: two or more dimensions, and no bias of attention."""
    return [
        name
        for name, parameter in named.items()
        if name not in known
        and parameter.ndim > 1
        and parameter.is_floating_point()
        and not name.endswith(("bias_k", "bias_v"))
    ]


def left_in_float(module: nn.Module, more: Mapping[str, int] | None = None) -> list[str]:
    """Return the weights that stay in float whatever the bits: those of no known kind of module.

    Parameters
    ----------
    module : torch.nn.Module
        Any module.
    more : dict of str to int, optional
        As in :func:`quantizable_weights`.

    Returns
    -------
    list of str
        Names of the parameters of two or more dimensions that :func:`quantizable_weights` lacks.
    """
    return _unknown(dict(module.named_parameters()), quantizable_weights(module, more))


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern is for the parameter ``name`` or for a module that contains it."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:i]), pattern) for i in range(1, len(parts) + 1))


def activation_targets(module: nn.Module) -> dict[str, nn.Module]:
    """Return the modules whose input is quantized, by name: Linear, Conv and recurrent ones."""
    return {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, (nn.Linear, *_CONV, *_RNN))
    }


def is_reparametrized(module: nn.Module) -> bool:
    """Tell whether a weight is computed from others, as by weight norm or by a mask of pruning.

    Parameters
    ----------
    module : torch.nn.Module
        Any module.

    Returns
    -------
    bool
        True if :func:`plain_copy` would fold something.
    """
    return any(parametrize.is_parametrized(child) or _computed(child) for child in module.modules())


def plain(module: nn.Module) -> nn.Module:
    """Return the module itself where all its weights are plain, else :func:`plain_copy`.

    Parameters
    ----------
    module : torch.nn.Module
        Any module, not changed.

    Returns
    -------
    torch.nn.Module
        With plain weights.
    """
    return plain_copy(module) if is_reparametrized(module) else module


def check_module(module: nn.Module) -> None:
    """Raise if that is no module of torch."""
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"module must be a torch.nn.Module, got {type(module).__name__}; of a fitted classifier "
            "pass estimator_.module_, its float network."
        )


def plain_copy(module: nn.Module) -> nn.Module:
    """Return a copy in which weight norm, masks and other reparametrizations are plain weights.

    Parameters
    ----------
    module : torch.nn.Module
        Any module; its weights are not changed.

    Returns
    -------
    torch.nn.Module
        A copy with the same outputs.
    """
    check_module(module)
    copied = deep_copy(module)
    keep_padding(copied)
    for child in copied.modules():
        if parametrize.is_parametrized(child):
            _fold(child)
        for remove in (remove_weight_norm, remove_spectral_norm):
            with contextlib.suppress(ValueError):  # this module has none
                remove(child)
        for name in _computed(child):
            prune.remove(child, name)
    return copied


def _computed(child):
    """Return the names of the weights that older norms and pruning compute in a hook."""
    hooks = list(child._forward_pre_hooks.values())
    return [
        getattr(hook, attribute)
        for hook in hooks
        for kind, attribute in _COMPUTING.items()
        if isinstance(hook, kind)
    ]


def _fold(child):
    """Fold parametrizations into parameters.

    torch's own removal would change the original too: both share the class that torch made for it.
    """
    values = {name: getattr(child, name).detach().clone() for name in child.parametrizations}
    child.__class__ = type(child).__bases__[0]
    del child._modules["parametrizations"]
    for name, value in values.items():
        child.register_parameter(name, nn.Parameter(value))
    for key, hook in list(child._load_state_dict_pre_hooks.items()):
        function = getattr(hook, "hook", hook)  # translates old names of the norm; cannot be pickled
        if getattr(function, "__module__", "") == parametrizations.__name__:
            del child._load_state_dict_pre_hooks[key]
