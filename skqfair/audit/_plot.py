"""Accuracy and change by group, in matplotlib."""

import numpy as np

from skqfair._optional import import_extra
from skqfair.audit._verdicts import name_of

__all__ = ["plot_audit"]


def plot_audit(audit, axes):
    """Draw accuracy by group and, with a compressed model, its change; return the axes."""
    panels = [("groups", "accuracy", "accuracy")]
    if len(audit.changes):
        panels.append(("changes", "change", f"change of accuracy against {audit.reference}"))
    if axes is None:
        pyplot = import_extra("matplotlib.pyplot", "plot")
        models = len(audit.models)
        height = 1.5 + 0.16 * len(audit.groups) + 0.1 * models
        _, axes = pyplot.subplots(
            1, len(panels), figsize=(5 * len(panels), height), sharey=True, layout="constrained"
        )
    axes = np.ravel(axes)
    if len(axes) != len(panels):
        raise ValueError(f"axes must be {len(panels)} matplotlib Axes, got {len(axes)}.")
    for ax, (table, column, label) in zip(axes, panels, strict=True):
        _draw(ax, getattr(audit, table), column, list(audit.models.index))
        ax.set_xlabel(label)
        ax.spines[["top", "right"]].set_visible(False)
    if len(panels) > 1:
        axes[1].axvline(0, color="0.6", lw=1, zorder=0)
    axes[0].legend(frameon=False, fontsize="small")
    return axes


def _draw(ax, table, column, models):
    present = [model for model in models if model in table.index.unique(0)]
    groups = list(table.loc[present[0]].index)
    offsets = np.linspace(-0.3, 0.3, len(models)) if len(models) > 1 else np.zeros(1)
    for i, model in enumerate(models):
        if model not in present:
            continue
        rows = table.loc[model]
        value = rows[column].to_numpy()
        errors = [value - rows[f"{column}_low"], rows[f"{column}_high"] - value]
        position = np.arange(len(groups)) + offsets[i]
        ax.errorbar(
            value, position, xerr=errors, fmt="o", ms=4, capsize=2, color=f"C{i}", label=str(model)
        )
    ax.set_yticks(np.arange(len(groups)), [name_of(group).replace("$", r"\$") for group in groups])
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
