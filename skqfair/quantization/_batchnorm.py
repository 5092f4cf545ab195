"""BatchNorm statistics of the quantized network, moved by what rounding changed."""

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from skqfair.quantization._partial_passes import recorded, up_to
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
        ``(module) -> anything``, passes the samples through a module, the same at each call; passes of
        the quantized one end at the layer in question, and the outputs are those of the float network.

    References
    ----------
    Nagel, M. et al. (2019). Data-free quantization through weight equalization and bias correction.
    ICCV.
    """
    norms = _normalisations(module)
    before = {n: (norm.running_mean.clone(), norm.running_var.clone()) for n, norm in norms.items()}
    originals = _normalisations(original)
    whole, passes = recorded(original, {name: [norm] for name, norm in originals.items()})
    with torch.no_grad(), _watched(originals) as of_float:
        run(whole)
    try:
        for name, sums in of_float.items():  # in the order of execution
            if name in norms:
                through = up_to(module, [norms[name]], name, passes)
                with torch.no_grad(), _watched({name: norms[name]}) as of_quantized:
                    run(through)
                _move(norms[name], sums, of_quantized.get(name))
    except BaseException:
        for name, (mean, variance) in before.items():
            norms[name].running_mean.copy_(mean)
            norms[name].running_var.copy_(variance)
        raise


@contextmanager
def _watched(norms):
    """Add up what flows into some layers, by name in the order of their first call."""
    found = {}

    def watch(name):
        def hook(module, args):
            rows = args[0].detach().movedim(1, -1).flatten(0, -2).double()
            total = rows.sum(0)
            sums = torch.stack([torch.full_like(total, len(rows)), total, rows.square().sum(0)])
            found[name] = found[name] + sums if name in found else sums

        return hook

    handles = [norm.register_forward_pre_hook(watch(name)) for name, norm in norms.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


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
