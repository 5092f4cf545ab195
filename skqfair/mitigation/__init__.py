"""Cells of the training data, loss weights, samplers, penalties, and offsets of the classes."""

from skqfair.mitigation._cells import BALANCES, make_cells
from skqfair.mitigation._offsets import STRENGTHS, class_offsets, correct_by_strength, drop_by_strength
from skqfair.mitigation._penalties import AccuracyBound, GapPenalty
from skqfair.mitigation._samplers import SAMPLINGS, CellSampler
from skqfair.mitigation._weights import balancing_weights, cell_report

__all__ = [
    "BALANCES",
    "SAMPLINGS",
    "STRENGTHS",
    "AccuracyBound",
    "CellSampler",
    "GapPenalty",
    "balancing_weights",
    "cell_report",
    "class_offsets",
    "correct_by_strength",
    "drop_by_strength",
    "make_cells",
]
