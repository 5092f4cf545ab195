"""Cells of the training data, loss weights and samplers; numpy only."""

from skqfair.mitigation._cells import BALANCES, make_cells
from skqfair.mitigation._samplers import SAMPLINGS, CellSampler
from skqfair.mitigation._weights import balancing_weights, cell_report

__all__ = [
    "BALANCES",
    "SAMPLINGS",
    "CellSampler",
    "balancing_weights",
    "cell_report",
    "make_cells",
]
