from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from handmade import BITS, GROUPS, group_report, layer_report
from sklearn.exceptions import NotFittedError

from skqfair.displays import GroupDiagnosticsDisplay

STEPS = ["logit_variance", "boundary_closeness", "loss", "accuracy"]
MATCHED = ["gradient_norm", "hessian_max_eigenvalue"]


def ticks(ax):
    return [text.get_text() for text in ax.get_xticklabels()]


def legends(figure):
    found = [*figure.legends, *(ax.get_legend() for ax in figure.axes)]
    return [[text.get_text() for text in one.get_texts()] for one in found if one is not None]


def test_a_panel_for_each_step_of_the_cascade():
    display = GroupDiagnosticsDisplay(group_report(), layer_report()).plot()
    assert display.columns_ == ["sparsity", *STEPS, *MATCHED]
    assert [ax.get_ylabel() for ax in display.axes_] == [
        "sparsity of the weights",
        "logit variance",
        "closeness to the boundary",
        "loss",
        "accuracy",
        "gradient norm\n(at n=64)",
        "largest Hessian eigenvalue\n(at n=64)",
    ]
    assert all(ticks(ax) == ["float", "8", "2"] for ax in display.axes_)
    assert display.figure_ is display.axes_[0].figure
    assert display.plot() is display


def test_lines_are_the_values_of_the_report():
    report = group_report(groups=("a", "b", "c")).sample(frac=1, random_state=0)
    display = GroupDiagnosticsDisplay(report).plot()
    order = report.index.unique("group")
    for ax, column in zip(display.axes_, [*STEPS, *MATCHED], strict=True):
        for line, group in zip(ax.lines, order, strict=True):
            expected = [report.loc[(bits, group), column] for bits in BITS]
            np.testing.assert_array_equal(line.get_ydata(), expected)
            exact = 0 if column in STEPS else 0.15
            np.testing.assert_allclose(line.get_xdata(), np.arange(3), atol=exact)


def test_sparsity_is_the_mean_over_weights_and_unknown_for_float():
    layers = layer_report()
    ax = GroupDiagnosticsDisplay(group_report(), layers).plot().axes_[0]
    (line,) = ax.lines
    for bits, drawn in zip((8, 2), line.get_ydata()[1:], strict=True):
        rows = layers.loc[bits]
        np.testing.assert_allclose(drawn, np.average(rows["sparsity"], weights=rows["n_weights"]))
    assert np.isnan(line.get_ydata()[0])


def test_whiskers_are_the_intervals():
    report = group_report()
    report.loc[[(2, "b")], "gradient_norm_low"] = np.nan
    ax, without = GroupDiagnosticsDisplay(report, columns=["gradient_norm", "loss"]).plot().axes_
    for whiskers, line, group in zip(ax.collections, ax.lines, GROUPS, strict=True):
        drawn = np.array(whiskers.get_segments())
        bounds = report.xs(group, level="group")[["gradient_norm_low", "gradient_norm_high"]].dropna()
        np.testing.assert_array_equal(drawn[:, :, 1], bounds)
        np.testing.assert_array_equal(drawn[:, 0, 0], line.get_xdata()[: len(bounds)])
    assert [len(whiskers.get_segments()) for whiskers in ax.collections] == [3, 2]
    assert not any(whiskers.get_segments() for whiskers in without.collections)


def test_one_legend_with_counts_and_the_smallest_group_thick():
    display = GroupDiagnosticsDisplay(group_report(groups=("White", "Black", 3)), layer_report()).plot()
    assert legends(display.figure_) == [["White (n=4,050)", "Black (n=2,049)", "3 (n=1,048)"]]
    widths = [line.get_linewidth() for line in display.axes_[1].lines]
    assert widths[0] == widths[1] < widths[2]
    equal = group_report()
    equal["count"] = 10
    lines = GroupDiagnosticsDisplay(equal).plot().axes_[0].lines
    assert lines[0].get_linewidth() == lines[1].get_linewidth()


def test_twelve_groups_with_long_names_look_different():
    groups = [f"an intersection of quite many features, {i}" for i in range(12)]
    display = GroupDiagnosticsDisplay(group_report(groups=groups), columns=["loss"]).plot()
    looks = {(line.get_color(), line.get_linestyle()) for line in display.axes_[0].lines}
    (labels,) = legends(display.figure_)
    assert len(looks) == len(set(labels)) == 12
    assert all(len(label.partition(" (n")[0]) <= 32 for label in labels)


