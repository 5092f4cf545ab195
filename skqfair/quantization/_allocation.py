"""Bits of each layer under a budget: the worst group's predicted loss as small as can be."""

import numbers
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array, hstack, kron

from skqfair.quantization._affine import check_bits

__all__ = ["CHOICES", "allocate_bits", "check_budget"]

CHOICES = (2, 3, 4, 6, 8)
_EXACT_LAYERS = 30
_GAP, _NODES = 1e-2, 1000  # a limit in seconds would give other bits on a busy machine
_CLOSER_LOOKS = 8


def allocate_bits(
    sensitivity: ArrayLike,
    n_weights: ArrayLike,
    *,
    budget: float,
    choices: Sequence[int] = CHOICES,
    return_gap: bool = False,
) -> np.ndarray | tuple[np.ndarray, float]:
    r"""Choose the bits of each layer so that the worst group loses least.

    .. math:: \min_b \max_a \sum_l \Omega_{l, b(l), a} \quad \text{subject to} \quad
              \sum_l n_l b(l) \le B \sum_l n_l

    solved as a mixed-integer linear program. With one group it is the usual allocation by
    sensitivity (HAWQ-V3).

    Parameters
    ----------
    sensitivity : array-like of shape (L, choices, G) or (L, choices)
        :math:`\Omega`: loss increase of each group when this layer alone goes to these bits.
    n_weights : array-like of int, shape (L,)
        Weights of each layer.
    budget : float
        :math:`B`: mean bits per weight, within the choices.
    choices : sequence of int, default=(2, 3, 4, 6, 8)
        Bits to choose from, 2..16, in the order of the second axis of ``sensitivity``.
    return_gap : bool, default=False
        Also return the proven gap to the optimum.

    Returns
    -------
    bits : ndarray of int, shape (L,)
        Bits of each layer. Several allocations can be equally good.
    gap : float
        Proven bound on the relative distance of the objective from the optimum: 0 up to 30 layers;
        beyond that the search ends at 1 % or after 1,000 nodes. Only if ``return_gap``.

    Raises
    ------
    ValueError
        For shapes that do not fit, values that are not finite, or a budget outside the choices.

    References
    ----------
    Yao, Z. et al. (2021). HAWQ-V3: dyadic neural network quantization. ICML.

    Examples
    --------
    Two layers of 100 weights, two groups; the second layer is dear to the second group:

    >>> from skqfair.quantization import allocate_bits
    >>> allocate_bits([[[.1, .1], [.0, .0]], [[.1, .9], [.0, .1]]], [100, 100],
    ...               budget=3, choices=(2, 4))
    array([2, 4])
    """
    omega, n_weights, bits = _checked(sensitivity, n_weights, budget, choices)
    if float(np.ptp(bits)) == 0:
        best, gap = np.zeros(len(omega), dtype=int), 0.0
    else:
        best, gap = _solve(omega, n_weights, float(budget), bits)
        allowed = np.ones(omega.shape[:2], dtype=bool)
        # the tolerances are absolute: leave out what no better solution can have, and look closer
        for _ in range(_CLOSER_LOOKS if len(omega) <= _EXACT_LAYERS else 0):
            narrower = allowed & _possible(omega, best)
            if np.abs(omega[narrower]).max() > 0.1 * np.abs(omega[allowed]).max():
                break
            allowed = narrower
            again, closer = _solve(omega, n_weights, float(budget), bits, allowed)
            if _worst(omega, again) <= _worst(omega, best):
                best, gap = again, closer
    return (bits[best], gap) if return_gap else bits[best]


