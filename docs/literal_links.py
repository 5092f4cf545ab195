"""Names of the API and of examples, written as plain code in the guide, become links on the site."""

import importlib
from functools import cache

from docutils import nodes
from sphinx.addnodes import pending_xref

import skqfair

MODULES = ["skqfair", *(f"skqfair.{name}" for name in skqfair._SUBMODULES)]


@cache
def public_names():
    """Return the full name of each public name; a name of the package face is that one."""
    names = {}
    for module in reversed(MODULES):
        for name in getattr(importlib.import_module(module), "__all__", ()):
            names[name] = f"{module}.{name}"
    return names


def link_names(app, doctree):
    """Link the first mention of each name in a section."""
    page = app.env.docname
    if not page.startswith("user_guide") and page != "index":
        return
    names, seen = public_names(), set()
    for literal in list(doctree.findall(nodes.literal)):
        found = target(literal.astext(), names)
        section = literal.parent
        while not isinstance(section, nodes.section | nodes.document):
            if isinstance(section, nodes.reference | nodes.title | nodes.image):
                found = None
            section = section.parent
        if found and (id(section), found) not in seen:
            seen.add((id(section), found))
            domain, role, name = found
            link = pending_xref(
                "", refdomain=domain, reftype=role, reftarget=name, refdoc=page, refexplicit=True
            )
            literal.replace_self(link)
            link += literal


def target(text, names):
    """Return domain, role and target of a text, or None."""
    if text.startswith("examples/plot_") and text.endswith(".py"):
        return "std", "doc", "/auto_examples/" + text.removeprefix("examples/").removesuffix(".py")
    name, _, method = text.partition("(")[0].removeprefix("skqfair.").partition(".")
    if name not in names:
        return None
    return "py", "obj", names[name] + (f".{method}" if method else "")


def setup(app):
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": True}