def test_a_wide_range_is_logarithmic_where_all_is_positive():
    report = group_report()
    for column in ("hessian_max_eigenvalue", "accuracy"):
        report[column] = np.logspace(-2, 2, len(report))
    display = GroupDiagnosticsDisplay(report, columns=["hessian_max_eigenvalue", "accuracy"]).plot()
    assert [ax.get_yscale() for ax in display.axes_] == ["log", "linear"]
    report["hessian_max_eigenvalue"] -= 1
    (ax,) = GroupDiagnosticsDisplay(report, columns=["hessian_max_eigenvalue"]).plot().axes_
    assert ax.get_yscale() == "linear"


def test_bits_of_all_kinds():
    report = group_report(bits=(2, 8, "latent", "float"))
    display = GroupDiagnosticsDisplay(report, layer_report(), columns=["loss", "sqnr_db"]).plot()
    assert ticks(display.axes_[0]) == ["latent", "float", "8", "2"]
    np.testing.assert_array_equal(
        display.axes_[0].lines[0].get_ydata()[-1], report.loc[(2, "a"), "loss"]
    )
    display = GroupDiagnosticsDisplay(group_report(bits=("float", "W8A8", "W4A8"))).plot()
    assert ticks(display.axes_[0]) == ["float", "W8A8", "W4A8"]


def test_columns_without_values_are_left_out_and_gaps_stay_gaps():
    report = group_report()
    report["hessian_max_eigenvalue"] = np.nan
    report = report.drop(index=[(8, "b")])
    display = GroupDiagnosticsDisplay(report).plot()
    assert display.columns_ == [*STEPS, "gradient_norm"]
    assert np.isnan(display.axes_[0].lines[1].get_ydata()).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"columns \['hessian_max_eigenvalue'\] have no finite value"):
        GroupDiagnosticsDisplay(report, columns=["hessian_max_eigenvalue"])


def test_matched_sizes_in_the_label():
    report = group_report()
    report["n_matched"] = [1000, 64] * 3
    (ax,) = GroupDiagnosticsDisplay(report, columns=["gradient_norm"]).plot().axes_
    assert ax.get_ylabel() == "gradient norm\n(at n=64–1,000)"
    for without in (report.drop(columns="n_matched"), report.assign(n_matched=np.nan)):
        (ax,) = GroupDiagnosticsDisplay(without, columns=["gradient_norm"]).plot().axes_
        assert ax.get_ylabel() == "gradient norm"


def test_on_given_axes():
    figure, axes = plt.subplots(2, 1)
    display = GroupDiagnosticsDisplay(group_report(), layer_report(), columns=["sparsity", "loss"])
    assert display.plot(axes).axes_.tolist() == axes.tolist()
    assert display.figure_ is figure
    assert legends(figure) == [["a (n=4,050)", "b (n=2,049)"]]
    assert axes[1].get_legend() is not None
    with pytest.raises(ValueError, match="axes must be 2 matplotlib Axes, got 1"):
        display.plot(axes[0])


def test_from_diagnostics():
    fitted = SimpleNamespace(group_report_=group_report(), layer_report_=layer_report())
    _, ax = plt.subplots()
    display = GroupDiagnosticsDisplay.from_diagnostics(fitted, columns=["loss"], axes=ax)
    assert display.axes_.tolist() == [ax]
    assert len(GroupDiagnosticsDisplay.from_diagnostics(fitted).axes_) == 7
    with pytest.raises(NotFittedError, match=r"has no group_report_; give .* after its fit"):
        GroupDiagnosticsDisplay.from_diagnostics(SimpleNamespace())


def test_tables_of_something_else():
    report = group_report()
    with pytest.raises(ValueError, match=r"lack the columns \['loss'\], have \['accuracy'"):
        GroupDiagnosticsDisplay(report.drop(columns="loss"))
    with pytest.raises(ValueError, match=r"lack the columns \['sparsity'\].*or give layer_report"):
        GroupDiagnosticsDisplay(report, columns=["sparsity"])
    with pytest.raises(ValueError, match=r"group_report lacks the columns \['count'\]"):
        GroupDiagnosticsDisplay(report.drop(columns="count"))
    with pytest.raises(ValueError, match="group_report must have rows, got none"):
        GroupDiagnosticsDisplay(report.iloc[:0])
    with pytest.raises(ValueError, match=r"layer_report must have rows, got none"):
        GroupDiagnosticsDisplay(report, layer_report().iloc[:0])
    with pytest.raises(ValueError, match=r"group_report must be indexed by \(bits, group\), each once"):
        GroupDiagnosticsDisplay(report.droplevel(0))
    with pytest.raises(TypeError, match="group_report must be a DataFrame, got Series"):
        GroupDiagnosticsDisplay(report["loss"])
