"""BatchNorm statistics of the quantized network, moved by what rounding changed."""

from collections.abc import Callable

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from skqfair.quantization._passes import Passes, items_of, record
from skqfair.quantization._targets import check_module

__all__ = ["has_batchnorm", "move_batchnorm"]


def _normalisations(module):
    modules = module.named_modules()
    return {n: m for n, m in modules if isinstance(m, _BatchNorm) and m.running_mean is not None}


def has_batchnorm(module: torch.nn.Module) -> bool:
    """Tell whether a module has BatchNorm layers with running statistics.

    Parameters
    ----------
    module : torch.nn.Module
        Any module.

    Returns
    -------
    bool
        True if there are any.
    """
    check_module(module)
    return bool(_normalisations(module))


def move_batchnorm(
    module: torch.nn.Module, original: torch.nn.Module, run: Callable[[torch.nn.Module], object]
) -> None:
    r"""Move the running statistics of every BatchNorm by what quantization changed of its input.

    .. math:: \mu \leftarrow \mu + \mu_q - \mu_f, \qquad
              \sigma^2 \leftarrow \sigma^2 \cdot \sigma^2_q / \sigma^2_f

    with mean and variance of the inputs of that layer on the same samples, in the float network (f)
    and in the quantized one (q). Layer after layer in the order of execution: q has the statistics of
    earlier layers moved already. What the training put into them, by augmentation or balanced batches,
    stays, which a re-estimation would undo.

    Parameters
    ----------
    module : torch.nn.Module
        Quantized, in eval mode; its statistics are changed in place. A layer that is not called, and the
        variance of a channel that does not vary, stay.
    original : torch.nn.Module
        The float network, in eval mode; not changed.
    run : callable
        ``(module) -> anything``, passes the samples through the float network; what it calls that with
        is kept and passed through both.

    References
    ----------
    Nagel, M. et al. (2019). Data-free quantization through weight equalization and bias correction.
    ICCV.
    """
    norms = _normalisations(module)
    before = {n: (norm.running_mean.clone(), norm.running_var.clone()) for n, norm in norms.items()}
    samples = record(original, [(1.0, run)], _watched)
    try:
        with Passes(original, samples, _watched) as floats, Passes(module, samples, _watched) as own:
            for name in items_of(samples):
                if name in norms:
                    _move(norms[name], *_sums(floats, own, name))
    except BaseException:
        for name, (mean, variance) in before.items():
            norms[name].running_mean.copy_(mean)
            norms[name].running_var.copy_(variance)
        raise


def _watched(module):
    return [(norm, name, None) for name, norm in _normalisations(module).items()]


def _sums(floats, own, name):
    """Return count, sum and squares of what flows into a layer, of both networks; None of no call."""
    sums = [[], []]
    for pair in zip(floats.at(name), own.at(name), strict=True):
        for kept, calls in zip(sums, pair, strict=True):
            for _, _, args, _ in calls:
                rows = args[0].detach().movedim(1, -1).flatten(0, -2).double()
                total = rows.sum(0)
                kept.append(
                    torch.stack([torch.full_like(total, len(rows)), total, rows.square().sum(0)])
                )
    return [torch.stack(kept).sum(0) if kept else None for kept in sums]


def _move(norm, of_float, of_quantized):
    if of_quantized is None:
        return
    if not bool(torch.stack([of_float, of_quantized]).isfinite().all()):
        raise ValueError(
            "the inputs of a BatchNorm on the calibration samples are not finite; check X and what run "
            "passes, or lower the learning rate of the training."
        )
    (mean, variance), (own_mean, own_variance) = (_moments(*s) for s in (of_float, of_quantized))
    varies = (variance > 0) & (own_variance > 0)
    ratio = torch.where(varies, own_variance / variance.clamp_min(1e-300), 1.0)
    norm.running_mean.add_((own_mean - mean).to(norm.running_mean))
    norm.running_var.mul_(ratio.to(norm.running_var))


def _moments(count, total, squares):
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(0)
