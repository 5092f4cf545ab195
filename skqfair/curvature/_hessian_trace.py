r"""The trace of the Hessian of a group's loss, exact or from random probes.

For logits z that are piecewise linear in every single weight tensor the second derivatives of z do not
enter the trace, and with cross-entropy

.. math:: \mathrm{tr}\, \nabla^2 J = \frac 1n \sum_i \mathrm{tr}\left( J_i^\top
          (\mathrm{diag}(p_i) - p_i p_i^\top) J_i \right) = \frac 1n \sum_i \sum_c
          \left\| J_i^\top l_{ic} \right\|^2

with J the Jacobian of the logits and :math:`l_{ic}` the C - 1 columns of a Cholesky factor: norms of
per-sample gradients, without probes.

References
----------
Tanabe, K. & Sagae, M. (1992). An exact Cholesky decomposition and the generalized inverse of the
variance-covariance matrix of the multinomial distribution. J. R. Stat. Soc. B.
Epperly, E. N., Tropp, J. A. & Webber, R. J. (2024). XTrace: making the most of every sample in
stochastic trace estimation. SIAM J. Matrix Anal. Appl.
"""

import numpy as np
import torch
from torch import nn

from skqfair.curvature._group_losses import Problem, evaluating, on_a_copy
from skqfair.curvature._hessian import Hessian
from skqfair.curvature._lanczos import inner, orthogonal
from skqfair.curvature._per_sample import LayerCalls, closed_form_holds
from skqfair.curvature._second_derivative import check_second_derivative, in_double

__all__ = ["group_hessian_trace", "group_trace", "trace_method"]

_PROBES = 16
_DEPENDENT = 1e-6  # of the largest: a direction that adds nothing
_SPREAD = 1.5  # times the leave-one-out error: it then held 95 % of six spectra, see the tests


def group_hessian_trace(
    module,
    X,
    y,
    groups,
    *,
    method="auto",
    criterion=None,
    batch_size=None,
    return_method=False,
    return_error=False,
):
    r"""Return the trace of the Hessian of each group's mean loss.

    .. math:: \mathrm{tr}\, \nabla_\theta^2 J_a(\theta), \quad
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
    method : {"auto", "exact", "stochastic"}, default="auto"
        "exact" holds for cross-entropy and networks that are piecewise linear in each weight tensor
        (ReLU, pooling, BatchNorm in eval mode; no layer used twice); "stochastic" is XTrace with 32
        Hessian-vector products, or one for each weight where there are at most 96, which is exact;
        "auto" asks the network which holds.
    criterion : torch.nn.Module or callable, optional
        ``(outputs, targets) -> loss``; None is cross-entropy, ``BCEWithLogitsLoss()`` is for modules
        of one logit. Its ``reduction`` is set aside.
    batch_size : int, optional
        Samples at a time; None takes as many as fit into memory.
    return_method : bool, default=False
        Also return which method was taken.
    return_error : bool, default=False
        Also return standard errors.

    Returns
    -------
    traces : ndarray of float64, shape (G,)
        In the sorted order of the group labels.
    method : str
        "exact" or "stochastic", if asked for.
    errors : ndarray of float64, shape (G,)
        Standard errors of the estimates, 0 where they are exact, if asked for: those of XTrace's 16
        leave-one-out estimates times 1.5, for these share probes and differ too little.

    Raises
    ------
    ValueError
        For bad input, or for ``method="exact"`` where it does not hold.
    skqfair.exceptions.DoubleBackwardError
        If torch has no right second derivative of the module, as finite differences say.

    Notes
    -----
    Whether the network is piecewise linear is measured: the second derivative of its logits along a
    random direction in each weight tensor, in float64 on a few samples, is 0 or is not. A part that
    is the same for all classes does not matter to cross-entropy, so that a final softmax is allowed.

    References
    ----------
    Epperly, E. N., Tropp, J. A. & Webber, R. J. (2024). XTrace: making the most of every sample in
    stochastic trace estimation. SIAM J. Matrix Anal. Appl.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skqfair.diagnostics import group_hessian_trace
    >>> module = torch.nn.Linear(1, 2, bias=False)
    >>> _ = torch.nn.init.zeros_(module.weight)
    >>> X, y = np.array([[1.0], [2.0], [3.0]]), [0, 1, 0]
    >>> group_hessian_trace(module, X, y, ["a", "a", "b"]).round(3)
    array([1.25, 4.5 ])
    """
    if method not in ("auto", "exact", "stochastic"):
        raise ValueError(f"method must be 'auto', 'exact' or 'stochastic', got {method!r}.")
    problem = Problem(module, X, y, groups, criterion=criterion, batch_size=batch_size)
    with on_a_copy(problem) as own:
        check_second_derivative(own)
        holds = method != "stochastic" and trace_method(own) == "exact"
        if method == "exact" and not holds:
            raise ValueError(
                f"method='exact' does not hold for {type(module).__name__}: it needs cross-entropy and "
                "logits that are piecewise linear in each weight tensor; use method='auto'."
            )
        method = "exact" if holds else "stochastic"
        found = [group_trace(own, rows, method) for rows in own.members()]
    traces, errors = np.array(found).T.copy()
    if not return_method and not return_error:
        return traces
    return (traces, *([method] if return_method else []), *([errors] if return_error else []))


