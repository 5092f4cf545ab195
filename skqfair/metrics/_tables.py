"""The columns of reports, from samples and outcomes."""

import numpy as np
import pandas as pd

from skqfair._warnings import warn
from skqfair.metrics._counts import tally
from skqfair.metrics._estimates import paired_interval, proportion_change, range_change_interval
from skqfair.metrics._intervals import (
    equal_accuracy_draws,
    equal_accuracy_p,
    exact_interval,
    fvo_chance,
    fvo_interval,
)
from skqfair.metrics._measures import ACCURACY

__all__ = ["change_table", "difference", "group_name", "group_names", "group_table", "model_row"]


def group_table(samples, outcome, measures, confidence, random_state):
    """Return count, accuracy and measures of each group, and FVO beside them; see group_report."""
    counts = tally(outcome.correct, samples.groups, samples.weights)
    level = 1 - (1 - confidence) / samples.n_groups
    low, high = exact_interval(counts.accuracy, counts.effective, level)
    draws = equal_accuracy_draws(counts, random_state=random_state)
    chance, p = fvo_chance(draws, confidence=confidence), equal_accuracy_p(counts, draws)
    interval = fvo_interval(low, high)
    columns = {
        "count": counts.count,
        "accuracy": counts.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "fvo": counts.fvo,
        "fvo_low": interval[0],
        "fvo_high": interval[1],
        "fvo_chance": chance.quantile,
        "equal_accuracy_p": p,
    }
    for measure in measures:
        estimate = _by_group(measure, samples, outcome)
        _warn_missing(measure.name, samples, estimate.value)
        _add(columns, _estimate_columns(measure, estimate, level), measure)
    table = pd.DataFrame(columns, index=samples.groups.index)
    table.attrs.update(
        fvo=counts.fvo,
        fvo_interval=interval,
        fvo_chance=chance,
        equal_accuracy_p=p,
        confidence=confidence,
    )
    return table


def _by_group(measure, samples, outcome):
    """Return the figure of each group, computed once for the tables that need it."""
    key = "by_group", measure
    if key not in outcome.memory:
        outcome.memory[key] = measure.by_group(samples, outcome)
    return outcome.memory[key]


def _estimate_columns(measure, estimate, level):
    name, (low, high) = measure.name, estimate.interval(level)
    bounds = fvo_interval(low, high)
    return {
        name: estimate.value,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_count": estimate.count,
        f"{name}_difference": difference(estimate.value),
        f"{name}_difference_low": bounds[0],
        f"{name}_difference_high": bounds[1],
    }


def _warn_missing(name, samples, value):
    """Warn of groups in which a measure is undefined."""
    missing = ~np.isfinite(value)
    if missing.any():
        from sklearn.exceptions import UndefinedMetricWarning  # takes a second to load

        groups = "; ".join(str(group_name(group)) for group in samples.groups.index[missing])
        warn(
            f"{name} is undefined in the group(s) {groups}, and NaN there.",
            UndefinedMetricWarning,
        )


def difference(values):
    """Return the largest less the smallest value; NaN if one is, 0 for one group."""
    return float(np.ptp(values)) if len(values) > 1 else 0.0


def change_table(samples, before, after, measures, confidence):
    """Return what changed in each group, and how FVO did; see change_report."""
    lost, gained = before.correct & ~after.correct, after.correct & ~before.correct
    if samples.weights is None:
        weights = None
        total = samples.groups.counts
    else:
        weights = samples.weights
        total = np.bincount(samples.groups.codes, weights)
    sums = [_count(samples, event, weights) for event in (lost, gained)]
    columns = {"count": samples.groups.counts, "lost": sums[0], "gained": sums[1]}
    for measure in (ACCURACY, *measures):
        _add(columns, _change_columns(measure, samples, before, after, confidence), measure)
    table = pd.DataFrame(columns, index=samples.groups.index)
    table.attrs.update(change=float((sums[1] - sums[0]).sum() / total.sum()), confidence=confidence)
    return table


def _count(samples, event, weights):
    """Return the samples of an event in each group, or their weights."""
    codes = samples.groups.codes[event]
    return np.bincount(codes, None if weights is None else weights[event], samples.n_groups)


def _change_columns(measure, samples, before, after, confidence):
    """Return the change of a measure, and of its largest difference between two groups."""
    own = measure is ACCURACY
    name, spread = ("", "fvo") if own else (f"{measure.name}_", f"{measure.name}_difference")
    change = (
        proportion_change(samples, before.correct, after.correct)
        if own
        else measure.change(samples, before, after)
    )
    low, high = change.interval(1 - (1 - confidence) / samples.n_groups)
    old, new = (_by_group(measure, samples, outcome) for outcome in (before, after))
    # half of the error for the changes, a quarter for the levels before and after
    half, quarter = (1 - (1 - confidence) / share / samples.n_groups for share in (2, 4))
    least, most = range_change_interval(
        old.interval(quarter), change.interval(half), new.interval(quarter)
    )
    return {
        f"{name}change": change.value,
        f"{name}change_low": low,
        f"{name}change_high": high,
        f"{spread}_change": difference(new.value) - difference(old.value),
        f"{spread}_change_low": least,
        f"{spread}_change_high": most,
    }


