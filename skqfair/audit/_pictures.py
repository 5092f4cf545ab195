"""Dots with intervals, by group and model, as SVG that stands inside a page."""

from html import escape

import numpy as np

from skqfair.audit._verdicts import name_of

__all__ = ["dot_plot"]

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP, _BOTTOM = 720, 210, 24, 15, 8, 44
_MARKS = (
    '<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>',
    '<rect x="{a:.1f}" y="{b:.1f}" width="8" height="8"/>',
    '<path d="M{x:.1f} {b:.1f}l5 9h-10z"/>',
    '<path d="M{x:.1f} {c:.1f}l5.5 5.5-5.5 5.5-5.5-5.5z"/>',
)
N_COLORS = 7


def dot_plot(table, column, models, title, label, rows="groups"):
    """Return a figure: a row for each group and model, the estimate a mark, its interval a line.

    Parameters
    ----------
    table : DataFrame
        Index (model, group), with the column and its ``_low`` and ``_high``.
    column : str
        What is drawn.
    models : list
        All models, so that each has its own mark in every picture.
    title, label, rows : str
        Of the picture, of its axis, and what its rows are.
    """
    present = [model for model in models if model in table.index.unique(0)]
    groups = list(table.loc[present[0]].index)
    values = table[[column, f"{column}_low", f"{column}_high"]].to_numpy(dtype=float)
    ticks = _ticks(np.nanmin(values), np.nanmax(values))
    block = _ROW * len(present) + 10
    height = _TOP + block * len(groups) + _BOTTOM

    def place(value):
        return _LEFT + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (_WIDTH - _LEFT - _RIGHT)

    parts = [_grid(ticks, place, height, label)]
    for i, group in enumerate(groups):
        top = _TOP + i * block
        parts.append(_group_name(group, top + block / 2))
        if i:
            parts.append(f'<line class="rule" x1="0" x2="{_WIDTH}" y1="{top}" y2="{top}"/>')
        for j, model in enumerate(present):
            row = table.loc[(model, *(group if isinstance(group, tuple) else (group,)))]
            figures = [row[name] for name in (column, f"{column}_low", f"{column}_high")]
            if np.isfinite(figures).all():
                said = (
                    f"{name_of(group)}, {model}: {figures[0]:.3f} ({figures[1]:.3f} to {figures[2]:.3f})"
                )
                y = top + 5 + _ROW * (j + 0.5)
                parts.append(_mark(models.index(model), [place(v) for v in figures], y, said))
    description = (
        f"{title}: {len(groups)} {rows}, {', '.join(map(str, present))}. The table has the figures."
    )
    keys = "".join(_key(models.index(model), model) for model in present)
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><p class="keys" aria-hidden="true">{keys}</p>'
        f'<div class="scroll" role="region" tabindex="0" aria-label="Picture: {escape(title)}">'
        f'<svg role="img" aria-label="{escape(description)}" viewBox="0 0 {_WIDTH} {height}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg></div></figure>'
    )


def _ticks(low, high):
    """Return round numbers around a range, four to eight."""
    span = max(high - low, 1e-3)
    power = 10.0 ** np.floor(np.log10(span / 4))
    step = power * next(m for m in (1, 2, 5, 10) if span / (power * m) <= 6)
    return np.arange(np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9) + 1) * step


def _grid(ticks, place, height, label):
    bottom = height - _BOTTOM + 2
    lines = [
        f'<line class="{"zero" if abs(tick) < 1e-12 else "grid"}" x1="{place(tick):.1f}" '
        f'x2="{place(tick):.1f}" y1="{_TOP}" y2="{bottom}"/><text text-anchor="middle" '
        f'x="{place(tick):.1f}" y="{bottom + 16}">{tick + 0.0:.4g}</text>'
        for tick in ticks
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    lines.append(f'<text text-anchor="middle" x="{middle}" y="{bottom + 36}">{escape(label)}</text>')
    return "".join(lines)


def _group_name(group, y):
    name = name_of(group)
    short = name if len(name) <= 27 else f"{name[:26]}…"
    return (
        f'<text text-anchor="end" x="{_LEFT - 10}" y="{y + 4:.1f}">{escape(short)}'
        f"<title>{escape(name)}</title></text>"
    )


def _mark(model, places, y, said):
    x, low, high = places
    shape = _MARKS[model % len(_MARKS)].format(x=x, y=y, a=x - 4, b=y - 4.5, c=y - 5.5)
    return (
        f'<g class="m{model % N_COLORS}"><title>{escape(said)}</title>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>{shape}</g>'
    )


def _key(position, model):
    shape = _MARKS[position % len(_MARKS)].format(x=7, y=7, a=3, b=2.5, c=1.5)
    mark = f'<g class="m{position % N_COLORS}">{shape}</g>'
    svg = f'<svg width="14" height="14" viewBox="0 0 14 14">{mark}</svg>'
    return f"<span>{svg} {escape(str(model))}</span> "
