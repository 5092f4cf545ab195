"""Accuracy, FVO and size against bit width."""

import numpy as np

from skqfair._validation import import_extra
from skqfair.metrics import model_report

__all__ = ["BitWidthDisplay"]


class BitWidthDisplay:
    """Accuracy, FVO and size of a model against its bit width, with intervals.

    Use :meth:`from_predictions` or give a table of :func:`skqfair.metrics.model_report`.

    Parameters
    ----------
    table : DataFrame
        One row for each bit width, the index in bits (32 or "float" for the float model), with the
        columns of :func:`~skqfair.metrics.model_report`; a column ``size`` (bytes) adds a panel.

    Attributes
    ----------
    table_ : DataFrame
        The table, from the widest to the narrowest.
    figure_ : matplotlib Figure
        After :meth:`plot`.
    axes_ : ndarray of matplotlib Axes
        After :meth:`plot`, one for each panel.

    Examples
    --------
    >>> from skqfair.displays import BitWidthDisplay
    >>> display = BitWidthDisplay.from_predictions(
    ...     [0, 1, 1, 0], {32: [0, 1, 1, 0], 2: [0, 1, 0, 0]},
    ...     sensitive_features=["a", "a", "b", "b"], sizes={32: 400, 2: 40}, random_state=0)
    >>> [ax.get_ylabel() for ax in display.plot().axes_]
    ['accuracy', 'FVO', 'size (kB)']
    """

    def __init__(self, table):
        missing = {"accuracy", "accuracy_low", "accuracy_high", "fvo", "fvo_low", "fvo_high"} - set(
            table
        )
        if missing:
            raise ValueError(
                f"table lacks the columns {sorted(missing)}; make it with skqfair.metrics.model_report."
            )
        bits = [32 if name in ("float", None) else int(name) for name in table.index]
        self.table_ = table.set_axis(bits).sort_index(ascending=False)
        self.figure_ = self.axes_ = None

    @classmethod
    def from_predictions(
        cls,
        y_true,
        predictions,
        *,
        sensitive_features,
        sizes=None,
        reference=None,
        confidence=0.95,
        random_state=None,
    ):
        """Make the display from the predictions of each bit width on the same samples.

        Parameters
        ----------
        y_true : array-like of shape (n,)
            True labels.
        predictions : dict of int to array-like of shape (n,)
            Bits (32 or "float" for the float model) to predicted labels.
        sensitive_features : array-like of shape (n,) or (n, k), Series or frame
            Group of each sample.
        sizes : dict of int to int, optional
            Bits to bytes.
        reference, confidence, random_state
            See :func:`skqfair.metrics.model_report`.

        Returns
        -------
        BitWidthDisplay
        """
        table = model_report(
            y_true,
            predictions,
            sensitive_features=sensitive_features,
            reference=reference,
            confidence=confidence,
            random_state=random_state,
        )
        if sizes is not None:
            table["size"] = [sizes[name] for name in predictions]
        return cls(table)

    def plot(self, axes=None):
        """Draw one panel for accuracy, one for FVO and, where known, one for size.

        Parameters
        ----------
        axes : sequence of matplotlib Axes, optional
            Where to draw, as many as there are panels; None makes a figure.

        Returns
        -------
        BitWidthDisplay
            Itself, with ``figure_`` and ``axes_``.

        Raises
        ------
        ValueError
            If ``axes`` are not as many as the panels.
        ImportError
            If matplotlib is not installed.
        """
        pyplot = import_extra("matplotlib.pyplot", "plot")
        panels = [self._accuracy, self._fvo] + ([self._size] if "size" in self.table_ else [])
        if axes is None:
            _, axes = pyplot.subplots(
                1, len(panels), figsize=(4 * len(panels), 3.4), layout="constrained"
            )
        axes = np.ravel(axes)
        if len(axes) != len(panels):
            raise ValueError(f"axes must be {len(panels)} matplotlib Axes, got {len(axes)}.")
        positions = np.arange(len(self.table_))
        for ax, panel in zip(axes, panels, strict=True):
            panel(ax, positions)
            labels = ["float" if bits == 32 else str(bits) for bits in self.table_.index]
            ax.set_xticks(positions, labels)
            ax.set_xlabel("weight bits")
            ax.spines[["top", "right"]].set_visible(False)
        self.figure_, self.axes_ = axes[0].figure, axes
        return self

    def _accuracy(self, ax, x):
        table = self.table_
        _points(
            ax, x, table["accuracy"], table["accuracy_low"], table["accuracy_high"], "C0", "all samples"
        )
        if "worst_accuracy" in table:
            ax.plot(x, table["worst_accuracy"], "v:", color="C3", ms=5, label="worst group")
            ax.legend(frameon=False, fontsize="small")
        ax.set_ylabel("accuracy")

    def _fvo(self, ax, x):
        table = self.table_
        if "fvo_chance" in table:
            ax.fill_between(x, 0, table["fvo_chance"], fc="0.88", ec="0.6", label="within chance")
        _points(ax, x, table["fvo"], table["fvo_low"], table["fvo_high"], "C3", "observed")
        ax.set_ylim(0, 1.2 * float(table["fvo_high"].max()) or 1)
        ax.legend(frameon=False, fontsize="small", loc="upper center", ncols=2)
        ax.set_ylabel("FVO")

    def _size(self, ax, x):
        kilobytes = self.table_["size"] / 1000
        bars = ax.bar(x, kilobytes, color="0.6", width=0.6)
        ax.bar_label(bars, fmt="%.3g", fontsize="small")
        ax.set_ylabel("size (kB)")


def _points(ax, x, value, low, high, color, label):
    """Draw points with their intervals."""
    errors = np.clip([value - low, high - value], 0, None)
    ax.errorbar(x, value, errors, fmt="o-", color=color, capsize=3, ms=5, lw=1.4, label=label)
