"""What an audit says in words, by rules that read the tables."""

import pandas as pd

__all__ = ["name_of", "write_verdicts"]

_NAMED = 5  # groups in a sentence


def write_verdicts(audit):
    """Return the sentences of an audit.

    A gap is established where the interval of FVO excludes 0 or the test of equal accuracy rejects; a
    change where its simultaneous interval excludes 0.
    """
    compressed = [name for name in audit.models.index if name != audit.reference]
    sentences = [_gap(audit, name) for name in audit.models.index]
    for name in compressed:
        sentences += [_losers(audit, name), _widening(audit, name), *_others(audit, name)]
    return sentences + _cautions(audit, compressed)


def name_of(group):
    """Return the name of a group as text, the parts of an intersection joined by a cross."""
    return " × ".join(map(str, group)) if isinstance(group, tuple) else str(group)


def _points(value, sign=""):
    return f"{100 * value:{sign}.1f}"


def _gap(audit, name):
    row = audit.models.loc[name]
    accuracies = audit.groups.loc[[name], "accuracy"].droplevel(0)
    right = f"{name}: accuracy {_points(row['accuracy'])} %"
    if len(accuracies) < 2:
        return f"{right}; one group only, so nothing can be said of a gap."
    established = row["fvo_low"] > 0 or row["equal_accuracy_p"] <= 1 - audit.confidence
    said = (
        f"an accuracy gap between groups is {'' if established else 'not '}established: FVO "
        f"{_points(row['fvo'])} points ({_points(row['fvo_low'])} to {_points(row['fvo_high'])}), p of "
        f"equal accuracy {'at most ' if row['equal_accuracy_p'] <= 0.001 else ''}"
        f"{row['equal_accuracy_p']:.3f}"
    )
    if not established:
        said += f"; groups of these sizes show up to {_points(row['fvo_chance'])} points by chance alone"
    worst = f"{name_of(accuracies.idxmin())} ({_points(row['worst_accuracy'])} %)"
    return f"{right}; {said}. Least accurate is {worst}."


def _losers(audit, name):
    changes, row = audit.changes.loc[[name]].droplevel(0), audit.models.loc[name]
    said = [
        f"accuracy {_points(row['accuracy_change'], '+')} points over all "
        f"({_points(row['accuracy_change_low'], '+')} to {_points(row['accuracy_change_high'], '+')})"
    ]
    for verb, rows in (
        ("lost", changes[changes["change_high"] < 0].sort_values("change")),
        ("gained", changes[changes["change_low"] > 0].sort_values("change", ascending=False)),
    ):
        listed = [
            f"{name_of(group)} {_points(row['change'], '+')} points ({_points(row['change_low'], '+')} "
            f"to {_points(row['change_high'], '+')}; {row['lost']:g} lost and {row['gained']:g} gained "
            f"of {row['count']:g})"
            for group, row in rows.head(_NAMED).iterrows()
        ]
        if len(rows) > _NAMED:
            listed.append(f"and {len(rows) - _NAMED} more of {len(changes)} groups, in the table")
        if listed:
            said.append(f"accuracy {verb}: {'; '.join(listed)}")
    others = changes[~((changes["change_high"] < 0) | (changes["change_low"] > 0))]
    if len(others):
        whose = f"{len(others)} of {len(changes)} groups" if len(said) > 1 else "any group"
        said.append(f"no change is established in {whose}: {_blind(audit, name, others.index)}")
    return f"{name} against {audit.reference}: {'; '.join(said)}."


def _blind(audit, name, groups):
    """Say what cannot be said with groups of these sizes."""
    loss = audit.detectable.loc[[name]].droplevel(0)["loss"][groups]
    if loss.isna().all():
        return "they are too small to show a loss of any size"
    said = f"a loss would have to be {_points(loss.min())} points ({name_of(loss.idxmin())})"
    if len(loss.dropna()) > 1:
        said += f" to {_points(loss.max())} points ({name_of(loss.idxmax())})"
    said += " to be shown with power 0.8"
    small = [name_of(group) for group in loss.index[loss.isna()]]
    return said + (f", and none can be shown in {', '.join(small)}" if small else "")


def _others(audit, name):
    """Say which other metrics changed in which group, by intervals that exclude 0."""
    changes = audit.changes.loc[[name]].droplevel(0)
    found = [
        (abs(row[column]), f"{_word(column)} of {name_of(group)} {_interval(row, column)}")
        for column in changes
        if f"{column}_low" in changes
        and column.endswith("_change")
        and "_difference" not in column
        and column != "fvo_change"
        for group, row in changes.iterrows()
        if row[f"{column}_low"] > 0 or row[f"{column}_high"] < 0
    ]
    if not found:
        return []
    listed = [said for _, said in sorted(found, reverse=True)[:_NAMED]]
    more = f"; and {len(found) - _NAMED} more, in the table" if len(found) > _NAMED else ""
    return [f"{name} against {audit.reference}, other metrics that changed: {'; '.join(listed)}{more}."]


def _word(column):
    return column.removesuffix("_change").replace("_", " ")


def _interval(row, column):
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return f"{row[column]:+.3f} ({low:+.3f} to {high:+.3f})"


def _widening(audit, name):
    row = audit.models.loc[name]
    low, high = row["fvo_change_low"], row["fvo_change_high"]
    if low > 0:
        verdict = "compression widened the gap"
    elif high < 0:
        verdict = "compression narrowed the gap"
    else:
        verdict = "no change of the gap is established; the interval is wider than it need be"
    return (
        f"{name} against {audit.reference}: {verdict}; FVO changed by {_points(row['fvo_change'], '+')} "
        f"points ({_points(low, '+')} to {_points(high, '+')})."
    )


def _cautions(audit, compressed):
    said = [f"Intervals hold together over the groups of a model, at {audit.confidence:.0%}; "]
    if len(compressed) > 1:
        errors = min(1, len(compressed) * (1 - audit.confidence))
        said[0] += (
            f"over {len(compressed)} compressed models the chance that one is wrong adds up to at most "
            f"{errors:.0%}, and each further metric adds as much."
        )
    else:
        said[0] += (
            f"each further metric adds up to {1 - audit.confidence:.0%} to the chance of an error."
        )
    label = audit.models.attrs.get("pos_label")
    if label is not None and any(str(column).endswith("_rate") for column in audit.groups):
        said.append(f"Rates count the label {label!r}; pos_label says another.")
    single = pd.unique(audit.groups.index[audit.groups["count"] < 2].droplevel(0))
    if len(single):
        said.append(f"Of groups of one sample nothing can be said: {', '.join(map(name_of, single))}.")
    return [
        *said,
        "That no gap was found does not mean that a model is fair; equal accuracy is one notion among "
        "several.",
    ]
