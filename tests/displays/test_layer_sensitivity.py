from itertools import pairwise
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from handmade import GROUPS, LAYERS, attribution
from sklearn.exceptions import NotFittedError

from skqfair.displays import LayerSensitivityDisplay


def texts(labels):
    return [label.get_text() for label in labels]


@pytest.mark.parametrize("bits", [None, 2, 8])
def test_the_map_is_the_table_at_one_width(bits):
    table = attribution(layers=("z", "a", "m"))
    display = LayerSensitivityDisplay(table, bits).plot()
    expected = table.xs(bits or 2)["excess_loss_second_order"].to_numpy().reshape(3, 2)
    np.testing.assert_array_equal(display.ax_.images[0].get_array(), expected)
    assert texts(display.ax_.get_yticklabels()) == ["z", "a", "m"]
    assert texts(display.ax_.get_xticklabels()) == list(GROUPS)
    assert display.ax_.get_title() == f"{bits or 2} bits"
    assert texts(display.ax_.texts) == [f"{v:.2g}".replace("-", "−") for v in expected.ravel()]
    assert display.matrix_.loc["a", "b"] == expected[1, 1]
    assert display.figure_ is display.ax_.figure


def test_excess_loss_is_centred_and_the_rest_is_not():
    table = attribution()
    image = LayerSensitivityDisplay(table, column="excess_loss_first_order").plot().ax_.images[0]
    limit = abs(table.xs(2)["excess_loss_first_order"]).max()
    assert (image.norm.vmin, image.norm.vmax) == (-limit, limit)
    assert image.colorbar.ax.get_ylabel() == "excess loss, first order"
    image = LayerSensitivityDisplay(table, column="activation_sqnr_db").plot().ax_.images[0]
    assert image.norm.vmin == table.xs(2)["activation_sqnr_db"].min() > 0
    assert image.colorbar.ax.get_ylabel() == "SQNR of the activations (dB)"
    zero = LayerSensitivityDisplay(table.assign(excess_loss_second_order=0.0)).plot()
    np.testing.assert_allclose(zero.ax_.images[0].to_rgba(0.0)[:3], [0.97] * 3, atol=0.01)


def test_cells_without_a_finite_value():
    table = attribution()
    table.iloc[-1] = np.nan
    table.iloc[-2] = np.inf
    display = LayerSensitivityDisplay(table).plot()
    np.testing.assert_array_equal(display.ax_.images[0].get_array().mask, [[False, False], [True, True]])
    assert texts(display.ax_.texts)[2:] == ["inf", "nan"]
    missing = LayerSensitivityDisplay(table.drop(index=[(2, LAYERS[0], "b")]))
    assert np.isnan(missing.matrix_.loc[LAYERS[0], "b"])
    message = r"'clipping_rate' has no finite value at 2 bits: .* \['excess_loss_first_order'"
    with pytest.raises(ValueError, match=message):
        LayerSensitivityDisplay(table.assign(clipping_rate=np.nan), column="clipping_rate")


def test_exact_layers_are_said_to_be():
    table = attribution().assign(activation_sqnr_db=[10.0, np.inf] * (len(attribution()) // 2))
    display = LayerSensitivityDisplay(table, column="activation_sqnr_db").plot()
    assert texts(display.ax_.texts) == ["10", "exact"] * (display.matrix_.size // 2)


def test_many_layers_with_long_names_do_not_overlap():
    layers = [f"backbone.encoder.layer{i // 10}.{i % 10}.attention.linear.weight" for i in range(60)]
    groups = [f"an intersection of many features, {i}" for i in range(12)]
    display = LayerSensitivityDisplay(attribution(layers=layers, groups=groups)).plot()
    display.figure_.draw_without_rendering()
    boxes = [label.get_window_extent() for label in display.ax_.get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in pairwise(boxes))
    labels = texts(display.ax_.get_yticklabels())
    assert len(set(labels)) == 60
    assert max(map(len, labels)) <= 44
    assert not display.ax_.texts


def test_which_bits():
    table = attribution(bits=("latent", "W8A8", "W2A8"))
    assert LayerSensitivityDisplay(table).bits_ == "W2A8"
    assert LayerSensitivityDisplay(table, "W8A8").plot().ax_.get_title() == "W8A8"
    assert LayerSensitivityDisplay(attribution(bits=(2, 16, 8))).bits_ == 2
    with pytest.raises(ValueError, match=r"bits must be one of \[8, 2\].*got 4"):
        LayerSensitivityDisplay(attribution(), 4)


def test_from_diagnostics_on_a_given_ax():
    fitted = SimpleNamespace(attribution_=attribution())
    figure, axes = plt.subplots(1, 2)
    display = LayerSensitivityDisplay.from_diagnostics(
        fitted, bits=8, column="clipping_rate", ax=axes[1]
    )
    assert display.ax_ is axes[1]
    assert display.figure_ is figure
    assert display.bits_ == 8
    with pytest.raises(ValueError, match="axes must be 1 matplotlib Axes, got 2"):
        display.plot(axes)
    with pytest.raises(NotFittedError, match="has no attribution_"):
        LayerSensitivityDisplay.from_diagnostics(SimpleNamespace())


def test_tables_of_something_else():
    with pytest.raises(ValueError, match=r"attribution lacks the columns \['flips'\], has \['excess"):
        LayerSensitivityDisplay(attribution(), column="flips")
    with pytest.raises(ValueError, match="attribution must have rows, got none"):
        LayerSensitivityDisplay(attribution().iloc[:0])
    with pytest.raises(ValueError, match=r"must be indexed by \(bits, layer, group\), each once"):
        LayerSensitivityDisplay(attribution().droplevel(2))


def test_maps_with_the_same_colours():
    limits = {"vmin": -3, "vmax": 2, "cmap": "PiYG"}
    fitted = SimpleNamespace(attribution_=attribution(), __sklearn_is_fitted__=lambda: True)
    for display in (
        LayerSensitivityDisplay(attribution()).plot(im_kw=limits),
        LayerSensitivityDisplay.from_diagnostics(fitted, im_kw=limits),
    ):
        image = display.ax_.images[0]
        assert (image.norm.vmin, image.norm.vmax, image.cmap.name) == (-3, 2, "PiYG")
    norm = plt.Normalize(0, 5)
    assert LayerSensitivityDisplay(attribution()).plot(im_kw={"norm": norm}).ax_.images[0].norm is norm
