"""Rounding by what layers get, on the calibration sample of a trained network."""

from functools import partial

import torch

from skqfair._seeding import seeded
from skqfair.quantization import compensate_rounding, convert, float_moments

__all__ = ["compensate", "start_from_codes"]


def compensate(trained, quantized, rows, weights=None, *, inputs="quantized", **options):
    """Return the quantized network rounded again.

    Parameters
    ----------
    trained : TrainedNetwork
        The float network.
    quantized : QuantizedModule
        Rounded to nearest; changed in place.
    rows : ndarray of int
        Positions of the calibration sample.
    weights : ndarray of shape (G,), optional
        Of each group's samples in the errors of layers; all alike without it.
    inputs : {"quantized", "float"}, default="quantized"
        Of which network; those of the float one are cached.
    **options
        ``rounding`` and ``bias_correction``.

    Returns
    -------
    QuantizedModule
        With the new codes.
    """
    network = trained.network

    def passing(rows):
        return partial(network.outputs, trained.X[rows])

    if weights is None:
        run = passing(rows)
    else:
        codes = trained.groups.codes[rows]
        run = [(float(w), passing(rows[codes == group])) for group, w in enumerate(weights)]
    with seeded(trained.seed):
        if inputs == "quantized":
            return compensate_rounding(quantized, network.module, run, **options)
        parts = "float moments", trained.X[rows], None if weights is None else (codes, weights)
        moments = trained.cached(parts, lambda: float_moments(network.module, run))
        return compensate_rounding(quantized, network.module, moments=moments, **options)


def start_from_codes(module, trained, scheme, statistics, rows, rounding):
    """Set the weights of a copy of the float module to those of their codes.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place.
    trained : TrainedNetwork
        The float network.
    scheme : QuantizationScheme
        Widths and scales.
    statistics : dict or None
        Of the inputs of all layers, where inputs are quantized.
    rows : ndarray of int
        Positions of the calibration sample.
    rounding : str
        One of ``ROUNDINGS``.
    """
    quantized = convert(trained.network.module, scheme, statistics)
    quantized = compensate(trained, quantized, rows, rounding=rounding)
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, weight in quantized.weights.items():
            parameters[name].copy_(weight.dequantize())
