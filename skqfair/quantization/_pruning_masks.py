"""Pruned weights that stay at zero while a module is fine-tuned."""

from collections.abc import Iterator
from contextlib import contextmanager

from skqfair.quantization._pruning import PrunedModule

__all__ = ["HeldMasks"]


class HeldMasks:
    """Holds the zeros of a pruned module through each step of its training.

    Stands in a :class:`Tuning` where fake quantization stands for the quantized classifiers: the
    gradients of pruned weights are set to zero, so that no optimizer moves them and no bound on the
    gradient counts them, and the weights are set to zero again should a callback have moved them.

    Parameters
    ----------
    pruned : PrunedModule
        Its module is trained in place.
    """

    learned_scales = ()

    def __init__(self, pruned: PrunedModule):
        self.module, self.n_steps = pruned.module, 0
        parameters = dict(pruned.module.named_parameters())
        self._masks = [(parameters[name], mask) for name, mask in pruned.masks.items()]
        # ones and zeros: a product takes a fraction of the time of filling a mask
        self._kept = [(parameter, (~mask).to(parameter.dtype)) for parameter, mask in self._masks]

    def rescale(self) -> None:
        """Do nothing: there are no scales."""

    @contextmanager
    def applied(self, *, training: bool) -> Iterator[None]:
        """Run the block with the pruned weights at zero; with ``training`` their gradients are, too."""
        for parameter, kept in self._kept:
            parameter.data.mul_(kept)  # autograd need not know: nothing that it has kept changes
        yield
        if not training:
            return
        self.n_steps += 1
        for parameter, kept in self._kept:
            if parameter.grad is None:
                continue
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad * kept
            else:
                parameter.grad.mul_(kept)

    def finish(self) -> None:
        """Leave the module with the pruned weights at zero, a positive one."""
        for parameter, mask in self._masks:
            parameter.detach().masked_fill_(mask, 0.0)