def _checked(sensitivity, n_weights, budget, choices):
    bits = np.array([check_bits(b, "choices") for b in _sequence(choices)], dtype=np.int64)
    omega = _numbers(sensitivity, "sensitivity")
    omega = omega[:, :, None] if omega.ndim == 2 else omega
    if omega.ndim != 3 or omega.shape[1] != len(bits) or 0 in omega.shape:
        raise ValueError(
            f"sensitivity must have shape (layers, {len(bits)} choices, groups); got "
            f"{np.shape(sensitivity)}."
        )
    if not np.isfinite(omega).all():
        raise ValueError("sensitivity must be finite, got NaN or infinity; has the network diverged?")
    n_weights = _numbers(n_weights, "n_weights")
    if n_weights.shape != omega.shape[:1] or not ((n_weights > 0) & np.isfinite(n_weights)).all():
        raise ValueError(
            f"n_weights must be {len(omega)} positive numbers, one for each layer; got "
            f"{np.array2string(n_weights, threshold=6)}."
        )
    check_budget(budget, bits)
    return omega, n_weights, bits


def check_budget(budget: float, choices: Sequence[int] = CHOICES, name: str = "budget") -> None:
    """Raise unless ``budget`` mean bits per weight are within the choices.

    Parameters
    ----------
    budget : float
        Mean bits per weight.
    choices : sequence of int
        Bits that a layer can have.
    name : str
        Name of the argument, for the message.

    Raises
    ------
    ValueError
        If it is below the smallest or above the largest.
    """
    choices = _sequence(choices)
    if isinstance(budget, bool) or not isinstance(budget, numbers.Real):
        raise ValueError(f"{name} must be a number of mean bits per weight, got {budget!r}.")
    if not min(choices) <= budget <= max(choices):
        raise ValueError(
            f"{name}={budget!r} must be within the choices, {min(choices)} to {max(choices)} mean bits "
            "per weight."
        )


def _numbers(values, name):
    try:
        if np.iscomplexobj(values):
            raise TypeError("they are complex")
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers: {error}") from error


def _sequence(choices):
    found = [] if isinstance(choices, (str, bytes)) or not np.iterable(choices) else list(choices)
    if not found:
        raise ValueError(f"choices must be a sequence of bits, e.g. (2, 4, 8); got {choices!r}.")
    return found


def _worst(omega, chosen):
    return omega[np.arange(len(omega)), chosen].sum(0).max()


def _possible(omega, chosen):
    """Return which choices a solution at least as good as this one can have, shape (L, choices)."""
    least = omega.min(1)
    with_choice = omega + (least.sum(0) - least)[:, None]
    possible = (with_choice <= _worst(omega, chosen) + 1e-12 * np.abs(omega).max()).all(2)
    possible[np.arange(len(omega)), chosen] = True
    return possible


def _solve(omega, n_weights, budget, bits, allowed=None):
    """Solve the linear program over x (layer, choice) in {0, 1} and the worst total t."""
    allowed = np.ones(omega.shape[:2], dtype=bool) if allowed is None else allowed
    omega = np.where(allowed[:, :, None], omega, 0)
    n_layers, n_choices, n_groups = omega.shape
    largest = np.abs(omega).max()
    # the solver's tolerances are absolute: sensitivities of 1e-7 would all look alike
    totals = csr_array((omega / (largest or 1.0)).reshape(-1, n_groups).T)
    column = csr_array(-np.ones((n_groups, 1)))
    one_each = kron(csr_array(np.eye(n_layers)), np.ones((1, n_choices)))
    cost = (n_weights[:, None] * bits / n_weights.sum()).reshape(1, -1)
    n = n_layers * n_choices
    exact = n_layers <= _EXACT_LAYERS
    result: OptimizeResult = milp(
        c=np.append(np.zeros(n), 1.0),
        integrality=np.append(np.ones(n), 0),
        bounds=(np.append(np.zeros(n), -np.inf), np.append(allowed.ravel().astype(float), np.inf)),
        constraints=[
            LinearConstraint(hstack([totals, column]), -np.inf, 0),
            LinearConstraint(hstack([one_each, csr_array((n_layers, 1))]), 1, 1),
            LinearConstraint(hstack([csr_array(cost), csr_array((1, 1))]), -np.inf, budget + 1e-9),
        ],
        options={"mip_rel_gap": 0.0 if exact else _GAP, **({} if exact else {"node_limit": _NODES})},
    )
    if result.x is None:
        raise RuntimeError(f"the allocation of bits failed: {result.message}")
    return result.x[:n].reshape(n_layers, n_choices).argmax(1), float(result.mip_gap or 0.0)
