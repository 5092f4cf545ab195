"""Accuracy and change by group, and what a search varied, in matplotlib."""

import numpy as np

from skqfair._optional import import_extra
from skqfair.audit._searched import FIGURES, searched_table
from skqfair.audit._verdicts import name_of

__all__ = ["plot_audit"]

_MARKERS = "osD^vP*X"


def plot_audit(audit, axes):
    """Draw accuracy by group, its change and, of a search over bits, its curves; return the axes."""
    panels = [("groups", "accuracy", "accuracy")]
    if len(audit.changes):
        between = "\n" if len(str(audit.reference)) > 12 else " "
        label = f"change of accuracy against{between}{audit.reference}"
        panels.append(("changes", "change", label))
    table, n_below = searched_table(audit), 0
    if table is not None:
        one = len(table.index.unique(0)) == 1
        n_below = 2 + (one and "size" in table)
    own = axes is None
    axes = _new_axes(audit, len(panels), n_below) if own else np.ravel(axes)
    if len(axes) != len(panels) + n_below:
        raise ValueError(f"axes must be {len(panels) + n_below} matplotlib Axes, got {len(axes)}.")
    for ax, (name, column, label) in zip(axes, panels, strict=False):
        _draw(ax, getattr(audit, name), column, list(audit.models.index))
        ax.set_xlabel(_text(label))
        _tidy(ax)
    if len(panels) > 1:
        axes[1].axvline(0, color="0.6", lw=1, zorder=0)
    _legend(axes[0], own)
    if n_below and one:
        _draw_bits(table, axes[len(panels) :])
    elif n_below:
        _draw_lines(table, axes[len(panels) :], own)
    return axes


def _new_axes(audit, n_above, n_below):
    """Return axes of a new figure: by group above, of the search below."""
    pyplot = import_extra("matplotlib.pyplot", "plot")
    height = 1.5 + 0.16 * len(audit.groups) + 0.1 * len(audit.models)
    below = 3.6 if n_below else 0
    width = max(5 * n_above, 4 * n_below)
    figure = pyplot.figure(figsize=(width, height + below), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=[height, below]) if n_below else [figure]
    axes = [np.ravel(parts[0].subplots(1, n_above, sharey=True))]
    if n_below:
        axes.append(np.ravel(parts[1].subplots(1, n_below)))
    return np.concatenate(axes)


def _draw(ax, table, column, models):
    present = [model for model in models if model in table.index.unique(0)]
    groups = list(table.loc[present[0]].index)
    offsets = np.linspace(-0.3, 0.3, len(models)) if len(models) > 1 else np.zeros(1)
    for i, model in enumerate(models):
        if model not in present:
            continue
        rows = table.loc[model]
        position = np.arange(len(groups)) + offsets[i]
        errors = _errors(rows, column)
        ax.errorbar(
            rows[column].to_numpy(), position, xerr=errors, fmt=_MARKERS[i // 10 % 8], **_style(i, model)
        )
    ax.set_yticks(np.arange(len(groups)), [_text(name_of(group)) for group in groups])
    if not ax.yaxis_inverted():
        ax.invert_yaxis()


def _draw_bits(table, axes):
    """Draw the curves of one model over its bit widths."""
    from skqfair.displays import BitWidthDisplay  # with scikit-learn, which takes a second to load

    rows = table.droplevel(0)
    BitWidthDisplay(rows.set_axis(rows.index.astype(object))).plot(axes)


def _draw_lines(table, axes, own):
    """Draw a curve over the bit widths for each value of what else was searched."""
    lines, widths = (list(table.index.unique(level)) for level in (0, 1))
    offsets = np.linspace(-0.15, 0.15, len(lines))
    for ax, (column, label) in zip(axes, FIGURES.items(), strict=True):
        for i, line in enumerate(lines):
            rows = table.loc[line].dropna(subset=[column])
            position = np.array([widths.index(width) for width in rows.index]) + offsets[i]
            errors = _errors(rows, column)
            fmt = f"{_MARKERS[i % 8]}{'-' if i < 10 else '--'}"
            ax.errorbar(
                position, rows[column].to_numpy(), yerr=errors, fmt=fmt, lw=1.2, **_style(i, line)
            )
        ax.set_xticks(np.arange(len(widths)), widths)
        ax.set_xlabel("weight bits")
        ax.set_ylabel(label)
        _tidy(ax)
    _legend(axes[0], own)


def _errors(rows, column):
    value, low, high = (rows[f"{column}{end}"].to_numpy() for end in ("", "_low", "_high"))
    return np.clip([value - low, high - value], 0, None)


def _style(i, label):
    return {"ms": 4, "capsize": 2, "color": f"C{i % 10}", "label": _text(label)}


def _legend(ax, own):
    """Add the legend: below the panels in a figure of our own where names are many or long."""
    lines, labels = ax.get_legend_handles_labels()
    if not own or (len(labels) <= 4 and max(map(len, labels)) <= 12):
        ax.legend(frameon=False, fontsize="small")
        return
    inches = ax.figure.bbox.width / ax.figure.dpi
    fitting = max(1, int(inches / (0.5 + 0.075 * max(map(len, labels)))))
    ax.figure.legend(
        lines, labels, loc="outside lower center", ncols=fitting, frameon=False, fontsize="small"
    )


def _tidy(ax):
    ax.spines[["top", "right"]].set_visible(False)


def _text(name):
    return str(name).replace("$", r"\$")  # dollars are no formulas
