r"""Loss weights that balance cells: :math:`(n / (K n_a))^\lambda`, mean 1."""

import numpy as np
import pandas as pd

from skqfair._groups import Groups
from skqfair._validation import relative_weights

__all__ = ["balancing_weights", "cell_report"]


def balancing_weights(
    cells: Groups, strength: float, sample_weight: np.ndarray | None = None
) -> np.ndarray:
    r"""Return the loss weight of each sample.

    .. math:: w_i \propto s_i \left(\frac{n}{K n_a}\right)^\lambda

    for a sample of cell a among K cells, with the user's own weights :math:`s_i`,
    :math:`n_a = \sum_{i \in a} s_i` and :math:`n = \sum_a n_a`.

    Parameters
    ----------
    cells : Groups
        The partition.
    strength : float
        :math:`\lambda` in [0, 1]: 0 leaves the samples as they are, 1 lets every cell count equally.
    sample_weight : ndarray of shape (n,), optional
        The user's weights.

    Returns
    -------
    ndarray of float64, shape (n,)
        Weights of mean 1; a cell whose weights are all 0 keeps 0.

    References
    ----------
    Kamiran, F. & Calders, T. (2012). Data preprocessing techniques for classification without
    discrimination. Knowledge and Information Systems 33.
    """
    own = np.ones(len(cells.codes)) if sample_weight is None else relative_weights(sample_weight)
    totals = np.bincount(cells.codes, weights=own, minlength=len(cells.index))
    counted = totals > 0
    factor = np.zeros(len(totals))
    factor[counted] = (totals.sum() / (counted.sum() * totals[counted])) ** strength
    weights = own * factor[cells.codes]
    return weights / weights.mean()


def cell_report(cells: Groups, weights: np.ndarray | None, draws: np.ndarray) -> pd.DataFrame:
    """Return what each cell counts in the training.

    Parameters
    ----------
    cells : Groups
        The partition.
    weights : ndarray of shape (n,) or None
        Loss weight of each sample; None is 1.
    draws : ndarray of shape (K,)
        Samples of each cell in an epoch, expected.

    Returns
    -------
    DataFrame
        By cell: ``count`` of samples; ``draws`` in an epoch; mean ``loss_weight`` of a sample; and
        ``effective_weight``, what a sample of the cell counts in an epoch relative to the average
        sample: draws per sample times loss weight, mean 1 over the samples.
    """
    counts = cells.counts
    weights = np.ones(len(cells.codes)) if weights is None else relative_weights(weights)
    weights = weights / weights.mean()
    mean = np.bincount(cells.codes, weights=weights, minlength=len(counts)) / counts
    effective = draws / counts * mean
    return pd.DataFrame(
        {
            "count": counts,
            "draws": np.asarray(draws, dtype=np.float64),
            "loss_weight": mean,
            "effective_weight": effective * counts.sum() / (effective * counts).sum(),
        },
        index=cells.index,
    )
