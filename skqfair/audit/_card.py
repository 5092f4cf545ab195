"""Audits in model cards."""

from skqfair._optional import import_extra
from skqfair.audit._markdown import as_markdown

__all__ = ["fill_card"]


def fill_card(audit, card):
    """Add an audit to a card of skops, or to a new one."""
    if card is None:
        card = import_extra("skops.card", "save").Card(None, template=None)
    _, _, body = as_markdown(audit).partition("\n")
    title, content = "Audit of compression", body.strip()
    head, *sections = content.split("\n## ")
    card.add(**{title: head.strip()})
    for section in sections:
        name, _, text = section.partition("\n")
        card.add(**{f"{title}/{name}": text.strip()})
    return card
