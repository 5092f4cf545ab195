r"""Modules of one logit: their loss as cross-entropy of two logits, for which more is known.

With z the logit of the second class and 0 that of the first,

.. math:: -y \log \sigma(z) - (1 - y) \log(1 - \sigma(z)) = -\log \mathrm{softmax}(0, z)_y .
"""

import torch
from torch import nn

__all__ = ["as_cross_entropy"]


def as_cross_entropy(criterion, forward, y):
    """Return the criterion and forward of the same loss, as cross-entropy where it is one.

    Parameters
    ----------
    criterion : torch.nn.Module or callable
        Any; only ``BCEWithLogitsLoss`` without weights of samples becomes another one.
    forward : callable or None
        ``(module, X) -> outputs``; None calls the module.
    y : tensor of shape (n,) or (n, 1)
        Targets; only 0 and 1 are classes.

    Returns
    -------
    criterion, forward, y
        The same three where they say something else.
    """
    one = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
    if type(criterion) is not nn.BCEWithLogitsLoss or criterion.weight is not None or not one:
        return criterion, forward, y
    if not ((y == 0) | (y == 1)).all():
        return criterion, forward, y
    weight = criterion.pos_weight
    if weight is not None:
        weight = torch.stack([torch.ones_like(weight.reshape(())), weight.reshape(())])
    return nn.CrossEntropyLoss(weight), _TwoLogits(forward), y.reshape(-1).long()


class _TwoLogits:
    """Outputs of a module of one logit, with 0 as that of the first class."""

    def __init__(self, forward):
        self.forward = forward

    def __call__(self, module, X):
        logit = module(X) if self.forward is None else self.forward(module, X)
        if logit.shape not in ((len(X),), (len(X), 1)):
            raise ValueError(
                f"criterion=BCEWithLogitsLoss() with one target of each sample takes one logit, shape "
                f"(n,) or (n, 1); the module returns {tuple(logit.shape)} for {len(X)} samples. Leave "
                "criterion=None for one logit of each class."
            )
        logit = logit.reshape(-1)
        return torch.stack([torch.zeros_like(logit), logit], dim=1)
