"""Extreme eigenvalues of the Hessian of each group's loss."""

from numbers import Real

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from skqfair._warnings import warn
from skqfair.curvature._group_losses import Problem, check_count, on_a_copy, unit
from skqfair.curvature._hessian import Hessian
from skqfair.curvature._lanczos import lanczos
from skqfair.curvature._second_derivative import check_second_derivative

__all__ = ["extreme_eigenvalues", "group_hessian_eigenvalues"]

# Of a warm start, in all directions together: the largest eigenvector may be across the old ones. Of
# 1,650 starts at exactly another eigenvector 4 are off by more than 1e-3; with 3 there are 22.
_NOISE = 10.0
MAX_ITER = 200


def group_hessian_eigenvalues(
    module,
    X,
    y,
    groups,
    *,
    k=1,
    which="LA",
    tol=1e-3,
    max_iter=MAX_ITER,
    v0=None,
    return_eigenvectors=False,
    criterion=None,
    batch_size=None,
):
    r"""Return the largest or smallest eigenvalues of the Hessian of each group's mean loss.

    .. math:: \lambda_1 \ge \lambda_2 \ge \dots \text{ of } \nabla_\theta^2 J_a(\theta), \quad
              J_a(\theta) = \frac{1}{n_a} \sum_{i \in a} \ell(f_\theta(x_i), y_i)

    over all trainable weights, the module in eval mode, by Lanczos' method with full
    reorthogonalisation.

    Parameters
    ----------
    module : torch.nn.Module
        Float module, float32 or float64; left as it was.
    X : array, tensor, memmap or Dataset of shape (n, ...)
        Samples.
    y : array or tensor of shape (n, ...)
        Targets, for cross-entropy int64 classes of shape (n,).
    groups : array-like of shape (n,)
        Group of each sample, labels of any type.
    k : int, default=1
        How many.
    which : {"LA", "SA"}, default="LA"
        The largest or the smallest, with their signs (algebraic).
    tol : float, default=1e-3
        An eigenvalue is done when the residual of its Ritz pair, which bounds its error, is at most
        ``tol`` times its absolute value (or ``tol`` times 1e-3 of the spectral norm, if that is more).
    max_iter : int, default=200
        Hessian-vector products at most, for each group.
    v0 : array or tensor of shape (G, k, n_weights), optional
        Where to start, e.g. the eigenvectors of a similar module; None starts at random, always alike.
    return_eigenvectors : bool, default=False
        Also return the vectors.
    criterion : torch.nn.Module or callable, optional
        ``(outputs, targets) -> loss``; None is cross-entropy, ``BCEWithLogitsLoss()`` is for modules
        of one logit. Its ``reduction`` is set aside.
    batch_size : int, optional
        Samples at a time; None takes as many as fit into memory. If a group needs one batch only, its
        graph is kept, which is about twice as fast.

    Returns
    -------
    eigenvalues : ndarray of float64, shape (G, k)
        In the sorted order of the group labels; the largest descending, the smallest ascending.
    eigenvectors : ndarray, shape (G, k, n_weights)
        Of length 1, if asked for.

    Raises
    ------
    ValueError
        For bad input; the message names the argument.
    skqfair.exceptions.DoubleBackwardError
        If torch has no right second derivative of the module, as finite differences say.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` products were not enough for a group.

    Notes
    -----
    The largest eigenvalue of a group's Hessian is biased upward when the group is small: compare
    groups at equal numbers of samples, as :class:`~skqfair.QuantizationDiagnostics` does.

    References
    ----------
    Parlett, B. N. (1998). The symmetric eigenvalue problem. SIAM.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skqfair.diagnostics import group_hessian_eigenvalues
    >>> module = torch.nn.Linear(1, 2, bias=False)
    >>> _ = torch.nn.init.zeros_(module.weight)
    >>> X, y = np.array([[1.0], [2.0], [3.0]]), [0, 1, 0]
    >>> group_hessian_eigenvalues(module, X, y, ["a", "a", "b"]).round(3)
    array([[1.25],
           [4.5 ]])
    """
    problem = Problem(module, X, y, groups, criterion=criterion, batch_size=batch_size)
    n_groups, n_weights = len(problem.groups.index), problem.n_weights
    if which not in ("LA", "SA"):
        raise ValueError(f"which must be 'LA' (largest) or 'SA' (smallest, with sign), got {which!r}.")
    check_count(k, "k", most=n_weights, why=" (all weights)")
    check_count(max_iter, "max_iter", least=k)
    if not isinstance(tol, Real) or not tol > 0:
        raise ValueError(f"tol must be > 0, got {tol!r}.")
    if v0 is not None and np.shape(v0) != (n_groups, k, n_weights):
        raise ValueError(
            f"v0 must have shape (groups, k, weights) = {(n_groups, k, n_weights)}, got {np.shape(v0)}."
        )
    if v0 is not None and not torch.isfinite(torch.as_tensor(v0)).all():
        raise ValueError("v0 has values that are not finite; pass vectors of an earlier call, or None.")
    ends = {"largest": k, "smallest": 0} if which == "LA" else {"largest": 0, "smallest": k}
    found = []
    with on_a_copy(problem) as own:
        check_second_derivative(own)
        for g, rows in enumerate(own.members()):
            start = None if v0 is None else v0[g]
            # without a name: its graphs are gone before those of the next group
            pairs = extreme_eigenvalues(Hessian(own, rows), start, tol=tol, max_iter=max_iter, **ends)
            if not pairs.converged:
                name = problem.groups.index[g]
                warn(
                    f"{max_iter} products were not enough for an eigenvalue of group {name!r} at "
                    f"tol={tol}; raise max_iter or tol.",
                    ConvergenceWarning,
                )
            found.append(pairs)
    values = np.stack([pairs.values for pairs in found])
    if return_eigenvectors:
        return values, np.stack([pairs.vectors.cpu().numpy() for pairs in found])
    return values


def extreme_eigenvalues(hessian, start=None, **options):
    """Return eigenpairs of a Hessian, from a random start or near the vectors of ``start``.

    Parameters
    ----------
    hessian : Hessian
        The map.
    start : array of shape (k, n_weights), optional
        Eigenvectors of a similar one.
    **options
        Of :func:`lanczos`: how many, tolerances, and the most products.

    Returns
    -------
    Eigenpairs
        Values, vectors, whether they converged, and products taken.
    """
    like = hessian.gradient
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(len(like), generator=generator, dtype=like.dtype).to(like.device)
    if start is not None:
        vectors = torch.as_tensor(start, dtype=like.dtype, device=like.device)
        vector = unit(vectors.sum(0)) + _NOISE * unit(vector)
    return lanczos(hessian, vector, **options)
