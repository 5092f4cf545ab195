"""BatchNorm statistics of the quantized network, re-estimated on calibration data."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["has_batchnorm", "reestimate_batchnorm"]


def _normalisations(module):
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


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
    return bool(_normalisations(module))


@contextmanager
def reestimate_batchnorm(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Replace the running statistics of every BatchNorm by those of the data that flows through.

    Inside the block each batch is normalised by its own statistics, as in training, while the rest
    of the module stays in eval mode; on leaving it the pooled mean and unbiased variance over all
    batches are written. Parameters are not touched. If nothing flowed through a layer, or an error
    ends the block, its old statistics are put back.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode; changed in place.

    Yields
    ------
    torch.nn.Module
        The same module.
    """
    pools = [_Pool(norm) for norm in _normalisations(module)]
    try:
        with torch.no_grad():
            yield module
    except BaseException:
        for pool in pools:
            pool.restore()
        raise
    for pool in pools:
        pool.write()


class _Pool:
    """A forward pre-hook that sums x and x² per channel and lets the batch normalise itself."""

    def __init__(self, norm):
        self.norm, self.count = norm, 0
        self.total = self.squares = 0.0
        self.before = norm.running_mean.clone(), norm.running_var.clone()
        self.handle = norm.register_forward_pre_hook(self)

    def __call__(self, module, args):
        rows = args[0].detach().movedim(1, -1).flatten(0, -2).double()
        if not len(rows):
            return
        self.count += len(rows)
        self.total = self.total + rows.sum(0)
        self.squares = self.squares + rows.square().sum(0)
        module.running_mean.copy_(rows.mean(0))
        module.running_var.copy_(rows.var(0, correction=0))

    def restore(self):
        """Put the statistics back as they were."""
        self.handle.remove()
        self.norm.running_mean.copy_(self.before[0])
        self.norm.running_var.copy_(self.before[1])

    def write(self):
        """Write the pooled statistics, if at least two values per channel were seen."""
        self.restore()
        if self.count > 1:
            mean = self.total / self.count
            variance = (self.squares / self.count - mean.square()).clamp_(min=0)
            self.norm.running_mean.copy_(mean)
            self.norm.running_var.copy_(variance * self.count / (self.count - 1))
