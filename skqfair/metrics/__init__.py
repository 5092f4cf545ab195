"""Accuracy by group: FVO, reports with intervals, scorers and the choice of a model.

Scorers are loaded when they are first used, with scikit-learn, which the reports do without.
"""

from typing import TYPE_CHECKING

from skqfair._lazy import lazily
from skqfair.metrics._change import change_report, excess_accuracy_gap, prediction_flip_rate
from skqfair.metrics._comparison import ModelComparison, compare_models
from skqfair.metrics._frontier import accuracy_frontier
from skqfair.metrics._fvo import fairness_violation_observed
from skqfair.metrics._intervals import ChanceBand
from skqfair.metrics._pooling import has_counts, pooled_report
from skqfair.metrics._report import group_report, model_report
from skqfair.metrics._selection import smallest_within

if TYPE_CHECKING:
    from skqfair.metrics._counts_scorer import fairness_counts_scorer
    from skqfair.metrics._scorers import make_fairness_scorer, model_size_scorer

__all__ = [
    "ChanceBand",
    "ModelComparison",
    "accuracy_frontier",
    "change_report",
    "compare_models",
    "excess_accuracy_gap",
    "fairness_counts_scorer",
    "fairness_violation_observed",
    "group_report",
    "has_counts",
    "make_fairness_scorer",
    "model_report",
    "model_size_scorer",
    "pooled_report",
    "prediction_flip_rate",
    "smallest_within",
]

_LATER = {
    "fairness_counts_scorer": "skqfair.metrics._counts_scorer",
    "make_fairness_scorer": "skqfair.metrics._scorers",
    "model_size_scorer": "skqfair.metrics._scorers",
}

__getattr__, __dir__ = lazily(__name__, __all__, _LATER)
