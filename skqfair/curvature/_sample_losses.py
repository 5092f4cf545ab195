"""A criterion as the loss of each sample."""

import copy

import torch
from torch import nn

__all__ = ["sample_losses"]


def sample_losses(criterion):
    """Return ``(outputs, targets) -> losses of shape (n,)`` for a criterion."""
    if isinstance(criterion, type) or not callable(criterion):
        raise TypeError(
            "criterion must be a function (outputs, targets) -> loss, e.g. torch.nn.CrossEntropyLoss(); "
            f"got {criterion!r}."
        )
    if hasattr(criterion, "reduction"):
        criterion = copy.copy(criterion)
        criterion.reduction = "none"

    def losses(outputs, targets):
        if isinstance(criterion, nn.BCEWithLogitsLoss):
            targets = targets.to(outputs).reshape(outputs.shape)
        try:
            found = criterion(outputs, targets)
        except IndexError as error:
            raise ValueError(
                f"y must be positions of classes, 0 to {outputs.shape[1] - 1} for {outputs.shape[1]} "
                f"outputs; got {int(targets.min())} to {int(targets.max())}."
            ) from error
        except RuntimeError as error:
            raise ValueError(
                f"{type(criterion).__name__} fails on outputs of shape {tuple(outputs.shape)} and y of "
                f"shape {tuple(targets.shape)}: {error}. Classes are positions, y of shape (n,)."
            ) from error
        if found.ndim == 0 and len(outputs) > 1:  # a callable that takes the mean itself
            each = [criterion(o[None], t[None]) for o, t in zip(outputs, targets, strict=True)]
            return torch.stack(each)
        return found.reshape(len(outputs), -1).mean(1) if found.ndim else found[None]

    return losses
