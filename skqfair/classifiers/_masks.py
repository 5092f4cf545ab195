"""Pruned weights that stay at zero while a module is fine-tuned."""

from contextlib import contextmanager

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

    def __init__(self, pruned):
        self.module, self.n_steps = pruned.module, 0
        parameters = dict(pruned.module.named_parameters())
        self._held = [(parameters[name], mask) for name, mask in pruned.masks.items()]

    def rescale(self):
        """Do nothing: there are no scales."""

    def hold(self):
        """Set the pruned weights to zero."""
        for parameter, mask in self._held:
            parameter.detach().masked_fill_(mask, 0.0)

    @contextmanager
    def applied(self, *, training):
        """Run the block with the pruned weights at zero; with ``training`` their gradients are, too."""
        self.hold()
        yield
        if training:
            self.n_steps += 1
            for parameter, mask in self._held:
                if parameter.grad is None:
                    continue
                if parameter.grad.is_sparse:
                    parameter.grad = parameter.grad * ~mask
                else:
                    parameter.grad.masked_fill_(mask, 0.0)