def model_row(samples, base, outcome, measures, groups, changes):
    """Return the figures of one model against the reference; see model_report."""
    attrs = groups.attrs
    accuracy = ACCURACY.overall(samples, outcome)
    weights, confidence = samples.weights, attrs["confidence"]
    n = len(samples.labels) if weights is None else weights.sum() ** 2 / np.square(weights).sum()
    flips = float(np.average(base.labels != outcome.labels, weights=weights))
    shares = np.array([accuracy, flips])
    low, high = (bounds.tolist() for bounds in exact_interval(shares, n, confidence))
    total = len(samples.labels) if weights is None else weights.sum()
    lost, gained = (changes[name].sum() / total for name in ("lost", "gained"))
    excess = (changes.attrs["change"] - changes["change"]).clip(lower=0)
    hit = excess.index[excess >= excess.max() - 1e-12] if excess.any() else []
    row = {
        "accuracy": accuracy,
        "accuracy_low": low[0],
        "accuracy_high": high[0],
        "fvo": attrs["fvo"],
        "fvo_low": attrs["fvo_interval"][0],
        "fvo_high": attrs["fvo_interval"][1],
        "fvo_chance": attrs["fvo_chance"].quantile,
        "equal_accuracy_p": attrs["equal_accuracy_p"],
        "worst_group": group_name(groups["accuracy"].idxmin()),
        "worst_accuracy": float(groups["accuracy"].min()),
        "flip_rate": flips,
        "flip_rate_low": low[1],
        "flip_rate_high": high[1],
        "accuracy_change": changes.attrs["change"],
        **_bounds("accuracy_change", paired_interval(gained * n, lost * n, n, confidence)),
        "excess_accuracy_gap": float(excess.max()),
        **_bounds("excess_accuracy_gap", _excess_interval(samples, changes)),
        "excess_group": group_names(hit),
        **changes.iloc[0][["fvo_change", "fvo_change_low", "fvo_change_high"]],
    }
    for measure in measures:
        gap = f"{measure.name}_difference"
        _add(row, {measure.name: measure.overall(samples, outcome)}, measure)
        _add(row, dict(groups.iloc[0][[gap, f"{gap}_low", f"{gap}_high"]]), measure)
        changed = changes.iloc[0][[f"{gap}_change", f"{gap}_change_low", f"{gap}_change_high"]]
        _add(row, dict(changed), measure)
    if outcome is base:  # against itself nothing changes, and that is sure
        compared = [*_COMPARED, *(f"{measure.name}_difference_change" for measure in measures)]
        row |= {f"{name}{end}": 0.0 for name in compared for end in ("", "_low", "_high")}
    return row


_COMPARED = ("flip_rate", "excess_accuracy_gap", "accuracy_change", "fvo_change")


def _add(columns, more, measure):
    """Add the columns of a measure to those that are there, under names of their own."""
    if twice := sorted(columns.keys() & more.keys()):
        raise ValueError(
            f"metrics: {measure.name!r} would be a second column {twice[0]!r} of the reports; give it "
            "another name, e.g. metrics={'my_metric': metric}."
        )
    columns.update(more)


def _bounds(name, interval):
    return {f"{name}_low": float(interval[0]), f"{name}_high": float(interval[1])}


def _excess_interval(samples, changes):
    """Return the extremes of the excess gap over the simultaneous intervals of the groups' losses.

    The excess of a group is its loss less the mean loss, (1 - w) of its own less the others' shares.
    """
    share = np.bincount(samples.groups.codes, samples.weights, samples.n_groups)
    share = share / share.sum()
    least, most = -changes["change_high"].to_numpy(), -changes["change_low"].to_numpy()
    low = (1 - share) * least - (share @ most - share * most)
    high = (1 - share) * most - (share @ least - share * least)
    return max(0.0, low.max()), max(0.0, high.max())


def group_names(groups):
    """Return the name of the group, of several at the same value all of them."""
    if len(groups) == 1:
        return group_name(groups[0])
    return " and ".join(str(group_name(group)) for group in groups)


def group_name(group):
    """Return the name of a group, the parts of an intersection joined by commas."""
    return ", ".join(map(str, group)) if isinstance(group, tuple) else group
