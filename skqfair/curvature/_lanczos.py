r"""Extreme eigenvalues of a symmetric map from its products with vectors.

Lanczos with full reorthogonalisation: after m products, :math:`Q_m^\top H Q_m = T_m` is tridiagonal;
its eigenpairs :math:`(\theta, s)` give Ritz pairs :math:`(\theta, Q_m s)` with the residual
:math:`\|H Q_m s - \theta Q_m s\| = \beta_m |s_m|`, and an eigenvalue lies within that distance.

References
----------
Parlett, B. N. (1998). The symmetric eigenvalue problem. SIAM.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal

__all__ = ["Eigenpairs", "lanczos"]

_BLOCK = 16  # vectors by which the basis grows
_FEWEST = 5  # products before a start near an eigenvector may count as the largest


@dataclass(frozen=True)
class Eigenpairs:
    """Extreme eigenvalues and their vectors.

    Attributes
    ----------
    values : ndarray of shape (k,)
        The largest, descending, then the smallest, ascending.
    vectors : Tensor of shape (k, n)
        Of length 1.
    converged : bool
        Whether all are within the tolerance.
    n_products : int
        Products with vectors.
    """

    values: np.ndarray
    vectors: torch.Tensor
    converged: bool
    n_products: int


def lanczos(product, start, *, largest=1, smallest=0, tol=1e-3, max_iter=100, tol_smallest=None):
    """Return the ``largest`` and ``smallest`` (algebraic) eigenvalues of a symmetric map.

    Parameters
    ----------
    product : callable
        Vector of shape (n,) to its product with the map.
    start : Tensor of shape (n,)
        Not 0.
    largest, smallest : int
        How many of each end.
    tol : float
        A pair is done when its residual is at most ``tol`` times its absolute value, or ``tol`` times
        1e-3 of the largest absolute value where that is more.
    max_iter : int
        Products at most.
    tol_smallest : float, optional
        For the smallest, if another one.

    Returns
    -------
    Eigenpairs
    """
    wanted = _ends(len(start), largest, smallest)
    tols = np.array([tol] * min(largest, len(start)) + [tol_smallest or tol] * smallest)[: len(wanted)]
    basis = start.new_empty((0, len(start)))
    diagonal, off = [], []
    vector, restarts = start / torch.linalg.vector_norm(start), 0
    for m in range(1, min(max_iter, len(start)) + 1):
        if m > len(basis):
            basis = torch.cat([basis, basis.new_empty((min(_BLOCK, len(start)), len(start)))])
        basis[m - 1] = vector
        image = product(vector)
        diagonal.append(float(torch.dot(image, vector)))
        image = _orthogonal(image, basis[:m])
        beta = float(torch.linalg.vector_norm(image))
        if not np.isfinite(diagonal[-1] + beta):
            raise FloatingPointError("a product with the Hessian is not finite.")
        values, vectors = eigh_tridiagonal(np.array(diagonal), np.array(off))
        scale = np.abs(values).max()
        ends = _ends(m, largest, smallest)
        errors = beta * np.abs(vectors[-1, ends])
        enough = len(ends) == len(wanted) and m >= min(_FEWEST, len(start))
        done = enough and (errors <= tols * np.maximum(np.abs(values[ends]), 1e-3 * scale)).all()
        ended = beta <= 1e-6 * scale  # the space of all products; further eigenvalues lie outside of it
        if ended and restarts < len(wanted) - 1 and m < len(start):
            restarts, beta = restarts + 1, 0.0
            image = _orthogonal(torch.randn_like(start), basis[:m])
        elif done or ended:
            done = True
            break
        off.append(beta)
        vector = image / torch.linalg.vector_norm(image)
    combined = torch.as_tensor(vectors[:, ends].T.copy(), dtype=basis.dtype, device=basis.device)
    return Eigenpairs(values[ends], combined @ basis[:m], bool(done), m)


def _ends(m, largest, smallest):
    """Return positions of the largest, descending, and the smallest, ascending, of m sorted values."""
    return [*range(m - 1, m - 1 - min(largest, m), -1), *range(min(smallest, m))]


def _orthogonal(vector, basis):
    for _ in range(2):  # once leaves what rounding brings back
        vector = vector - basis.T @ (basis @ vector)
    return vector
