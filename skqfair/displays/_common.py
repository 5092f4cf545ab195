"""What the displays share: checks of tables and axes, names of bits and groups, and colours."""

import numbers
from itertools import pairwise

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError

from skqfair._optional import import_extra

__all__ = [
    "add_legend",
    "as_bits",
    "bits_label",
    "bits_title",
    "check_table",
    "column_label",
    "fitted_table",
    "group_style",
    "is_wide",
    "levels",
    "log_scale",
    "make_axes",
    "select",
    "short_labels",
    "side_by_side",
    "sort_bits",
    "tidy",
]

# Okabe and Ito's colours for every kind of colour vision, less the yellow, which is faint on white
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vP*X"
LABELS = {
    "sparsity": "sparsity of the weights",
    "saturation": "saturated share of the weights",
    "sqnr_db": "SQNR of the weights (dB)",
    "logit_variance": "logit variance",
    "margin": "top-1 margin",
    "boundary_closeness": "closeness to the boundary",
    "flip_rate": "flip rate",
    "gradient_norm": "gradient norm",
    "gradient_norm_debiased": "debiased gradient norm",
    "hessian_max_eigenvalue": "largest Hessian eigenvalue",
    "hessian_min_eigenvalue": "smallest Hessian eigenvalue",
    "hessian_trace": "Hessian trace",
    "excess_loss": "excess loss",
    "excess_loss_weights": "excess loss from weights",
    "excess_loss_first_order": "excess loss, first order",
    "excess_loss_second_order": "excess loss, second order",
    "activation_sqnr_db": "SQNR of the activations (dB)",
    "clipping_rate": "clipping rate of the activations",
}


def column_label(column):
    """Return a column's name in words."""
    return LABELS.get(column, str(column))


def as_bits(name):
    """Return the bits that a name of a model stands for, or None."""
    if name is None or name in ("float", "latent") or (isinstance(name, float) and np.isnan(name)):
        return 32
    return int(name) if isinstance(name, numbers.Integral) or str(name).isdigit() else None


def sort_bits(names):
    """Return positions from the widest to the narrowest; as given if the names are not all bits."""
    bits = [as_bits(name) for name in names]
    if None in bits:
        return np.arange(len(bits))
    return np.argsort([-b for b in bits], kind="stable")


def bits_label(name):
    """Return what an axis calls a bit width."""
    return "float" if as_bits(name) == 32 and name != "latent" else str(name)


def bits_title(name):
    """Return what a panel calls a bit width."""
    label = bits_label(name)
    return f"{label} bits" if label.isdigit() else label


def short_labels(names, width):
    """Return names of at most ``width`` characters, cut in the middle; longer where two would be one.

    >>> short_labels(["backbone.stage_1.conv.weight", "fc"], 16)
    ['backb…onv.weight', 'fc']
    """
    names = [str(name) for name in names]

    def shorten(name):
        head = width // 3
        return name if len(name) <= width else f"{name[:head]}…{name[head + 1 - width :]}"

    while len({shorten(name) for name in names}) < len(set(names)):
        width += 4
    return [shorten(name).replace("$", r"\$") for name in names]  # dollars are no formulas


_OF_DIAGNOSTICS = "it comes from a fitted skqfair.QuantizationDiagnostics"


