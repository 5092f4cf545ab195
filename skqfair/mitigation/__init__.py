"""Cells of the training data, loss weights, samplers and penalties."""

from skqfair.mitigation._cells import BALANCES, make_cells
from skqfair.mitigation._penalties import AccuracyBound, GapPenalty
from skqfair.mitigation._samplers import SAMPLINGS, CellSampler
from skqfair.mitigation._weights import balancing_weights, cell_report

__all__ = [
    "BALANCES",
    "SAMPLINGS",
    "AccuracyBound",
    "CellSampler",
    "GapPenalty",
    "balancing_weights",
    "cell_report",
    "make_cells",
]
