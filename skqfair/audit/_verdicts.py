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
        sentences += [_losers(audit, name), _widening(audit, name)]
    return sentences + _cautions(audit, compressed)


def name_of(group):
    """Return the name of a group as text, the parts of an intersection joined by a cross."""
    return " × ".join(map(str, group)) if isinstance(group, tuple) else str(group)


def _points(value, sign=""):
    return f"{100 * value:{sign}.1f}"


def _gap(audit, name):
    row = audit.models.loc[name]
    n_groups = len(audit.groups.loc[[name]])
    if n_groups < 2:
        return f"{name}: one group only, so nothing can be said of a gap."
    established = row["fvo_low"] > 0 or row["equal_accuracy_p"] <= 1 - audit.confidence
    said = (
        f"an accuracy gap between groups is {'' if established else 'not '}established: FVO "
        f"{_points(row['fvo'])} points ({_points(row['fvo_low'])} to {_points(row['fvo_high'])}), p of "
        f"equal accuracy {'at most ' if row['equal_accuracy_p'] <= 0.001 else ''}"
        f"{row['equal_accuracy_p']:.3f}"
    )
    if not established:
        said += f"; groups of these sizes show up to {_points(row['fvo_chance'])} points by chance alone"
    return (
        f"{name}: {said}. Least accurate is {row['worst_group']} ({_points(row['worst_accuracy'])} %)."
    )


def _losers(audit, name):
    changes = audit.changes.loc[[name]].droplevel(0)
    said = []
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
    if not said:
        said = [f"no group's change of accuracy is established. {_blind(audit, name)}"[:-1]]
    elif others := int(((changes["change_low"] <= 0) & (changes["change_high"] >= 0)).sum()):
        said.append(f"No change is established in {others} of {len(changes)} groups")
    return f"{name} against {audit.reference}: {'. '.join(said)}."


def _blind(audit, name):
    """Say what cannot be said with groups of these sizes."""
    loss = audit.detectable.loc[[name]].droplevel(0)["loss"]
    if loss.isna().all():
        return "The groups are too small to show a loss of any size."
    said = f"A loss would have to be {_points(loss.min())} points ({name_of(loss.idxmin())})"
    if len(loss.dropna()) > 1:
        said += f" to {_points(loss.max())} points ({name_of(loss.idxmax())})"
    said += " to be shown with power 0.8"
    small = [name_of(group) for group in loss.index[loss.isna()]]
    return said + (f"; none can be shown in {', '.join(small)}." if small else ".")


def _widening(audit, name):
    row = audit.models.loc[name]
    low, high = row["fvo_change_low"], row["fvo_change_high"]
    if low > 0:
        verdict = "compression widened the gap"
    elif high < 0:
        verdict = "compression narrowed the gap"
    else:
        verdict = "that compression changed the gap is not established (this interval is a wide one)"
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
            f"{errors:.0%}, and further metrics add to it."
        )
    else:
        said[0] += "further metrics add to the chance that one is wrong."
    single = pd.unique(audit.groups.index[audit.groups["count"] < 2].droplevel(0))
    if len(single):
        said.append(f"Of groups of one sample nothing can be said: {', '.join(map(name_of, single))}.")
    return [*said, "No gap found is not fair: equal accuracy is one notion of fairness among several."]
