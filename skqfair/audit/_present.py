"""Tables as a reader wants them: a figure and its interval in one cell, words for columns."""

import numbers

import numpy as np
import pandas as pd

from skqfair.audit._verdicts import name_of

__all__ = ["SECTIONS", "cells", "table_of"]

SECTIONS = (
    (
        "models",
        "Models",
        "Figures over all samples. FVO is the largest accuracy gap between two groups; fvo chance, what "
        "groups of these sizes show by chance where accuracy is equal; equal accuracy p, the p-value of "
        "that; excess accuracy gap, how much more the hardest hit group lost than all did.",
    ),
    (
        "changes",
        "Changes by group",
        "Against the reference, sample by sample; lost: right became wrong. A star: the interval of a "
        "change does not reach zero.",
    ),
    ("groups", "Groups", "Each figure with its interval; the intervals of a model hold together."),
    (
        "metrics",
        "Other metrics",
        "The difference is the largest between two groups; rates count pos_label, see the origin.",
    ),
    (
        "detectable",
        "What could be shown",
        "The smallest accuracy gap and loss that a group of this size shows with power 0.8.",
    ),
    (
        "exemplars",
        "Changed predictions",
        "Five of each group, by row from 0: those changed by most models first, then those of which the "
        "reference was most confident. The audit's exemplars have more.",
    ),
)
_REPEATED = ("fvo", "equal_accuracy_p")  # the same for a whole model, shown with the models
_OF_TWO = ("flip_rate", "excess_")  # compare with another model
_EXEMPLARS = 5


def table_of(audit, section):
    """Return the table of a section: other metrics than accuracy have their own rows."""
    names = [c.removesuffix("_difference") for c in audit.models if str(c).endswith("_difference")]
    if section == "models":
        extra = [c for c in audit.models if any(c == n or c.startswith(f"{n}_differ") for n in names)]
        if len(audit.models) == 1:
            extra += [c for c in audit.models if "_change" in c or c.startswith(_OF_TWO)]
        groups = [group for group in audit.groups.index.droplevel(0) if isinstance(group, tuple)]
        crossed = {", ".join(map(str, group)): name_of(group) for group in groups}
        shown = audit.models.drop(columns=list(dict.fromkeys(extra)))
        named = [column for column in shown if column.endswith("_group")]
        return shown.assign(**{c: [crossed.get(g, g) for g in shown[c]] for c in named})
    if section != "metrics":
        return getattr(audit, section)
    rows = {}
    for model, row in audit.models.iterrows():
        for name in names:
            rows[model, name] = {"all samples": row[name]} | {
                f"{column}{end}": row[f"{name}_{column}{end}"]
                for column in ("difference", "difference_change")
                for end in ("", "_low", "_high")
            }
    index = pd.MultiIndex.from_tuples(rows, names=["model", "metric"]) if rows else None
    return pd.DataFrame(list(rows.values()), index=index)


def cells(table):
    """Return a header and rows of (text, value to sort by); intervals are folded into their figures."""
    if "n_changed" in table:
        table = table.groupby("group", sort=False).head(_EXEMPLARS)
        if table["confidence"].isna().all():
            table = table.drop(columns="confidence")
    keys = table.index
    header = [str(name or "model") for name in keys.names]
    series = [[(_text(v), _key(v)) for v in keys.get_level_values(i)] for i in range(keys.nlevels)]
    for column in table:
        if not _hidden(column, table):
            header.append(str(column))
            series.append(_column(table, column))
    return [name.replace("_", " ") for name in header], list(zip(*series, strict=True))


def _hidden(column, table):
    name = str(column)
    stem = name.removesuffix("_low").removesuffix("_high").removesuffix("_count")
    by_group = table.index.nlevels > 1
    repeated = by_group and (name.startswith(_REPEATED) or "_difference" in name)
    return repeated or (stem != name and stem in table)


def _column(table, column):
    values = table[column]
    low, high = (table.get(f"{column}_{end}") for end in ("low", "high"))
    if low is None:
        return [(_text(value, column), _key(value)) for value in values]
    signs = "change" in str(column)
    return [
        (
            f"{_text(v, column)} ({_text(a, column)} to {_text(b, column)})"
            + (" *" if signs and a * b > 0 else ""),
            _key(v),
        )
        for v, a, b in zip(values, low, high, strict=True)
    ]


def _text(value, column=""):
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)):
        if pd.isna(value):
            return "–"
        if float(value).is_integer() and (abs(value) > 1 or isinstance(value, numbers.Integral)):
            return f"{int(value)}"
        value = round(float(value), 3) + 0.0  # no -0.000
        return f"{value:+.3f}" if "change" in str(column) else f"{value:.3f}"
    return name_of(value)


def _key(value):
    """Return what a column is sorted by."""
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)):
        return "" if pd.isna(value) else f"{float(value):.9g}"
    return name_of(value)
