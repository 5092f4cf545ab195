"""Audits as Markdown."""

import pandas as pd

from skqfair.audit._present import SECTIONS, cells, table_of

__all__ = ["as_markdown"]


def as_markdown(audit):
    """Return verdicts, tables and origin of an audit."""
    parts = ["# Audit of compression", "", *(f"- {_escape(said)}" for said in audit.verdicts)]
    if limits := audit.context.get("limits"):
        parts += ["", "## Limits", "", *(f"- {_escape(said)}" for said in limits)]
    for name, title, note in SECTIONS:
        table = table_of(audit, name)
        if len(table):
            parts += ["", f"## {title}", "", note, "", *_table(table)]
    context = audit.context
    versions = ", ".join(f"{name} {version}" for name, version in context["versions"].items())
    return "\n".join(
        [
            *parts,
            "",
            "## Origin",
            "",
            f"- `{context['call']}`",
            f"- {context['samples']} samples, SHA-256 of labels, groups and predictions as read "
            f"`{context['data_sha256']}`",
            f"- {context['created']}; {versions}",
            "",
        ]
    )


def _table(table: pd.DataFrame):
    header, rows = cells(table)
    lines = [header, ["---"] * len(header), *([text for text, _ in row] for row in rows)]
    return ["| " + " | ".join(map(_escape, line)) + " |" for line in lines]


def _escape(text):
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
