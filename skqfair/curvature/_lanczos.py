r"""Extreme eigenvalues of a symmetric map from its products with vectors.

Lanczos with full reorthogonalisation: after m products, :math:`Q_m^\top H Q_m = T_m` is tridiagonal;
its eigenpairs :math:`(\theta, s)` give Ritz pairs :math:`(\theta, Q_m s)` with the residual
:math:`\|H Q_m s - \theta Q_m s\| = \beta_m |s_m|`, and an eigenvalue lies within that distance. One
start reaches one vector of each eigenspace, so that for several eigenvalues the rest is looked through.

References
----------
Parlett, B. N. (1998). The symmetric eigenvalue problem. SIAM.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg.lapack import dstev

__all__ = ["Eigenpairs", "inner", "lanczos", "orthogonal"]

_BUDGET = 2**31  # bytes of the basis
_FEWEST_ROWS = 16  # whatever the budget
_SEED = 86_243  # of further starts, which must not be those of the caller again
_MOST_OF = 0.7  # of a vector's length has to be left for one orthogonalisation to be enough
_PART = 2**14  # numbers that are added up in their own precision
_FEWEST = 5  # products before a start near another eigenvector may count as the largest


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
    tols = tol, tol_smallest or tol
    found = _run(product, start, (largest, smallest), tols, max_iter)
    limited = _rows(start) < min(max_iter, len(start))
    while limited and not found.converged and found.n_products < max_iter:  # the basis was full
        left = max_iter - found.n_products
        again = _run(product, found.vectors.sum(0), (largest, smallest), tols, left)
        found = replace(again, n_products=found.n_products + again.n_products)
    generator = torch.Generator().manual_seed(_SEED + 1)
    while found.converged and max(largest, smallest) > 1 and len(found.values) < len(start):
        found, changed = _looked_through(product, found, (largest, smallest), tols, max_iter, generator)
        if not changed:
            break
    return found


def _looked_through(product, found, counts, tols, max_iter, generator):
    """Return the pairs with what else is as extreme, orthogonal to them, and whether there was any."""
    V, left, n_large = found.vectors, max_iter - found.n_products, min(counts[0], len(found.values))
    if left < 1:
        return replace(found, converged=False), False
    # the last of each end is what another one has to go beyond
    last = [(n_large - 1, 1)] * (counts[0] > 1) + [(len(found.values) - 1, -1)] * (counts[1] > 1)
    limits = np.array([found.values[i] for i, _ in last])
    signs = np.array([sign for _, sign in last])
    start = torch.randn(V.shape[1], generator=generator, dtype=V.dtype).to(V.device)
    scale, ends = np.abs(found.values).max(), tuple(int(count > 1) for count in counts)
    more = _run(product, start, ends, tols, left, found=V, limits=limits, scale=scale)
    values, vectors = found.values.copy(), V.clone()
    beyond = signs * (more.values - limits) > max(tols) * np.maximum(np.abs(limits), 1e-3 * scale)
    for j in np.flatnonzero(beyond):
        values[last[j][0]], vectors[last[j][0]] = more.values[j], more.vectors[j]
    order = [*np.argsort(-values[:n_large]), *(n_large + np.argsort(values[n_large:]))]
    n_products = found.n_products + more.n_products
    return Eigenpairs(values[order], vectors[order], more.converged, n_products), beyond.any()


def _run(product, start, counts, tols, max_iter, *, found=None, limits=None, scale=0.0):
    """Return Eigenpairs from one start, orthogonal to the eigenvectors ``found``.

    With ``limits``, until it is known whether there are any beyond these.
    """
    p = 0 if found is None else len(found)
    n = len(start) - p
    basis = start.new_empty((p + min(max_iter, n, _rows(start)), len(start)))
    if p:
        basis[:p] = found
    wanted = _ends(n, *counts)
    n_large = min(counts[0], n)
    tols = np.array([tols[0]] * n_large + [tols[1]] * (len(wanted) - n_large))
    signs = np.array([1] * n_large + [-1] * (len(wanted) - n_large))
    vector, length = orthogonal(start, basis[:p])
    diagonal, off = [], []
    generator = torch.Generator().manual_seed(_SEED)
    vector, restarts = vector / length, 0
    for m in range(1, len(basis) - p + 1):
        basis[p + m - 1] = vector
        image = product(vector)
        diagonal.append(float(inner(image, vector)))
        image = torch.sub(image, vector, alpha=diagonal[-1])
        if off and off[-1]:
            image.sub_(basis[p + m - 2], alpha=off[-1])
        image, beta = orthogonal(image, basis[: p + m])
        length = beta
        if not np.isfinite(diagonal[-1] + beta):
            raise ValueError(
                "a product with the Hessian is not finite: gradients overflow where the loss does "
                "not; scale the features of X, or use a float64 module."
            )
        values, vectors, _ = dstev(diagonal, off or [0.0])  # scipy's own function takes longer than it
        scale = max(scale, np.abs(values).max())
        ends = _ends(m, *counts)
        errors = beta * np.abs(vectors[-1, ends])
        done = False
        if len(ends) == len(wanted) and m >= min(_FEWEST, n):
            done = (errors <= tols * np.maximum(np.abs(values[ends]), 1e-3 * scale)).all()
            if limits is not None:
                done |= (signs * (values[ends] - limits) + errors <= 0).all()
        ended = beta <= 1e-6 * scale  # the space of all products; further eigenvalues lie outside of it
        if ended and restarts < len(wanted) - 1 and m < n:
            restarts, beta = restarts + 1, 0.0
            image = torch.randn(len(start), generator=generator, dtype=start.dtype)
            image, length = orthogonal(image.to(start.device), basis[: p + m])
        elif done or ended:
            done = True
            break
        off.append(beta)
        vector = image / length
    combined = torch.as_tensor(vectors[:, ends].T.copy(), dtype=basis.dtype, device=basis.device)
    return Eigenpairs(values[ends], combined @ basis[p : p + m], bool(done), m)


def _rows(start):
    """Return how many vectors a basis may have; one that is full begins anew from what it found."""
    return max(_FEWEST_ROWS, _BUDGET // (len(start) * start.element_size()))


def _ends(m, largest, smallest):
    """Return positions of the largest, descending, and the smallest, ascending, of m sorted values."""
    return [*range(m - 1, m - 1 - min(largest, m), -1), *range(min(smallest, m))]


def orthogonal(vector, basis):
    """Return the part of a vector that is orthogonal to the basis, and its length."""
    before = float(inner(vector, vector)) ** 0.5
    for _ in range(2):  # once leaves what rounding brings back, much where little of the vector is left
        vector = torch.addmv(vector, basis.T, inner(basis, vector), alpha=-1)
        length = float(inner(vector, vector)) ** 0.5
        if length > _MOST_OF * before:
            break
    return vector, length


def inner(rows, vector):
    """Return the products of rows with a vector.

    A float32 sum of millions in one go is off by a thousandth, so the sums of parts are added up in
    float64.
    """
    if len(vector) <= _PART:
        return rows @ vector
    found = 0
    for some, part in zip(rows.split(_PART, dim=-1), vector.split(_PART), strict=True):
        found = found + (some @ part).double()
    return found.to(vector.dtype)
