"""The mitigations of a classifier, made ready for the fine-tuning."""

import numpy as np
import pandas as pd

from skqfair._losses import group_means
from skqfair._warnings import warn
from skqfair.classifiers._layer_bits import losses
from skqfair.exceptions import AccuracyBoundWarning, CompoundedMitigationWarning, SmallCellWarning
from skqfair.mitigation import AccuracyBound, CellSampler, GapPenalty, balancing_weights, make_cells

__all__ = [
    "Validation",
    "bound_report",
    "build_penalties",
    "check_mitigations",
    "expected_draws",
    "hold_out",
    "loss_weights",
]


def check_mitigations(clf, sensitive_features):
    """Raise if groups are needed and not there; warn if two mitigations compound."""
    balanced = clf.sampling is not None or clf.mitigation_weight > 0
    needing = {
        f"balance={clf.balance!r}": balanced and clf.balance != "class",
        f"gap_penalty={clf.gap_penalty}": clf.gap_penalty > 0,
        f"accuracy_bound={clf.accuracy_bound}": clf.accuracy_bound is not None,
    }
    for parameter, active in needing.items():
        if active and sensitive_features is None:
            raise ValueError(
                f"{parameter} needs groups: pass sensitive_features to fit"
                + (', or set balance="class".' if "balance" in parameter else ".")
            )
    if clf.sampling is not None and clf.mitigation_weight > 0:
        warn(
            f"sampling={clf.sampling!r} and mitigation_weight={clf.mitigation_weight} balance the "
            "same cells, so small cells count more than equally; see cell_weights_, or use one.",
            CompoundedMitigationWarning,
        )


def hold_out(clf, y, groups, seed):
    """Return the mask of the validation samples, drawn from each class of each group."""
    balance = "class" if groups is None else "group_class"
    cells = make_cells(balance, y, np.arange(y.max() + 1), groups)
    rng, out = np.random.default_rng(seed), np.zeros(len(y), dtype=bool)
    for cell in range(len(cells.index)):
        rows = rng.permutation(np.flatnonzero(cells.codes == cell))
        out[rows[: min(len(rows) - 1, round(clf.validation_fraction * len(rows)))]] = True
    if not out.any():
        raise ValueError(
            f"validation_fraction={clf.validation_fraction} leaves nothing to validate on: the "
            "cells of group and class are too small. Give a larger fraction, or None."
        )
    return out


def loss_weights(clf, trained, cells):
    """Return the loss weight of each sample, None if there are none."""
    balanced = clf.sampling is not None or clf.mitigation_weight > 0
    if balanced and (alone := cells.index[cells.counts == 1]).size:
        warn(
            f"balance={clf.balance!r}: the cells {alone.tolist()} have a single sample; merge "
            "them with others, or choose a coarser balance.",
            SmallCellWarning,
        )
    if clf.mitigation_weight == 0:
        return trained.sample_weight
    return balancing_weights(cells, clf.mitigation_weight, trained.sample_weight)


def expected_draws(clf, cells):
    """Return how many samples of each cell an epoch takes."""
    if clf.sampling is None:
        return cells.counts
    return np.full(len(cells.index), CellSampler(cells.codes, clf.sampling, 0).expected)


def build_penalties(clf, trained):
    """Return the terms that are added to the loss."""
    penalties = []
    if clf.gap_penalty > 0:
        penalties.append(GapPenalty(clf.gap_penalty, len(trained.groups.index)))
    if clf.accuracy_bound is not None:
        accuracies = _accuracies(trained, trained.network.module)
        penalties.append(AccuracyBound(clf.accuracy_bound, accuracies, trained.groups.counts))
    return penalties


def bound_report(clf, trained, bound):
    """Return what the constraints came to on the training data, and warn of broken ones."""
    before = bound.reference.numpy()
    after = _accuracies(trained, clf.module_)
    report = pd.DataFrame(
        {
            "float_accuracy": before,
            "accuracy": after,
            "drop": before - after,
            "multiplier": bound.multipliers.numpy(),
        },
        index=trained.groups.index,
    )
    broken = report.index[report["drop"] > clf.accuracy_bound]
    if len(broken):
        warn(
            f"accuracy_bound={clf.accuracy_bound} is not kept on the training data by "
            f"{broken.tolist()} (see accuracy_bound_); allow more bits or finetune_epochs.",
            AccuracyBoundWarning,
        )
    return report


class Validation:
    """Losses on the samples that were held out; each group counts equally."""

    def __init__(self, trained):
        self.network, (self.X, self.y, self.groups) = trained.network, trained.held_out

    def __call__(self, module):
        """Return the records of an epoch."""
        each = losses(self.network, module, self.X, self.y)
        codes = np.zeros(len(each), int) if self.groups is None else self.groups.codes
        means = group_means(each, codes)
        return {
            "validation_loss": float(means.mean()),
            "validation_worst_group_loss": float(means.max()),
        }


def _accuracies(trained, module):
    """Return the accuracy of each group on the training data."""
    predicted = trained.network.outputs(trained.X, module).argmax(1).numpy()
    return group_means(predicted == trained.y, trained.groups.codes)
