"""The figures, drawn from the tables alone: means over seeds, whiskers are 95 % t-intervals.

Lines of single groups against bits are without whiskers, which would hide each other.
"""

import numpy as np
from matplotlib.figure import Figure

from paper._stages import MITIGATIONS
from paper._verdicts import compare

__all__ = ["FIGURES"]

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")


def _axes(n_rows, n_columns, height=2.5):
    figure = Figure(figsize=(2.75 * n_columns, height * n_rows), layout="constrained", dpi=80)
    return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def _line(axis, x, arrays, label=None, whiskers=True, **style):
    """Draw the means of arrays over seeds."""
    found = [compare(values) for values in arrays]
    means = np.array([f["mean"] for f in found])
    half = np.nan_to_num([f["high"] - f["mean"] for f in found]) if whiskers else None
    axis.errorbar(x, means, half, label=label, capsize=2, lw=1.2, ms=3, **{"marker": "o", **style})


def _bits_axis(axis, r):
    axis.set_xticks(range(len(r.bits) + 1), ["float", *r.bits])
    axis.set_xlabel("bits")


def _share(axis):
    """Keep to the range of a share, whatever the whiskers."""
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, -0.02), min(high, 1.02))


def _log(axis):
    """A logarithmic axis around the means, whatever the whiskers."""
    means = np.concatenate([bars[0].get_ydata() for bars in axis.containers])
    axis.set_yscale("log")
    axis.set_ylim(np.nanmin(means) / 2, np.nanmax(means) * 2)


def _size_axis(axis, r, task):
    """Groups from the smallest to the largest; their names, if that order is the same for all seeds."""
    order = np.argsort(r.sizes(task), axis=0)
    names = np.array(r.group_names(task))[order[:, 0]]
    same = (order == order[:, :1]).all()
    labels = [str(name)[:12] for name in names] if same else range(1, len(order) + 1)
    axis.set_xticks(range(len(order)), labels, fontsize=6, rotation=20 if same else 0)
    axis.set_xlabel("groups, the smallest first", fontsize=8)


def _by_size(r, task, values):
    """Sort the groups of each seed by their size."""
    return np.take_along_axis(values, np.argsort(r.sizes(task), axis=0), axis=0)


def _group_colors(r, task):
    """Return the groups from the smallest, each with its color: one of a few, or from dark to light."""
    order = np.argsort(r.sizes(task).mean(axis=1))
    if len(order) <= len(_COLORS):
        return list(zip(order, _COLORS, strict=False))
    shades = np.linspace(0, 0.8, len(order))
    return [
        (g, (0.85 * s + 0.1, 0.25 + 0.5 * s, 0.7 - 0.2 * s)) for g, s in zip(order, shades, strict=True)
    ]


def precision(r):
    """FVO against bits, and accuracy by group."""
    figure, axes = _axes(len(r.tasks), 3)
    for row, task in zip(axes, r.tasks, strict=True):
        x = range(len(r.bits) + 1)
        start = r.fvo(task, "float")
        for axis, both in zip(row, (False, True), strict=False):
            for q, color in zip(r.quantizers, _COLORS, strict=False):
                steps = [r.fvo(task, q, b, b if both else None) for b in r.bits]
                _line(axis, x, [start, *steps], q, color=color)
            axis.set_title(f"{task}: {'weights and activations' if both else 'weights'}", fontsize=9)
            axis.set_ylabel("FVO")
            _share(axis)
        names = r.group_names(task)
        steps = [r.by_group("accuracy", task, *k) for k in [("float",), *(("plain", b) for b in r.bits)]]
        for g, color in _group_colors(r, task):
            _line(row[2], x, [step[g] for step in steps], names[g], False, color=color)
        row[2].set_title(f"{task}: by group, plain, weights", fontsize=9)
        row[2].set_ylabel("accuracy")
        _share(row[2])
        for axis in row:
            _bits_axis(axis, r)
        row[0].legend(fontsize=7)
        beside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1)}
        row[2].legend(fontsize=6, title="smallest first", title_fontsize=6, **beside)
    return figure


def minorities(r):
    """Excess loss and accuracy drop against group size."""
    figure, axes = _axes(len(r.tasks), 4)
    for row, task in zip(axes, r.tasks, strict=True):
        x = range(len(r.group_names(task)))
        columns = [(q, column) for column in ("loss", "accuracy") for q in r.quantizers]
        for axis, (q, column) in zip(row, columns, strict=True):
            sign = 1 if column == "loss" else -1
            for b, color in zip(r.few, _COLORS, strict=False):
                change = r.by_group(column, task, q, b) - r.by_group(column, task, "float")
                _line(axis, x, sign * _by_size(r, task, change), f"{b} bits", color=color)
            axis.axhline(0, color="0.7", lw=0.8, zorder=0)
            _size_axis(axis, r, task)
            axis.set_ylabel("excess loss" if column == "loss" else "accuracy drop")
            axis.set_title(f"{task}: {q}", fontsize=9)
        row[0].legend(fontsize=7)
    return figure


