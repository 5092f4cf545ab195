"""What is added to the loss of a batch to keep groups together."""

import numpy as np
import torch

__all__ = ["AccuracyBound", "GapPenalty"]

_WINDOW = 256  # samples of a group over which its accuracy is averaged
_DUAL_RATE = 10.0  # growth of a multiplier in an epoch, per unit of accuracy beyond the bound


def group_means(losses, groups, n_groups):
    """Return the mean loss of each group and the counts, shape (G,); 0 where a group has no sample."""
    counts = torch.bincount(groups, minlength=n_groups).to(losses)
    sums = losses.new_zeros(n_groups).index_add(0, groups, losses)
    return sums / counts.clamp(min=1), counts


class GapPenalty:
    """Strength times the largest difference of mean group losses in the batch.

    Parameters
    ----------
    strength : float
        The factor.
    n_groups : int
        Number of groups.

    References
    ----------
    Woergaard, T. & Selvan, R. (2026). FairQuant. arXiv:2602.23192.
    """

    def __init__(self, strength: float, n_groups: int):
        self.strength, self.n_groups = strength, n_groups

    def __call__(
        self, losses: torch.Tensor, groups: torch.Tensor, correct: torch.Tensor
    ) -> torch.Tensor:
        """Return the penalty of a batch; groups without a sample in it are left out."""
        means, counts = group_means(losses, groups, self.n_groups)
        means = means[counts > 0]
        return self.strength * (means.max() - means.min())


class AccuracyBound:
    r"""Lagrange terms of the constraints that no group loses more than a bound of accuracy.

    Minimises the loss subject to :math:`acc^{float}_a - acc_a \le \epsilon` for every group. The
    accuracy is not differentiable, so the weights descend on the group's mean loss in its place,
    :math:`\sum_a \lambda_a J_a`, while the multipliers ascend on the violation itself,
    :math:`\lambda_a \leftarrow \max(0, \lambda_a + \eta (acc^{float}_a - acc_a - \epsilon))`, with
    the accuracy averaged over the last samples of the group.

    Parameters
    ----------
    bound : float
        :math:`\epsilon`.
    accuracies : array of shape (G,)
        Accuracy of each group under the float net.
    counts : array of shape (G,)
        Samples of each group.
    n_steps : int, default=1
        Steps of an epoch, over which a multiplier grows by 10 for each unit of violation.

    References
    ----------
    Hashemizadeh, M. et al. (2024). Balancing act: constraining disparate impact in sparse models. ICLR.
    """

    def __init__(self, bound: float, accuracies: np.ndarray, counts: np.ndarray, n_steps: int = 1):
        self.bound, self.n_groups = bound, len(accuracies)
        self.reference = torch.as_tensor(accuracies, dtype=torch.float64)
        self.recent = self.reference.clone()
        self.window = torch.as_tensor(counts, dtype=torch.float64).clamp(max=_WINDOW)
        self.n_steps = n_steps
        self.multipliers = torch.zeros(self.n_groups, dtype=torch.float64)

    @property
    def violations(self) -> torch.Tensor:
        """Accuracy lost beyond the bound, per group, over the last samples."""
        return self.reference - self.recent - self.bound

    def __call__(
        self, losses: torch.Tensor, groups: torch.Tensor, correct: torch.Tensor
    ) -> torch.Tensor:
        """Return the Lagrange term of a batch, and let the multipliers ascend."""
        means, counts = group_means(losses, groups, self.n_groups)
        term = (self.multipliers.to(losses) * means).sum()
        with torch.no_grad():
            share, _ = group_means(correct.double(), groups, self.n_groups)
            new = (counts.cpu().double() / self.window).clamp(max=1)
            self.recent += new * (share.cpu() - self.recent)
            self.multipliers = (self.multipliers + _DUAL_RATE / self.n_steps * self.violations).clamp(
                min=0
            )
        return term
