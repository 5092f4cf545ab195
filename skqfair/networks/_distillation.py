r"""Soft targets in the fine-tuning: a teacher's probabilities at a temperature."""

import torch
from torch.nn import functional as F

__all__ = ["Distillation"]


class Distillation:
    r"""The soft part of a loss, :math:`(1 - \alpha) \ell + \alpha T^2 KL(q \| p)`.

    With :math:`q \propto \mathrm{teacher}^{1/T}` and :math:`p \propto \mathrm{student}^{1/T}`, of logits
    :math:`\mathrm{softmax}(z / T)`. The factor :math:`T^2` keeps the size of the gradients.

    Parameters
    ----------
    weight : float
        :math:`\alpha` in [0, 1].
    temperature : float
        T.
    teach : callable
        ``(X) -> log probabilities``, tensor of shape (batch, C), for a tensor of samples.
    logs : tensor of shape (n, C), or None
        What ``teach`` returns for each training sample; None has it called on every batch, for samples
        that are never twice the same.
    returns_logits : bool
        Whether the student returns logits; else probabilities.

    References
    ----------
    Hinton, G., Vinyals, O. & Dean, J. (2015). Distilling the knowledge in a neural network.
    arXiv:1503.02531.
    """

    def __init__(self, weight, temperature, teach, logs=None, *, returns_logits=True):
        self.weight, self.temperature, self.teach = weight, temperature, teach
        self.targets = None if logs is None else self._softened(logs)
        self.returns_logits, self.n_steps = returns_logits, 0

    def mixed(self, losses, outputs, X, share):
        """Return the losses of a batch, shape (batch,), mixed with the soft ones.

        Parameters
        ----------
        losses : tensor of shape (batch,)
            Of the labels.
        outputs : tensor of shape (batch, C)
            Of the student.
        X : tensor or dict
            The samples, with ``"teacher"`` where the targets are known.
        share : tensor of shape (batch,)
            What a sample counts in the criterion.

        Returns
        -------
        tensor of shape (batch,)
        """
        self.n_steps += 1
        if self.targets is None:
            inputs = X["X"] if isinstance(X, dict) else X
            with torch.no_grad():
                targets = self._softened(self.teach(inputs))
        else:
            targets = X["teacher"]
        if not self.returns_logits:
            outputs = outputs.clamp(min=torch.finfo(outputs.dtype).tiny).log()
        student = F.log_softmax(outputs / self.temperature, 1)
        soft = F.kl_div(student, targets.to(student), reduction="none").sum(1)
        return (1 - self.weight) * losses + self.weight * self.temperature**2 * share * soft

    def _softened(self, logs):
        return F.softmax(logs / self.temperature, 1).float()
