r"""Rounding that minds the group that loses most: its samples weigh more in the errors of layers.

The codes of one round minimise each layer's error over the groups' samples with the weights
:math:`w_g`. The loss of each group on the calibration sample then says whose weight rises,

.. math:: w_g \leftarrow w_g \exp\Big(\eta\, \frac{\Delta_g - \bar\Delta}{\max_h
          |\Delta_h - \bar\Delta|}\Big), \qquad \Delta_g = L_g(\hat W) - L_g(W),

multiplicative weights, as in group DRO. The round whose worst group loses least is kept; the first has
equal weights, so that none does worse than they on this sample.

References
----------
Sagawa, S. et al. (2020). Distributionally robust neural networks. ICLR.
"""

import copy

import numpy as np

from skqfair._losses import group_means
from skqfair.classifiers._layer_bits import losses
from skqfair.classifiers._rounding import compensate

__all__ = ["check_minimax", "compensate_worst_group"]

ROUNDS = 5
_STEP = 0.5


def check_minimax(rounding, bias_correction, sensitive_features):
    """Raise unless there are groups, and a rule that looks at their samples.

    Parameters
    ----------
    rounding : str
        One of ``ROUNDINGS``.
    bias_correction : bool
        Whether biases are corrected.
    sensitive_features : array-like or None
        Groups.

    Raises
    ------
    ValueError
        With the remedy.
    """
    if sensitive_features is None:
        raise ValueError(
            "calibration_groups='minimax' must know the groups whose losses it compares, and "
            "sensitive_features is None; pass fit(X, y, sensitive_features=...), or set "
            "calibration_groups='balanced'."
        )
    if rounding == "nearest" and not bias_correction:
        raise ValueError(
            "calibration_groups='minimax' changes how weights are rounded, and rounding='nearest' looks "
            "at no sample; set rounding='least_squares' or 'gptq', or calibration_groups='balanced'."
        )


def compensate_worst_group(trained, quantized, rows, **options):
    """Return the quantized network rounded again, so that the worst group loses least.

    Parameters
    ----------
    trained : TrainedNetwork
        The float network, with groups.
    quantized : QuantizedModule
        Rounded to nearest; not changed.
    rows : ndarray of int
        Positions of the calibration sample, which has samples of each group.
    **options
        ``rounding`` and ``bias_correction``.

    Returns
    -------
    QuantizedModule
        Of the round whose worst group loses least on the calibration sample.
    """
    X, y, codes = trained.X[rows], trained.y[rows], trained.groups.codes[rows]

    def by_group(module):
        return group_means(losses(trained.network, module, X, y), codes)

    before = by_group(trained.network.module)
    weights, best, least = np.ones(len(before)), None, np.inf
    for _ in range(ROUNDS):
        rounded = compensate(trained, copy.deepcopy(quantized), rows, weights, **options)
        increase = by_group(rounded.module) - before
        if best is None or increase.max() < least:
            best, least = rounded, increase.max()
        lead = increase - increase.mean()
        if not lead.any():
            break
        weights *= np.exp(_STEP * lead / np.abs(lead).max())
        weights *= len(weights) / weights.sum()
    return best
