"""The cascade from weights to curvature, one line a group."""

import numpy as np

from skqfair.displays._common import (
    add_legend,
    check_table,
    column_label,
    fitted_table,
    group_style,
    is_wide,
    levels,
    log_scale,
    make_axes,
    select,
    short_labels,
    side_by_side,
    tidy,
)

__all__ = ["GroupDiagnosticsDisplay"]

CASCADE = [
    "logit_variance",
    "boundary_closeness",
    "loss",
    "accuracy",
    "gradient_norm",
    "hessian_max_eigenvalue",
]
MATCHED = ("gradient_norm", "hessian_")  # computed at equal sizes of the groups
OPEN_ENDED = ("loss", "logit_variance", *MATCHED)  # logarithmic where the range is wide


class GroupDiagnosticsDisplay:
    """How quantization moves each group, step by step from the weights to the curvature.

    One panel a step, bits from the widest to the narrowest, one line a group; the smallest group is
    drawn thicker. Whiskers are the intervals of the quantities that were computed at matched group
    sizes; groups stand beside each other there so that whiskers do not hide one another.

    Parameters
    ----------
    group_report : DataFrame
        ``group_report_`` of :class:`skqfair.QuantizationDiagnostics`, index (bits, group).
    layer_report : DataFrame, optional
        ``layer_report_``, index (bits, layer): adds the sparsity of the weights, the mean over layers
        weighted by their number of weights.
    columns : sequence of str, optional
        Columns of either table to draw, a panel each; None takes the steps of the cascade: sparsity,
        logit variance, closeness to the decision boundary, loss, accuracy, gradient norm and the
        largest eigenvalue of the Hessian. A column without any value is left out.

    Attributes
    ----------
    columns_ : list of str
        Columns of the panels.
    figure_ : matplotlib Figure
        After :meth:`plot`.
    axes_ : ndarray of matplotlib Axes
        After :meth:`plot`, one for each panel.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqfair.displays import GroupDiagnosticsDisplay
    >>> report = pd.DataFrame(
    ...     {"count": [90, 10, 90, 10], "loss": [0.2, 0.3, 0.4, 0.9], "accuracy": [0.9, 0.9, 0.8, 0.6]},
    ...     index=pd.MultiIndex.from_product([["float", 2], ["a", "b"]], names=["bits", "group"]))
    >>> display = GroupDiagnosticsDisplay(report, columns=["loss", "accuracy"]).plot()
    >>> [ax.get_ylabel() for ax in display.axes_]
    ['loss', 'accuracy']
    >>> [text.get_text() for text in display.figure_.legends[0].get_texts()]
    ['a (n=90)', 'b (n=10)']
    """

    def __init__(self, group_report, layer_report=None, *, columns=None):
        check_table(group_report, "group_report", ("bits", "group"), ["count"])
        if layer_report is not None:
            check_table(layer_report, "layer_report", ("bits", "layer"), ["n_weights"])
        self.group_report, self.layer_report = group_report, layer_report
        if columns is None:
            columns = CASCADE if layer_report is None else ["sparsity", *CASCADE]
        both = {*group_report, *(() if layer_report is None else layer_report)}
        missing = [column for column in columns if column not in both]
        if missing:
            raise ValueError(
                f"the tables lack the columns {missing}, have {sorted(both)}; "
                "choose others with columns=..., or give layer_report for those of the layers."
            )
        self.columns_ = [c for c in columns if np.isfinite(self._table(c)[c].to_numpy(float)).any()]
        if not self.columns_:
            raise ValueError(f"columns {list(columns)} have no finite value; choose others.")
        self.figure_ = self.axes_ = None

    @classmethod
    def from_diagnostics(cls, diagnostics, *, columns=None, axes=None):
        """Make and plot the display from fitted diagnostics.

        Parameters
        ----------
        diagnostics : QuantizationDiagnostics
            Fitted.
        columns : sequence of str, optional
            See the class.
        axes : sequence of matplotlib Axes, optional
            Where to draw.

        Returns
        -------
        GroupDiagnosticsDisplay
            Plotted.

        Raises
        ------
        NotFittedError
            If the diagnostics are not fitted.
        """
        tables = [fitted_table(diagnostics, name) for name in ("group_report_", "layer_report_")]
        return cls(*tables, columns=columns).plot(axes)

    def plot(self, axes=None):
        """Draw one panel for each of ``columns_``.

        Parameters
        ----------
        axes : sequence of matplotlib Axes, optional
            Where to draw, as many as there are panels; None makes a figure. In a figure of its own the
            legend stands beside the panels, in given axes on the first panel with groups.

        Returns
        -------
        GroupDiagnosticsDisplay
            Itself, with ``figure_`` and ``axes_``.

        Raises
        ------
        ValueError
            If ``axes`` are not as many as the panels.
        ImportError
            If matplotlib is not installed.
        """
        bits, groups = levels(self.group_report)
        counts = self.group_report["count"].groupby(level=1, sort=False).max().loc[groups]
        labels = [
            f"{name} (n={count:,.0f})"
            for name, count in zip(short_labels(groups, 32), counts, strict=True)
        ]
        small = (counts == counts.min()) & (counts < counts.max())
        styles = [group_style(i, emphasised) for i, emphasised in enumerate(small)]
        own = axes is None
        axes = make_axes(axes, len(self.columns_), panel=(3.2, 2.8), labels=labels)
        lines = {}
        for ax, column in zip(axes, self.columns_, strict=True):
            if self._table(column) is self.group_report:
                lines[ax] = self._groups(ax, column, bits, groups, styles)
            else:
                self._layers(ax, column, bits)
            ax.set_ylabel(column_label(column) + self._matched(column))
            tidy(ax, bits)
        if lines:
            first = next(iter(lines))
            add_legend(first, lines[first], labels, own=own)
        self.figure_, self.axes_ = axes[0].figure, axes
        return self

    def _table(self, column):
        return self.group_report if column in self.group_report else self.layer_report

    def _groups(self, ax, column, bits, groups, styles):
        """Draw a line a group; return the lines."""
        report = self.group_report
        values = select(report[column], bits, groups)
        bounds = [f"{column}_low", f"{column}_high"]
        intervals = np.full((2, *values.shape), np.nan)
        if all(bound in report for bound in bounds):
            intervals = np.stack([select(report[bound], bits, groups) for bound in bounds])
        width = min(0.3, 0.06 * (len(groups) - 1)) if np.isfinite(intervals).any() else 0.0
        beside = side_by_side(len(groups), width)
        lines = []
        for g, style in enumerate(styles):
            x = np.arange(len(bits)) + beside[g]
            lines += ax.plot(x, values[:, g], **style)
            known = np.isfinite(intervals[:, :, g]).all(axis=0)
            faint = {"color": style["color"], "alpha": 0.45, "lw": style["linewidth"]}
            ax.vlines(x[known], *intervals[:, known, g], **faint)
        if column.startswith(OPEN_ENDED) and is_wide(values):
            log_scale(ax, values)
        elif np.nanmin(values) < 0 < np.nanmax(values):
            ax.axhline(0, color="0.85", lw=1, zorder=0)
        return lines

    def _layers(self, ax, column, bits):
        """Draw the mean over layers, weighted by their weights."""
        report = self.layer_report
        known = report[report[column].notna()]
        total = (known[column] * known["n_weights"]).groupby(level=0, sort=False).sum()
        mean = total / known["n_weights"].groupby(level=0, sort=False).sum()
        ax.plot(np.arange(len(bits)), mean.reindex(bits).to_numpy(float), "o-", color="0.35", ms=5)

    def _matched(self, column):
        """Return at which sample sizes a column was computed, if they were matched."""
        if "n_matched" not in self.group_report or not column.startswith(MATCHED):
            return ""
        sizes = self.group_report["n_matched"].dropna()
        if not len(sizes):
            return ""
        low, high = (f"{size:,.0f}" for size in (sizes.min(), sizes.max()))
        return f"\n(at n={low})" if low == high else f"\n(at n={low}–{high})"
