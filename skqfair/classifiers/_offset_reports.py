"""What offsets of classes do to whom, in a table and in warnings."""

import numpy as np

from skqfair._warnings import warn
from skqfair.exceptions import LimitedOffsetsWarning
from skqfair.metrics import change_report, group_report

__all__ = ["moved_errors", "warn_of_reach"]


def moved_errors(y, before, after, groups):
    """Return by group whose errors the offsets took away and whose they made."""
    table = change_report(y, before, after, sensitive_features=_features(groups))
    for position, (name, labels) in enumerate((("wrong_before", before), ("wrong_after", after)), 1):
        table.insert(position, name, np.bincount(groups.codes[labels != y], minlength=len(table)))
    return table


def warn_of_reach(clf, gain, y, before, groups):
    """Warn where the groups are not the classes, or no offsets within the drop are better than none."""
    frontier = clf.frontier_
    first, best = frontier.iloc[0], frontier.iloc[int(gain.argmax())]
    chosen = frontier[frontier["strength"] == clf.strength_].iloc[0]
    if not _are_classes(groups, y):
        report = group_report(
            y, before, sensitive_features=_features(groups), random_state=clf.random_state
        )
        message = (
            "the groups are not the classes, and offsets shift classes only: on the fitting part they "
            f"change FVO from {first['fvo']:.3f} to {chosen['fvo']:.3f} within the drop, and to "
            f"{frontier['fvo'].min():.3f} at best at any price; chance alone would show "
            f"{report.attrs['fvo_chance'].mean:.3f}. FairQATClassifier has mitigations that act on "
            "groups."
        )
    elif clf.strength_ == 0 and gain.max() > gain.iloc[0]:
        message = (
            f"no offsets within max_accuracy_drop={clf.max_accuracy_drop} are better than none, which "
            f"are kept: FVO {first['fvo']:.3f}, worst group {first['worst_accuracy']:.3f}. The best of "
            f"any strength have FVO {best['fvo']:.3f} and worst group {best['worst_accuracy']:.3f} for "
            f"{first['accuracy'] - best['accuracy']:.3f} of accuracy; see frontier_."
        )
    else:
        return
    warn(message, LimitedOffsetsWarning)


def _features(groups):
    """Return the group names of the samples."""
    return groups.index.to_frame(index=False).iloc[groups.codes].reset_index(drop=True)


def _are_classes(groups, y):
    """Tell whether the groups are the classes, but for their names."""
    labels, classes = np.unique(y, return_inverse=True)
    pairs = np.unique(np.column_stack([groups.codes, classes]), axis=0)
    return len(pairs) == len(groups.index) == len(labels)
