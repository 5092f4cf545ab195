"""Which layers cost which groups."""

import numpy as np
import pandas as pd

from skqfair.displays._common import (
    as_bits,
    bits_title,
    check_table,
    column_label,
    fitted_table,
    levels,
    make_axes,
    select,
    short_labels,
)

__all__ = ["LayerSensitivityDisplay"]

ANNOTATED = 60  # cells that can be read


class LayerSensitivityDisplay:
    """A map of layers and groups: what the quantization of each layer does to each group.

    Excess losses are coloured around 0: red costs the group, blue helps it. Cells without a finite
    value are grey.

    Parameters
    ----------
    attribution : DataFrame
        ``attribution_`` of :class:`skqfair.QuantizationDiagnostics`, index (bits, layer, group).
    bits : int or str, optional
        Bit width to draw; None takes the narrowest.
    column : str, default="excess_loss_second_order"
        Column of the table to draw.

    Attributes
    ----------
    bits_ : int or str
        Bit width drawn.
    matrix_ : DataFrame
        The values, layers by groups, in the order of the table.
    figure_ : matplotlib Figure
        After :meth:`plot`.
    ax_ : matplotlib Axes
        After :meth:`plot`.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqfair.displays import LayerSensitivityDisplay
    >>> attribution = pd.DataFrame(
    ...     {"excess_loss_second_order": [0.1, 0.4, -0.1, 0.2]},
    ...     index=pd.MultiIndex.from_product(
    ...         [[2], ["0.weight", "2.weight"], ["a", "b"]], names=["bits", "layer", "group"]))
    >>> LayerSensitivityDisplay(attribution).plot().matrix_
    group       a    b
    layer
    0.weight  0.1  0.4
    2.weight -0.1  0.2
    """

    def __init__(self, attribution, bits=None, column="excess_loss_second_order"):
        check_table(attribution, "attribution", ("bits", "layer", "group"), [column])
        widths = levels(attribution)[0]
        if bits is None:
            bits = min(widths[::-1], key=lambda name: as_bits(name) or 0)
        elif bits not in widths:
            raise ValueError(f"bits must be one of {widths}, the widths in attribution, got {bits!r}.")
        here = attribution.loc[attribution.index.get_level_values(0) == bits, column]
        _, layers, groups = levels(here)
        self.bits_, self.column = bits, column
        self.matrix_ = pd.DataFrame(
            select(here, [bits], layers, groups)[0],
            index=pd.Index(layers, name="layer"),
            columns=pd.Index(groups, name="group"),
        )
        if not np.isfinite(self.matrix_.to_numpy()).any():
            others = attribution[attribution.index.get_level_values(0) == bits].drop(columns=column)
            finite = [name for name in others if np.isfinite(others[name]).any()]
            raise ValueError(
                f"column {column!r} has no finite value at {bits_title(bits)}: the warnings of fit say "
                f"why. Those that have some are {finite}; pass one as column."
            )
        self.figure_ = self.ax_ = None

    @classmethod
    def from_diagnostics(
        cls, diagnostics, *, bits=None, column="excess_loss_second_order", ax=None, im_kw=None
    ):
        """Make and plot the display from fitted diagnostics.

        Parameters
        ----------
        diagnostics : QuantizationDiagnostics
            Fitted.
        bits, column
            See the class.
        ax : matplotlib Axes, optional
            Where to draw.
        im_kw : dict, optional
            See :meth:`plot`.

        Returns
        -------
        LayerSensitivityDisplay
            Plotted.

        Raises
        ------
        NotFittedError
            If the diagnostics are not fitted.
        """
        return cls(fitted_table(diagnostics, "attribution_"), bits, column).plot(ax, im_kw=im_kw)

    def plot(self, ax=None, *, im_kw=None):
        """Draw the map, with its numbers where there are at most 60 cells.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; None makes a figure.
        im_kw : dict, optional
            Options of ``imshow``, e.g. ``{"vmin": -1, "vmax": 1}`` for the same colours in several maps.

        Returns
        -------
        LayerSensitivityDisplay
            Itself, with ``figure_`` and ``ax_``.

        Raises
        ------
        ValueError
            If ``ax`` is more than one.
        ImportError
            If matplotlib is not installed.
        """
        layers = short_labels(self.matrix_.index, 36)
        groups = short_labels(self.matrix_.columns, 24)
        values = np.ma.masked_invalid(self.matrix_.to_numpy())
        slanted = max(map(len, groups)) > 6
        width = 2.2 + 0.075 * max(map(len, layers)) + 0.6 * len(groups)
        height = 0.8 + max(1.8, 0.22 * len(layers)) + slanted * 0.06 * max(map(len, groups))
        (ax,) = make_axes(ax, 1, panel=(width, height))
        im_kw = im_kw or {}
        options = {"aspect": "auto", "interpolation": "nearest", "cmap": "viridis"}
        if self.column.startswith("excess_loss"):
            options["cmap"] = "RdBu_r"
            if "norm" not in im_kw:
                limit = float(abs(values).max()) or 1.0
                options |= {"vmin": -limit, "vmax": limit}
        image = ax.imshow(values, **(options | im_kw))
        ax.set_facecolor("0.8")
        ax.set_yticks(np.arange(len(layers)), layers, fontsize="small")
        slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        ax.set_xticks(np.arange(len(groups)), groups, fontsize="small", **slant)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_title(bits_title(self.bits_), fontsize="medium")
        ax.figure.colorbar(image, ax=ax, label=column_label(self.column))
        if values.size <= ANNOTATED:
            for (row, column), value in np.ndenumerate(self.matrix_.to_numpy()):
                red, green, blue, _ = image.cmap(image.norm(value)) if np.isfinite(value) else (1,) * 4
                dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
                style = {"color": "w" if dark else "k", "fontsize": "small", "ha": "center"}
                exact = value == np.inf and self.column.endswith("sqnr_db")
                text = "exact" if exact else f"{value:.2g}".replace("-", "−")
                ax.text(column, row, text, va="center", **style)
        self.figure_, self.ax_ = ax.figure, ax
        return self