def check_table(table, name, index, columns=(), kind=pd.DataFrame, remedy=_OF_DIAGNOSTICS):
    """Raise unless a frame or series has rows, the index levels and the columns."""
    if not isinstance(table, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got {type(table).__name__}; {remedy}.")
    if table.empty:
        raise ValueError(f"{name} must have rows, got none; {remedy}.")
    if table.index.nlevels != len(index) or not table.index.is_unique:
        raise ValueError(f"{name} must be indexed by ({', '.join(index)}), each once; {remedy}.")
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{name} lacks the columns {missing}, has {list(table.columns)}; {remedy}.")


def fitted_table(diagnostics, attribute):
    """Return a table of fitted diagnostics, or raise an error that says to fit."""
    table = getattr(diagnostics, attribute, None)
    if table is None:
        raise NotFittedError(
            f"this {type(diagnostics).__name__} has no {attribute}; give a QuantizationDiagnostics "
            "after its fit(X, y, sensitive_features=...)."
        )
    return table


def levels(table):
    """Return the values of each level of an index, in order of appearance; the first is bits, sorted."""
    values = [list(table.index.unique(level)) for level in range(table.index.nlevels)]
    values[0] = [values[0][i] for i in sort_bits(values[0])]
    return values


def select(series, *values):
    """Return an array of the entries at the product of index values, NaN where there is none."""
    wanted = pd.MultiIndex.from_product(values, names=series.index.names)
    return series.reindex(wanted).to_numpy(dtype=float).reshape([len(v) for v in values])


def group_style(position, emphasised=False):
    """Return the line and marker of a group: no two alike among the first 56."""
    return {
        "color": COLORS[position % len(COLORS)],
        "marker": MARKERS[position % len(MARKERS)],
        "linestyle": "-" if position < len(COLORS) else "--",
        "linewidth": 2.8 if emphasised else 1.2,
        "markersize": 7 if emphasised else 4.5,
        "zorder": 4 if emphasised else 3,
    }


def is_wide(values):
    """Return whether values are positive and span more than a factor of 10: a logarithmic axis."""
    values = np.asarray(values)[np.isfinite(values)]
    return values.size > 0 and values.min() > 0 and values.max() > 10 * values.min()


def side_by_side(n, width):
    """Return offsets of ``n`` things, ``width`` from the first to the last, around 0."""
    return np.linspace(-width / 2, width / 2, n) if n > 1 else np.zeros(1)


def make_axes(axes, n, *, panel=(4, 3.4), labels=()):
    """Return the ``n`` given axes, or those of a new figure, at most four in a row.

    Parameters
    ----------
    axes : sequence of matplotlib Axes or None
        Where to draw; None makes a figure.
    n : int
        Panels to draw.
    panel : tuple of float
        Width and height of a panel of a new figure, in inches.
    labels : sequence of str
        Labels of a legend to leave room for beside the panels.

    Returns
    -------
    ndarray of matplotlib Axes
        Shape (n,).

    Raises
    ------
    ValueError
        If ``axes`` are not as many as the panels.
    """
    pyplot = import_extra("matplotlib.pyplot", "plot")
    if axes is not None:
        axes = np.ravel(axes)
        if len(axes) != n:
            raise ValueError(f"axes must be {n} matplotlib Axes, got {len(axes)}.")
        return axes
    rows = -(-n // 4)
    columns = -(-n // rows)
    beside = 0.7 + 0.08 * max(map(len, labels)) if labels and rows * columns == n else 0
    size = (panel[0] * columns + beside, panel[1] * rows)
    _, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for spare in axes.flat[n:]:
        spare.axis("off")
    return axes.ravel()[:n]


def add_legend(ax, lines, labels, *, own):
    """Add the one legend: on an axes, or outside of the panels in a figure of our own."""
    spare = [other for other in ax.figure.axes if not other.axison]
    if own and spare:
        spare[0].legend(lines, labels, loc="center left", frameon=False, fontsize="small")
    elif own:
        ax.figure.legend(lines, labels, loc="outside right center", frameon=False)
    else:
        ax.legend(lines, labels, fontsize="small")


def log_scale(ax, values):
    """Make the y axis logarithmic, with ticks at 1, 2, 5 where there are few decades."""
    ticker = import_extra("matplotlib.ticker", "plot")
    few = np.nanmax(values) < 1000 * np.nanmin(values)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if few else (1,)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")


def tidy(ax, names=None):
    """Take the frame's top and right away; with names of bits, put them on the x axis."""
    ax.spines[["top", "right"]].set_visible(False)
    if names is not None:
        labels = [bits_label(name) for name in names]
        widest = max((len(a) + len(b) for a, b in pairwise(labels)), default=0)
        characters = ax.get_window_extent().width / ax.figure.dpi / 0.075  # that fit below the axes
        crowded = (widest / 2 + 1) * len(labels) > characters
        ax.set_xticks(np.arange(len(labels)), labels, rotation=45 if crowded else 0)
        ax.set_xlabel("weight bits")
