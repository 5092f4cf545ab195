"""Accuracy, FVO and size against bit width."""

import numpy as np
import pandas as pd

from skqfair.displays._common import make_axes, sort_bits, tidy
from skqfair.metrics import has_counts, model_report, pooled_report

__all__ = ["BitWidthDisplay"]


class BitWidthDisplay:
    """Accuracy, FVO and size of a model against its bit width, with intervals.

    Use :meth:`from_predictions` or give a table of :func:`skqfair.metrics.model_report`.

    Parameters
    ----------
    table : DataFrame
        One row for each model, the index its bits (None, "float" or 32 for the float model), or any
        names, e.g. "W4A8"; with the columns of :func:`~skqfair.metrics.model_report`. A column ``size``
        (bytes) adds a panel.

    Attributes
    ----------
    table_ : DataFrame
        The table, from the widest to the narrowest; in the given order if the index is not all bits.
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
    >>> [ax.get_ylabel() for ax in display.axes_]
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
        self.table_ = table.iloc[sort_bits(table.index)]
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
        axes=None,
    ):
        """Make and plot the display from the predictions of each bit width on the same samples.

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
        axes : sequence of matplotlib Axes, optional
            Where to draw.

        Returns
        -------
        BitWidthDisplay
            Plotted.
        """
        missing = [name for name in predictions if sizes is not None and name not in sizes]
        if missing:
            raise ValueError(f"sizes lacks the bytes of {missing}; give those of every model.")
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
        return cls(table).plot(axes)

    @classmethod
    def from_cv_results(
        cls, cv_results, *, param="weight_bits", accuracy="accuracy", fvo="fvo", size="size", axes=None
    ):
        """Make and plot the display from the results of a search over bit widths.

        Points are means over the folds, whiskers reach from the lowest fold to the highest. With the
        counts of :func:`~skqfair.metrics.fairness_counts_scorer`, FVO is that of all out-of-fold
        predictions, with its 95 % interval and the range of chance; without, the mean over folds,
        which grows with their number. Where the search also varied something else, the most accurate
        candidate of each width is shown.

        Parameters
        ----------
        cv_results : dict
            ``search.cv_results_``.
        param : str, default="weight_bits"
            Parameter with the bits, with or without the names of its steps.
        accuracy, fvo, size : str
            Names of the scorers in ``scoring``; ``size`` is optional, ``fvo`` not asked for where there
            are counts.
        axes : sequence of matplotlib Axes, optional
            Where to draw.

        Returns
        -------
        BitWidthDisplay
            Plotted.

        Raises
        ------
        ValueError
            If the results have no such parameter or scorer.
        """
        names = [key for key in cv_results if key == f"param_{param}" or key.endswith(f"__{param}")]
        pooled = has_counts(cv_results)
        scorers = [accuracy] if pooled else [accuracy, fvo]
        if len(names) != 1 or not all(f"mean_test_{name}" in cv_results for name in scorers):
            raise ValueError(
                f"cv_results must have one parameter {param!r} and scorers {accuracy!r}, {fvo!r}; "
                f"it has {sorted(k for k in cv_results if k.startswith(('param_', 'mean_test_')))}."
            )
        bits = list(cv_results[names[0]])
        mean = np.asarray(cv_results[f"mean_test_{accuracy}"])
        gaps = pooled_report(cv_results) if pooled else None
        rows = {}
        for i in np.argsort(mean, kind="stable"):  # the most accurate of a width comes last and stays
            rows[bits[i]] = _spread("accuracy", _folds(cv_results, accuracy, i))
            if pooled:
                rows[bits[i]] |= gaps.loc[i, ["fvo", "fvo_low", "fvo_high", "fvo_chance"]].to_dict()
            else:
                rows[bits[i]] |= _spread("fvo", -_folds(cv_results, fvo, i))
            if f"mean_test_{size}" in cv_results:
                rows[bits[i]]["size"] = -cv_results[f"mean_test_{size}"][i]
        index = pd.Index(list(rows), dtype=object)
        table = pd.DataFrame(list(rows.values()), index=index)
        table.attrs["fvo"] = "FVO, folds pooled" if pooled else "FVO, mean over folds"
        return cls(table).plot(axes)

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
        panels = [self._accuracy, self._fvo] + ([self._size] if "size" in self.table_ else [])
        axes = make_axes(axes, len(panels))
        for ax, panel in zip(axes, panels, strict=True):
            panel(ax, np.arange(len(self.table_)))
            tidy(ax, self.table_.index)
        self.figure_, self.axes_ = axes[0].figure, axes
        return self

    def _accuracy(self, ax, x):
        table = self.table_
        _points(
            ax, x, table["accuracy"], table["accuracy_low"], table["accuracy_high"], "C0", "all samples"
        )
        if "worst_accuracy" in table:
            ax.plot(x, table["worst_accuracy"], "v:", color="C1", ms=5, label="worst group")
            ax.legend(frameon=False, fontsize="small")
        ax.set_ylabel("accuracy")

    def _fvo(self, ax, x):
        table = self.table_
        if "fvo_chance" in table:
            confidence = table.attrs.get("confidence", 0.95)
            ax.fill_between(
                x,
                0,
                table["fvo_chance"],
                fc="0.88",
                ec="0.6",
                label=f"{confidence:.0%} range at equal accuracy",
            )
        _points(ax, x, table["fvo"], table["fvo_low"], table["fvo_high"], "C3", "observed")
        ax.set_ylim(0, 1.2 * float(table["fvo_high"].max()) or 1)
        ax.legend(frameon=False, fontsize="small", loc="upper center", ncols=2)
        ax.set_ylabel(table.attrs.get("fvo", "FVO"))

    def _size(self, ax, x):
        kilobytes = self.table_["size"] / 1000
        bars = ax.bar(x, kilobytes, color="0.6", width=0.6)
        ax.bar_label(bars, fmt="%.1f", fontsize="small")
        ax.set_ylabel("size (kB)")


def _folds(cv_results, name, candidate):
    """Return the test scores of one candidate, one for each fold."""
    keys = [key for key in cv_results if key.startswith("split") and key.endswith(f"_test_{name}")]
    return np.array([cv_results[key][candidate] for key in keys])


def _spread(name, values):
    return {name: values.mean(), f"{name}_low": values.min(), f"{name}_high": values.max()}


def _points(ax, x, value, low, high, color, label):
    """Draw points with their intervals."""
    errors = np.clip([value - low, high - value], 0, None)
    ax.errorbar(x, value, errors, fmt="o-", color=color, capsize=3, ms=5, lw=1.4, label=label)
