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
        f"<title>{_title(audit)}</title>"
        f"<style>body{{margin:0}}{STYLE}</style></head><body>{body}<script>{SCRIPT}</script></body></html>\n"
    )


def _body(audit):
    compressed = [str(name) for name in audit.models.index if name != audit.reference]
    listed = ", ".join(compressed) if len(compressed) <= 5 else f"{len(compressed)} models"
    subject = f"{listed} against {audit.reference}" if compressed else str(audit.reference)
    level = f"{audit.confidence:.0%} confidence"
    n_groups = len(audit.groups.loc[[audit.reference]])
    parts = [
        f"<h1>{'Whom did compression harm?' if compressed else 'Whom does it serve worse?'}</h1>",
        f'<p class="lead">{escape(subject)}, on {audit.context["samples"]} samples of {n_groups} '
        f"groups, at {level}.</p>",
        "<h2>In words</h2><ul>",
        *(f"<li>{escape(said)}</li>" for said in audit.verdicts),
        "</ul>",
    ]
    if limits := audit.context.get("limits"):
        kept = "".join(f"<li>{escape(said)}</li>" for said in limits)
        parts.append(f"<h2>Limits</h2><ul>{kept}</ul>")
    for name, title, note in SECTIONS:
        table = table_of(audit, name)
        if not len(table):
            continue
        parts.append(f"<section><h2>{title}</h2><p>{note}</p>{_picture(audit, name)}")
        parts.append(_table(table, title) + "</section>")
    return "".join(parts) + _origin(audit.context)


def _title(audit):
    alone = len(audit.models) == 1
    return f"Audit of {'' if alone else 'compression against '}{escape(str(audit.reference))}"


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
        f"<dt>Data</dt><dd>{context['samples']} samples, SHA-256 of labels, groups and predictions as "
        f"read <code>{escape(context['data_sha256'])}</code></dd>{_file(context)}"
        f"<dt>Made</dt><dd>{escape(context['created'])}; {escape(versions)}</dd></dl></footer>"
    )


def _file(context):
    if "file_sha256" not in context:
        return ""
    return f"<dt>File</dt><dd>SHA-256 <code>{escape(context['file_sha256'])}</code></dd>"