def group_trace(problem, rows, method, hessian=None):
    """Return the trace of the Hessian of the mean loss of some rows.

    Parameters
    ----------
    problem : Problem
        Inside :func:`evaluating`.
    rows : array of int
        Which samples.
    method : str
        "exact" or "stochastic".
    hessian : Hessian, optional
        Of these rows, if it is there already.

    Returns
    -------
    trace, error : float
        Exact or estimated, and its standard error.
    """
    if method == "exact":
        return _exact(problem, rows), 0.0
    return _xtrace(Hessian(problem, rows) if hessian is None else hessian)


def trace_method(problem):
    """Return which trace holds for a network.

    Parameters
    ----------
    problem : Problem
        Inside :func:`evaluating`; it remembers the answer.

    Returns
    -------
    str
        "exact" if the trace needs no probes, else "stochastic".
    """
    if problem.trace_method is None:
        exact = (
            _is_cross_entropy(problem.criterion) and closed_form_holds(problem) and _is_linear(problem)
        )
        problem.trace_method = "exact" if exact else "stochastic"
    return problem.trace_method


def _is_cross_entropy(criterion):
    return criterion is None or type(criterion) is nn.CrossEntropyLoss


def _is_linear(problem):
    """Whether the second derivative of the logits is 0 along each weight tensor, in every group."""
    double = in_double(problem)
    if double is None:
        return False
    generator = torch.Generator().manual_seed(0)
    try:
        with evaluating(double.module):
            for rows in double.members():
                for some in double.batches(rows, double=True):
                    if not _is_linear_for(double, some, generator):
                        return False
    except (RuntimeError, TypeError, ValueError):  # cannot be differentiated twice
        return False
    return True


def _is_linear_for(problem, rows, generator):
    def random(like):
        return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)

    outputs = problem.outputs(rows)
    if outputs.ndim != 2:  # e.g. logits for every position
        return False
    weights = random(outputs)
    # what all logits share does not change a softmax
    total = (outputs * (weights - weights.mean(1, keepdim=True))).sum()
    options = {"allow_unused": True, "materialize_grads": True}
    first = torch.autograd.grad(total, problem.parameters, create_graph=True, **options)
    for p, g in zip(problem.parameters, first, strict=True):
        if not g.requires_grad:
            continue
        direction = random(p)
        along = (g * direction).sum()
        (second,) = torch.autograd.grad(along, p, retain_graph=True, **options)
        if second.norm() > 1e-9 * (1 + g.norm() * direction.norm()):
            return False
    return True


def _exact(problem, rows):
    total, batches = 0.0, problem.batches(rows)
    with LayerCalls(problem) as layers:
        for some in batches:
            outputs = problem.outputs(some)
            problem.losses(some, outputs.detach())  # raises where one is not finite
            mass = _mass(problem, some, outputs.detach())
            columns = _cholesky(outputs.detach())
            for c, column in enumerate(columns):
                squares = layers.square_norms(outputs, column, keep=c < len(columns) - 1)
                total += float((squares * mass).double().sum())
            layers.forget()
    return total / len(rows)