def cascade(r):
    """Sparsity, logit variance, loss and closeness to the boundary by bits and group."""
    figure, axes = _axes(len(r.tasks), 4)
    titles = ("logit_variance", "loss", "boundary_closeness")
    for row, task in zip(axes, r.tasks, strict=True):
        x = range(len(r.bits) + 1)
        for q, color in zip(r.quantizers, _COLORS, strict=False):
            steps = [
                r.model("sparsity", task, "float"),
                *(r.model("sparsity", task, q, b) for b in r.bits),
            ]
            _line(row[0], x, steps, q, color=color)
        row[0].set_title(f"{task}: sparsity", fontsize=9)
        row[0].legend(fontsize=7)
        names = r.group_names(task)
        keys = [("float",), *(("plain", b) for b in r.bits)]
        for axis, column in zip(row[1:], titles, strict=True):
            steps = [r.by_group(column, task, *key) for key in keys]
            for g, color in _group_colors(r, task):
                _line(axis, x, [step[g] for step in steps], names[g], False, color=color)
            axis.set_title(f"{task}: {column.replace('_', ' ')}, plain", fontsize=9)
        _log(row[1])
        _log(row[2])
        row[1].legend(fontsize=6, title="smallest first", title_fontsize=6)
        for axis in row:
            _bits_axis(axis, r)
    return figure


def zeros(r):
    """What zeros do, and what rounding does, apart."""
    figure, axes = _axes(len(r.tasks), 3)
    methods = {"plain": "quantized", "zeros": "zeros alone", "rounding": "rounding alone"}
    methods["zeros at random"] = "as many zeros, at random"
    for row, task in zip(axes, r.tasks, strict=True):
        x = range(len(r.bits) + 1)
        for axis, column in zip(row, ("fvo", "accuracy", "logit_variance"), strict=True):
            for (method, label), color in zip(methods.items(), _COLORS, strict=False):
                steps = [r.model(column, task, method, b) for b in r.bits]
                _line(axis, x, [r.model(column, task, "float"), *steps], label, color=color)
            name = "FVO" if column == "fvo" else column.replace("_", " ")
            axis.set_title(f"{task}: {name}", fontsize=9)
            _bits_axis(axis, r)
            (_log if column == "logit_variance" else _share)(axis)
        row[0].legend(fontsize=6)
    return figure


def curvature(r):
    """Gradient norms and eigenvalues by group, plain and at matched sizes."""
    figure, axes = _axes(len(r.tasks), 4)
    columns = {"gradient_norm": "gradient norm", "hessian_max_eigenvalue": "largest eigenvalue"}
    for row, task in zip(axes, r.tasks, strict=True):
        x = range(len(r.group_names(task)))
        panels = [(column, how) for column in columns for how in ("plain", "matched")]
        for axis, (column, how) in zip(row, panels, strict=True):
            for b, color in zip((None, *r.few), ("0.3", *_COLORS), strict=False):
                values = r.curvature(column, how, task, "plain" if b else "float", b)
                values = _by_size(r, task, values)
                _line(axis, x, values, f"{b} bits" if b else "float", color=color)
            _log(axis)
            _size_axis(axis, r, task)
            axis.set_title(f"{task}: {columns[column]}, {how}", fontsize=8)
        row[0].legend(fontsize=6)
    return figure


def pruning(r):
    """Accuracy and FVO against bytes."""
    figure, axes = _axes(len(r.tasks), 2)
    for row, task in zip(axes, r.tasks, strict=True):
        for axis, column in zip(row, ("accuracy", "fvo"), strict=True):
            for method, color in zip((*r.quantizers, "pruned"), _COLORS, strict=False):
                size = [r.model("bytes", task, method, b).mean() / 1000 for b in r.bits]
                _line(
                    axis, size, [r.model(column, task, method, b) for b in r.bits], method, color=color
                )
            for method, color in (("QAT", _COLORS[3]), ("pruned, fine-tuned", _COLORS[4])):
                size = [r.model("bytes", task, method, r.mitigated).mean() / 1000]
                _line(axis, size, [r.model(column, task, method, r.mitigated)], method, color=color)
            axis.axhline(r.model(column, task, "float").mean(), color="0.5", lw=0.8, ls=":")
            axis.set_xscale("log")
            sizes = [r.model("bytes", task, "default", b).mean() / 1000 for b in r.bits]
            axis.set_xticks(sizes, [f"{size:.{0 if size > 20 else 1}f}" for size in sizes])
            axis.minorticks_off()
            _share(axis)
            axis.set_xlabel("kilobytes (dotted: float)")
            axis.set_title(f"{task}: {'FVO' if column == 'fvo' else column}", fontsize=9)
        row[0].legend(fontsize=6)
    return figure


def mitigation(r):
    """FVO and accuracy after each mitigation."""
    figure, axes = _axes(len(r.tasks), 2, height=3)
    names = ["float", *MITIGATIONS]
    y = np.arange(len(names))[::-1]
    for row, task in zip(axes, r.tasks, strict=True):
        for axis, column in zip(row, ("fvo", "accuracy"), strict=True):
            for position, name in zip(y, names, strict=True):
                bits = None if name.startswith("float") else r.mitigated
                found = compare(r.model(column, task, name, bits))
                half = np.nan_to_num(found["high"] - found["mean"])
                color = _COLORS[0] if bits else "0.4"
                axis.errorbar(found["mean"], position, xerr=half, fmt="o", ms=3, capsize=2, color=color)
            axis.set_yticks(y, names if axis is row[0] else [], fontsize=6)
            title = f"{'FVO' if column == 'fvo' else column}, {r.mitigated} bits"
            axis.set_title(f"{task}: {title}", fontsize=9)
            axis.grid(axis="x", lw=0.4)
    return figure


FIGURES = {
    "precision": (precision, "Precision against FVO, and accuracy by group."),
    "minorities": (minorities, "What few bits cost each group, against its size; weights."),
    "cascade": (cascade, "Sparsity, logit variance, loss and closeness to the boundary."),
    "zeros": (zeros, "Intervention: zeros without rounding, rounding without zeros."),
    "curvature": (curvature, "Gradient norms and curvature by group size, plain quantizer, weights."),
    "pruning": (pruning, "Quantization and pruning at the same bytes."),
    "mitigation": (mitigation, "Mitigations."),
}
