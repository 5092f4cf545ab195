from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from handmade import BITS, GROUPS, eigenvalues
from sklearn.exceptions import NotFittedError

from skqfair.displays import HessianSpectrumDisplay


def test_a_panel_for_each_width_with_one_scale():
    table = eigenvalues()
    display = HessianSpectrumDisplay(table[::-1]).plot()  # the groups in order of appearance
    assert [ax.get_title() for ax in display.axes_] == ["float", "8 bits", "2 bits"]
    for ax, bits in zip(display.axes_, BITS, strict=True):
        for line, group in zip(ax.lines, GROUPS[::-1], strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            np.testing.assert_array_equal(line.get_ydata(), [table[bits, group, r] for r in (1, 2, 3)])
    assert len({ax.get_ylim() for ax in display.axes_}) == 1
    assert display.axes_[0].get_ylim()[1] > table.max()
    (legend,) = display.figure_.legends
    assert [text.get_text() for text in legend.get_texts()] == list(GROUPS[::-1])


def test_one_eigenvalue_is_a_dot():
    table = eigenvalues(k=1, groups=("a", "b", "c"))
    (ax,) = HessianSpectrumDisplay(table).plot().axes_
    assert [text.get_text() for text in ax.get_xticklabels()] == ["float", "8", "2"]
    assert ax.get_ylabel() == "largest Hessian eigenvalue"
    for line, group in zip(ax.lines, "abc", strict=True):
        np.testing.assert_array_equal(line.get_ydata(), table.xs(group, level="group"))
        np.testing.assert_array_equal(line.get_xdata().round(), [0, 1, 2])
        assert line.get_linestyle() == "None"
    assert len({line.get_xdata()[0] for line in ax.lines}) == 3


def test_logarithmic_where_positive_and_wide():
    table = eigenvalues()
    assert HessianSpectrumDisplay(table).plot().axes_[0].get_yscale() == "log"
    assert HessianSpectrumDisplay(table - 3).plot().axes_[0].get_yscale() == "linear"
    assert HessianSpectrumDisplay(table + 100).plot().axes_[0].get_yscale() == "linear"


def test_missing_values():
    table = eigenvalues()
    table.loc[8] = np.nan
    table.loc[("float", "b", 3)] = np.nan
    display = HessianSpectrumDisplay(table.drop(index=[(2, "a", 1)])).plot()
    assert [ax.get_title() for ax in display.axes_] == ["float", "2 bits"]
    assert np.isnan(display.axes_[0].lines[1].get_ydata()).tolist() == [False, False, True]
    assert np.isnan(display.axes_[1].lines[0].get_ydata()).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="no finite value"):
        HessianSpectrumDisplay(table * np.nan)


def test_a_spare_place_in_the_grid_holds_the_legend():
    display = HessianSpectrumDisplay(eigenvalues(bits=("float", 16, 8, 4, 2))).plot()
    assert len(display.axes_) == 5
    assert not display.figure_.legends
    assert [ax.get_legend() is not None for ax in display.figure_.axes] == [False] * 5 + [True]


def test_from_diagnostics_on_given_axes():
    fitted = SimpleNamespace(hessian_eigenvalues_=eigenvalues())
    figure, axes = plt.subplots(1, 3)
    display = HessianSpectrumDisplay.from_diagnostics(fitted, axes=axes)
    assert display.axes_.tolist() == axes.tolist()
    assert display.figure_ is figure
    assert [ax.get_legend() is not None for ax in axes] == [True, False, False]
    with pytest.raises(ValueError, match="axes must be 3 matplotlib Axes, got 2"):
        display.plot(axes[:2])
    with pytest.raises(NotFittedError, match="has no hessian_eigenvalues_"):
        HessianSpectrumDisplay.from_diagnostics(SimpleNamespace())


def test_tables_of_something_else():
    with pytest.raises(TypeError, match="eigenvalues must be a Series, got DataFrame"):
        HessianSpectrumDisplay(eigenvalues().unstack())
    with pytest.raises(ValueError, match="eigenvalues must have rows, got none"):
        HessianSpectrumDisplay(eigenvalues().iloc[:0])
    with pytest.raises(ValueError, match=r"must be indexed by \(bits, group, rank\), each once"):
        HessianSpectrumDisplay(eigenvalues().droplevel(2))