def _mass(problem, rows, logits):
    """Return the sums of the targets' weights: 1, but for class weights or ignored samples.

    Cross-entropy is -sum_c t_c log p_c, for whatever t, and its Hessian by the logits is that of t with
    the sum 1 times the sum of t. Equal logits give the loss log C times that sum.
    """
    n_classes = logits.shape[1]
    if n_classes == 1:
        return torch.ones_like(logits[:, 0])
    return problem.sample_losses(torch.zeros_like(logits), problem.y[rows]) / np.log(n_classes)


def _cholesky(logits):
    """Return the C - 1 columns of a factor of diag(p) - p p', each of shape (n, C)."""
    p = logits.double().softmax(1)
    rest = p.flip(1).cumsum(1).flip(1)  # p_c and all after it
    tiny = torch.finfo(p.dtype).tiny
    columns = []
    for c in range(p.shape[1] - 1):
        after = rest[:, c + 1]
        column = torch.zeros_like(p)
        column[:, c] = (p[:, c] * after / rest[:, c].clamp_min(tiny)).sqrt()
        factor = (p[:, c] / (rest[:, c] * after).clamp_min(tiny)).sqrt()
        column[:, c + 1 :] = -p[:, c + 1 :] * factor[:, None]
        columns.append(column.to(logits.dtype))
    return columns


def _xtrace(hessian, n_probes=_PROBES):
    """Estimate the trace with ``2 * n_probes`` products, and its error; up to 3 times these, exactly."""
    like = hessian.gradient
    n = len(like)
    if n <= 6 * n_probes:
        return float(sum(hessian(row)[i] for i, row in enumerate(torch.eye(n).to(like)))), 0.0
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(n_probes, n, generator=generator).to(like)
    for probe in probes:
        probe *= (n / float(inner(probe, probe))) ** 0.5
    Q, R = _orthonormal_images(hessian, probes)
    # the images of Q are not kept: of many weights they would take gigabytes
    H, PA = torch.empty_like(R), torch.empty_like(R)
    for j, row in enumerate(Q):
        image = hessian(row)
        H[:, j], PA[:, j] = inner(Q, image), inner(probes, image)
    scale = R.diagonal().abs()
    if scale.min() <= _DEPENDENT * scale.max():  # Q spans all that the Hessian reaches
        return float(H.trace()), 0.0
    S = torch.linalg.solve(R.T, torch.eye(n_probes).to(R))
    S = S / S.norm(dim=0)  # the direction in Q that probe i alone contributes
    PQ = torch.stack([inner(probes, row) for row in Q], 1).double()
    H, PA, R, S = H.double(), PA.double(), R.double(), S.double()
    W = PQ.T - S * (S * PQ.T).sum(0)
    # what is apart from Q without probe i, p - Q w, times its image, Q r - A w
    rest = (PQ @ R).diagonal() - (PA @ W).diagonal() - (W * R).sum(0) + (W * (H @ W)).sum(0)
    rest = rest * (n - n_probes + 1) / (n - 2 * (W * PQ.T).sum(0) + W.square().sum(0))
    each = H.trace() - (S * (H @ S)).sum(0) + rest
    return float(each.mean()), _SPREAD * float(each.std()) / n_probes**0.5


def _orthonormal_images(hessian, probes):
    """Return orthonormal rows that span the images of the probes, and the images by them.

    A row that adds nothing is 0.
    """
    Q = torch.empty_like(probes)
    R = probes.new_zeros(len(probes), len(probes))
    for i, probe in enumerate(probes):
        image = hessian(probe)
        rest, length = orthogonal(image, Q[:i])
        R[:i, i], R[i, i] = inner(Q[:i], image), length
        Q[i] = rest / length if length > _DEPENDENT * float(R.diagonal().max()) else 0
    return Q, R
