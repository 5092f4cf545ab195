"""Audits as one self-contained page."""

from html import escape

from skqfair.audit._page import SCRIPT, STYLE
from skqfair.audit._pictures import dot_plot
from skqfair.audit._present import SECTIONS, cells, table_of
from skqfair.audit._searched import FIGURES, searched_table

__all__ = ["as_html"]


def as_html(audit, *, page=True):
    """Return a page, or a fragment for a notebook."""
    body = f'<main class="skqfair-audit">{_body(audit)}</main>'
    if not page:
        return f"<style>{STYLE}</style>{body}<script>{SCRIPT}</script>"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>Audit of compression against {escape(str(audit.reference))}</title>"
        f"<style>body{{margin:0}}{STYLE}</style></head><body>{body}<script>{SCRIPT}</script></body></html>\n"
    )


def _body(audit):
    compressed = [str(name) for name in audit.models.index if name != audit.reference]
    listed = ", ".join(compressed) if len(compressed) <= 5 else f"{len(compressed)} models"
    level = f"{audit.confidence:.0%} confidence"
    n_groups = len(audit.groups.loc[[audit.reference]])
    parts = [
        "<h1>Whom did compression harm?</h1>",
        f'<p class="lead">{escape(listed or "No compressed model")} against '
        f"{escape(str(audit.reference))}, on {audit.context['samples']} samples of {n_groups} groups, "
        f"at {level}.</p>",
        "<h2>In words</h2><ul>",
        *(f"<li>{escape(said)}</li>" for said in audit.verdicts),
        "</ul>",
    ]
    for name, title, note in SECTIONS:
        table = table_of(audit, name)
        if not len(table):
            continue
        parts.append(f"<section><h2>{title}</h2><p>{note}</p>{_picture(audit, name)}")
        parts.append(_table(table, title) + "</section>")
    return "".join(parts) + _origin(audit.context)


def _picture(audit, name):
    models = list(audit.models.index)
    if name == "models":
        table = searched_table(audit)
        return "" if table is None else "".join(_curve(table, column) for column in FIGURES)
    if name == "changes":
        title = f"Change of accuracy by group, against {audit.reference}"
        return dot_plot(audit.changes, "change", models, title, "change of accuracy")
    if name == "groups":
        return dot_plot(audit.groups, "accuracy", models, "Accuracy by group", "accuracy")
    return ""


def _curve(table, column):
    lines, label = list(table.index.unique(0)), FIGURES[column]
    title = f"{label[0].upper()}{label[1:]} by weight bits"
    return dot_plot(table, column, lines, title, label, rows="bit widths")


def _table(table, title):
    """Return a table whose columns sort when their heads are pressed."""
    header, rows = cells(table)
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(head)}</button></th>'
        for head in header
    )
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="Table: {escape(title)}"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _cell(cell):
    text, key = cell
    if text == key:
        return f"<td>{escape(text)}</td>"
    return f'<td class="n" data-key="{escape(key)}">{escape(text)}</td>'


def _origin(context):
    versions = ", ".join(f"{name} {version}" for name, version in context["versions"].items())
    return (
        "<footer><h2>Origin</h2><dl>"
        f"<dt>Call</dt><dd><code>{escape(context['call'])}</code></dd>"
        f"<dt>Data</dt><dd>{context['samples']} samples, SHA-256 "
        f"<code>{escape(context['data_sha256'])}</code></dd>"
        f"<dt>Made</dt><dd>{escape(context['created'])}; {escape(versions)}</dd></dl></footer>"
    )
