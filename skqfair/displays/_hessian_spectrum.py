"""The largest eigenvalues of the groups' Hessians."""

import numpy as np
import pandas as pd

from skqfair.displays._common import (
    add_legend,
    bits_title,
    check_table,
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

__all__ = ["HessianSpectrumDisplay"]


class HessianSpectrumDisplay:
    """The largest eigenvalues of each group's Hessian, by rank, one panel a bit width.

    All panels have one scale. With one eigenvalue a group there is one panel, with bits on its x axis.

    Parameters
    ----------
    eigenvalues : Series
        ``hessian_eigenvalues_`` of :class:`skqfair.QuantizationDiagnostics`, index
        (bits, group, rank), rank 1 the largest.

    Attributes
    ----------
    eigenvalues_ : Series
        The values drawn: bit widths without any are left out.
    figure_ : matplotlib Figure
        After :meth:`plot`.
    axes_ : ndarray of matplotlib Axes
        After :meth:`plot`, one for each panel.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqfair.displays import HessianSpectrumDisplay
    >>> index = pd.MultiIndex.from_product(
    ...     [["float", 4], ["a", "b"], [1, 2]], names=["bits", "group", "rank"])
    >>> display = HessianSpectrumDisplay(pd.Series([3, 1, 5, 2, 4, 2, 9, 3.0], index=index)).plot()
    >>> [ax.get_title() for ax in display.axes_]
    ['float', '4 bits']
    """

    def __init__(self, eigenvalues):
        check_table(eigenvalues, "eigenvalues", ("bits", "group", "rank"), kind=pd.Series)
        finite = pd.Series(np.isfinite(eigenvalues.to_numpy(float)), index=eigenvalues.index)
        if not finite.any():
            raise ValueError(
                "eigenvalues have no finite value; was the module without second derivatives?"
            )
        self.eigenvalues_ = eigenvalues[finite.groupby(level=0, sort=False).transform("any")]
        self.figure_ = self.axes_ = None

    @classmethod
    def from_diagnostics(cls, diagnostics, *, axes=None):
        """Make and plot the display from fitted diagnostics.

        Parameters
        ----------
        diagnostics : QuantizationDiagnostics
            Fitted.
        axes : sequence of matplotlib Axes, optional
            Where to draw.

        Returns
        -------
        HessianSpectrumDisplay
            Plotted.

        Raises
        ------
        NotFittedError
            If the diagnostics are not fitted.
        ValueError
            If they have no eigenvalues.
        """
        eigenvalues = fitted_table(diagnostics, "hessian_eigenvalues_")
        if not len(eigenvalues):
            raise ValueError(
                "the diagnostics have no eigenvalues: n_eigenvalues is 0, or the model only predicts; "
                "fit them on an estimator with n_eigenvalues of at least 1."
            )
        return cls(eigenvalues).plot(axes)

    def plot(self, axes=None):
        """Draw one panel for each bit width, or one in all if there is one eigenvalue a group.

        Parameters
        ----------
        axes : sequence of matplotlib Axes, optional
            Where to draw, as many as there are panels; None makes a figure. In a figure of its own the
            legend stands beside the panels, in given axes on the first.

        Returns
        -------
        HessianSpectrumDisplay
            Itself, with ``figure_`` and ``axes_``.

        Raises
        ------
        ValueError
            If ``axes`` are not as many as the panels.
        ImportError
            If matplotlib is not installed.
        """
        bits, groups, ranks = levels(self.eigenvalues_)
        ranks = sorted(ranks)
        values = select(self.eigenvalues_, bits, groups, ranks)
        labels = short_labels(groups, 32)
        own = axes is None
        if len(ranks) == 1:
            width = 0.8 + max(2.4, 0.11 * len(bits) * (len(groups) + 2))
            axes = make_axes(axes, 1, panel=(width, 3.2), labels=labels)
            lines = self._dots(axes[0], values[..., 0], bits)
        else:
            axes = make_axes(axes, len(bits), panel=(3.2, 2.8), labels=labels)
            for ax, name, spectra in zip(axes, bits, values, strict=True):
                lines = self._ranks(ax, spectra, ranks)
                ax.set_title(bits_title(name), fontsize="medium")
        for ax in axes:
            if is_wide(values):
                log_scale(ax, values)
            elif np.nanmin(values) < 0:
                ax.axhline(0, color="0.85", lw=1, zorder=0)
            ax.set_ylabel("largest Hessian eigenvalue" if len(ranks) == 1 else "Hessian eigenvalue")
        low, high = zip(*(ax.get_ylim() for ax in axes), strict=True)
        for ax in axes:
            ax.set_ylim(min(low), max(high))
        add_legend(axes[0], lines, labels, own=own)
        self.figure_, self.axes_ = axes[0].figure, axes
        return self

    def _ranks(self, ax, spectra, ranks):
        """Draw a line a group over the ranks; return the lines."""
        lines = [ax.plot(ranks, row, **group_style(g))[0] for g, row in enumerate(spectra)]
        ax.set_xlabel("rank")
        ax.set_xticks(ranks if len(ranks) <= 10 else ranks[:: -(-len(ranks) // 10)])
        tidy(ax)
        return lines

    def _dots(self, ax, values, bits):
        """Draw the groups beside each other at each bit width; return the dots of each."""
        x = np.arange(len(bits))
        beside = side_by_side(values.shape[1], min(0.7, 0.18 * (values.shape[1] - 1)))
        styles = [{**group_style(g), "linestyle": "none"} for g in range(values.shape[1])]
        lines = [ax.plot(x + beside[g], values[:, g], **styles[g])[0] for g in range(len(styles))]
        tidy(ax, bits)
        ax.set_xlim(-0.5, len(bits) - 0.5)
        return lines
