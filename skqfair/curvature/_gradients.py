"""Norms of the gradients of each group's loss."""

import numpy as np
import torch

from skqfair.curvature._group_losses import Problem, on_a_copy

__all__ = ["group_gradient_norms", "mean_gradient"]


def group_gradient_norms(module, X, y, groups, *, criterion=None, batch_size=None):
    r"""Return the norm of the gradient of each group's mean loss, in one pass over the data.

    .. math:: \left\| \nabla_\theta J_a(\theta) \right\|_2, \quad
              J_a(\theta) = \frac{1}{n_a} \sum_{i \in a} \ell(f_\theta(x_i), y_i)

    over all trainable weights, the module in eval mode.

    Parameters
    ----------
    module : torch.nn.Module
        Float module; left as it was.
    X : array, tensor, memmap or Dataset of shape (n, ...)
        Samples.
    y : array or tensor of shape (n, ...)
        Targets, for cross-entropy int64 classes of shape (n,).
    groups : array-like of shape (n,)
        Group of each sample, labels of any type.
    criterion : torch.nn.Module or callable, optional
        ``(outputs, targets) -> loss``; None is cross-entropy, ``BCEWithLogitsLoss()`` is for modules
        of one logit. Its ``reduction`` is set aside.
    batch_size : int, optional
        Samples at a time; None takes as many as fit into memory.

    Returns
    -------
    ndarray of float64, shape (G,)
        In the sorted order of the group labels.

    Raises
    ------
    ValueError
        For a module without trainable weights, empty input, or a loss that is not finite.

    Notes
    -----
    Sampling noise inflates the norm, the more the smaller the group: compare groups at equal numbers
    of samples, as :class:`~skqfair.QuantizationDiagnostics` does.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skqfair.diagnostics import group_gradient_norms
    >>> module = torch.nn.Linear(1, 2, bias=False)
    >>> _ = torch.nn.init.zeros_(module.weight)
    >>> X, y = np.array([[1.0], [2.0], [3.0]]), [0, 1, 0]
    >>> group_gradient_norms(module, X, y, ["a", "a", "b"]).round(3)
    array([0.354, 2.121])
    """
    problem = Problem(module, X, y, groups, criterion=criterion, batch_size=batch_size)
    with on_a_copy(problem) as own:
        gradients = [mean_gradient(own, rows) for rows in own.members()]
    return np.array([float(torch.linalg.vector_norm(g.double())) for g in gradients])


def mean_gradient(problem, rows):
    """Return the gradient of the mean loss of some rows.

    Parameters
    ----------
    problem : Problem
        Inside :func:`evaluating`.
    rows : array of int
        Which samples.

    Returns
    -------
    Tensor of shape (n_weights,)
        Flat.
    """
    total = None
    for some in problem.batches(rows):
        parts = problem.gradient(some)
        total = parts if total is None else [a + b for a, b in zip(total, parts, strict=True)]
    return torch.cat([part.reshape(-1) for part in total]) / len(rows)
