r"""Offsets of the classes that bring groups together: :math:`p'_c \propto p_c \exp(t b_c)`."""

import numpy as np

__all__ = ["STRENGTHS", "class_offsets", "correct_by_strength", "drop_by_strength"]

STRENGTHS = np.linspace(0, 1.2, 121)
_STEPS, _NEAR = 300, 1e-5


def class_offsets(
    probabilities: np.ndarray,
    y: np.ndarray,
    codes: np.ndarray,
    sample_weight: np.ndarray | None = None,
) -> np.ndarray:
    r"""Return the offsets that let the groups' mean probabilities of their own classes meet.

    .. math:: b_c \leftarrow b_c + \eta \sum_k (\bar r - r_k) \, n_{kc} / n_k

    with :math:`r_k` the mean probability of the own class in group k under
    :math:`p_c \exp(b_c) / \sum_{c'} p_{c'} \exp(b_{c'})`, :math:`n_{kc}` its samples of class c, and
    :math:`\bar r` the mean of the :math:`r_k`. The step is :math:`\eta = 2 / \|M\|_2^2`,
    :math:`M_{kc} = n_{kc} / n_k`.

    Parameters
    ----------
    probabilities : ndarray of shape (n, C)
        Probabilities of the classes.
    y : ndarray of int, shape (n,)
        Classes, 0..C-1.
    codes : ndarray of int, shape (n,)
        Groups, 0..G-1, each with samples.
    sample_weight : ndarray of shape (n,), optional
        Weights in all means and counts.

    Returns
    -------
    ndarray of float64, shape (C,)
        Offsets b of mean 0.
    """
    n_classes, n_groups = probabilities.shape[1], int(codes.max()) + 1
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    shares = np.bincount(codes * n_classes + y, weight, n_groups * n_classes)
    shares = shares.reshape(n_groups, n_classes)
    totals = shares.sum(1)
    shares = shares / totals[:, None]
    rate, b = 2 / np.linalg.norm(shares, 2) ** 2, np.zeros(n_classes)
    own = probabilities[np.arange(len(y)), y] * weight
    for _ in range(_STEPS):
        factor = np.exp(b)
        means = np.bincount(codes, own * factor[y] / (probabilities @ factor)) / totals
        step = rate * shares.T @ (means.mean() - means)
        step -= step.mean()  # a shift of all classes changes nothing
        b += step
        if np.abs(step).max() < _NEAR:
            break
    return b


def correct_by_strength(
    logits: np.ndarray,
    y: np.ndarray,
    codes: np.ndarray,
    offsets: np.ndarray,
    strengths: np.ndarray = STRENGTHS,
    sample_weight: np.ndarray | None = None,
) -> np.ndarray:
    r"""Return how much of each group is predicted right at each strength t of the offsets.

    Parameters
    ----------
    logits : ndarray of shape (n, C)
        Logits, or logarithms of probabilities.
    y : ndarray of int, shape (n,)
        Classes.
    codes : ndarray of int, shape (n,)
        Groups, 0..G-1.
    offsets : ndarray of shape (C,)
        Offsets b; predicted is the largest of :math:`z_c + t b_c`.
    strengths : ndarray of shape (T,), ascending
        Strengths t.
    sample_weight : ndarray of shape (n,), optional
        Weights.

    Returns
    -------
    ndarray of float64, shape (T, G)
        Weights of the samples that are right, summed; their number without weights.
    """
    n_groups = int(codes.max()) + 1
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    first, last = ((logits + t * offsets).argmax(1) for t in strengths[[0, -1]])
    # a class is ahead on an interval of t: who has the same one at both ends has it in between
    steady = first == last
    right = steady & (first == y)
    always = np.bincount(codes[right], weight[right], n_groups)
    logits, y, codes, weight = (values[~steady] for values in (logits, y, codes, weight))
    found = np.empty((len(strengths), n_groups))
    for row, t in zip(found, strengths, strict=True):
        right = (logits + t * offsets).argmax(1) == y
        row[:] = always + np.bincount(codes[right], weight[right], n_groups)
    return found


def drop_by_strength(
    logits: np.ndarray,
    y: np.ndarray,
    offsets: np.ndarray,
    strengths: np.ndarray = STRENGTHS,
    sample_weight: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the accuracy that offsets cost at each strength t, and its standard error.

    Paired: :math:`d_i = 1` for a sample that was right without offsets and no longer is, -1 for the
    reverse, 0 otherwise; :math:`d = \sum_i w_i d_i / \sum_i w_i` and
    :math:`s^2 = \sum_i w_i^2 (d_i - d)^2 / (\sum_i w_i)^2`.

    Parameters
    ----------
    logits : ndarray of shape (n, C)
        Logits, or logarithms of probabilities.
    y : ndarray of int, shape (n,)
        Classes.
    offsets : ndarray of shape (C,)
        Offsets b.
    strengths : ndarray of shape (T,), ascending
        Strengths t.
    sample_weight : ndarray of shape (n,), optional
        Weights w.

    Returns
    -------
    drop : ndarray of float64, shape (T,)
        What accuracy is lost, d.
    error : ndarray of float64, shape (T,)
        Its standard error, s.
    """
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    before = logits.argmax(1)
    changed = before != (logits + strengths[-1] * offsets).argmax(1)
    logits, y, before = logits[changed], y[changed], before[changed] == y[changed]
    part, total, squares = weight[changed], weight.sum(), (weight**2).sum()
    drop, error = np.empty((2, len(strengths)))
    for row, t in enumerate(strengths):
        lost = before.astype(np.float64) - ((logits + t * offsets).argmax(1) == y)
        mean = drop[row] = (part * lost).sum() / total
        # the samples that never change have d_i = 0
        spread = (part**2 * ((lost - mean) ** 2 - mean**2)).sum() + mean**2 * squares
        error[row] = np.sqrt(max(spread, 0.0)) / total
    return drop, error
