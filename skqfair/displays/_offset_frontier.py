"""What offsets of classes buy, and what they cost."""

import numpy as np
from sklearn.exceptions import NotFittedError

from skqfair.displays._common import COLORS, check_table, make_axes, tidy

__all__ = ["OffsetFrontierDisplay"]

METRICS = {"fvo": "FVO", "worst_accuracy": "accuracy of the worst group"}
_MADE_BY = "it comes from a fitted skqfair.FairOffsetClassifier"


class OffsetFrontierDisplay:
    """Accuracy against FVO as the offsets grow, on the samples that they were fitted to.

    The band is the interval of FVO (or of the worst group), each strength by itself. The circle is the
    network without offsets, the star the strength that was taken.

    Parameters
    ----------
    frontier : DataFrame
        ``frontier_`` of :class:`skqfair.FairOffsetClassifier`.
    strength : float, optional
        The strength that was taken; None marks none.
    metric : {"fvo", "worst_accuracy"}, default="fvo"
        What is drawn against accuracy.

    Attributes
    ----------
    figure_ : matplotlib Figure
        After :meth:`plot`.
    ax_ : matplotlib Axes
        After :meth:`plot`.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqfair.displays import OffsetFrontierDisplay
    >>> from skqfair.metrics import accuracy_frontier
    >>> frontier = accuracy_frontier(
    ...     [0, 0.5, 1], [[9, 5], [9, 6], [7, 7]], [10, 10], groups=pd.Index(["a", "b"]))
    >>> OffsetFrontierDisplay(frontier, strength=0.5).plot().ax_.get_xlabel()
    'FVO'
    """

    def __init__(self, frontier, strength=None, metric="fvo"):
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {list(METRICS)}, got {metric!r}.")
        columns = ("strength", "accuracy", metric, f"{metric}_low", f"{metric}_high")
        check_table(frontier, "frontier", ["row"], columns, remedy=_MADE_BY)
        if strength is not None and strength not in frontier["strength"].to_numpy():
            raise ValueError(f"strength must be one of the frontier's, got {strength!r}; {_MADE_BY}.")
        self.frontier, self.strength, self.metric = frontier, strength, metric
        self.figure_ = self.ax_ = None

    @classmethod
    def from_estimator(cls, estimator, *, metric="fvo", ax=None, line_kw=None):
        """Make and plot the display from a fitted classifier.

        Parameters
        ----------
        estimator : FairOffsetClassifier
            Fitted.
        metric : {"fvo", "worst_accuracy"}, default="fvo"
            What is drawn against accuracy.
        ax : matplotlib Axes, optional
            Where to draw.
        line_kw : dict, optional
            See :meth:`plot`.

        Returns
        -------
        OffsetFrontierDisplay
            Plotted.

        Raises
        ------
        NotFittedError
            If the classifier is not fitted.
        """
        if not hasattr(estimator, "frontier_"):
            raise NotFittedError(
                f"this {type(estimator).__name__} has no frontier_; give a FairOffsetClassifier after "
                "its fit(X, y, sensitive_features=...)."
            )
        display = cls(estimator.frontier_, estimator.strength_, metric)
        return display.plot(ax, line_kw=line_kw)

    def plot(self, ax=None, *, line_kw=None):
        """Draw the frontier.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; None makes a figure.
        line_kw : dict, optional
            Options of the line, e.g. ``{"color": "k", "label": "3 bits"}``.

        Returns
        -------
        OffsetFrontierDisplay
            Itself, with ``figure_`` and ``ax_``.

        Raises
        ------
        ValueError
            If ``ax`` is more than one.
        ImportError
            If matplotlib is not installed.
        """
        (ax,) = make_axes(ax, 1, panel=(5.4, 3.8))
        x, accuracy = self.frontier[self.metric], self.frontier["accuracy"]
        (line,) = ax.plot(x, accuracy, **{"color": COLORS[0], "lw": 1.5, **(line_kw or {})})
        low, high = (self.frontier[f"{self.metric}_{end}"] for end in ("low", "high"))
        ax.fill_betweenx(accuracy, low, high, color=line.get_color(), alpha=0.12, lw=0)
        marks = {0: ("o", "without offsets")}
        if self.strength:
            marks[self.strength] = ("*", f"t = {self.strength:.2g}")
        for strength, (marker, label) in marks.items():
            row = self.frontier[np.isclose(self.frontier["strength"], strength)].head(1)
            style = {"color": line.get_color(), "zorder": 4, "label": label}
            ax.scatter(
                row[self.metric], row["accuracy"], 120 if marker == "*" else 45, marker=marker, **style
            )
        ax.set(xlabel=METRICS[self.metric], ylabel="accuracy")
        ax.legend(fontsize="small", frameon=False)
        tidy(ax)
        self.figure_, self.ax_ = ax.figure, ax
        return self
