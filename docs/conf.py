"""Configuration of the documentation."""

import os
import re
import sys
import tomllib
import warnings
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import skqfair

sys.path.insert(0, str(Path(__file__).parent))  # gallery_order, literal_links

project = "skqfair"
author = "the skqfair developers"
copyright = "2026, the skqfair developers"
version = release = skqfair.__version__

extensions = [
    "literal_links",
    "myst_parser",
    "notfound.extension",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
if "INTERSPHINX" in os.environ:  # links to other projects need the network, which a build must not
    extensions.append("sphinx.ext.intersphinx")
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "sklearn": ("https://scikit-learn.org/stable", None),
    "skorch": ("https://skorch.readthedocs.io/en/stable", None),
    "torch": ("https://docs.pytorch.org/docs/stable", None),
}
addresses = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["tool"][
    "skqfair"
]
if html_baseurl := addresses["documentation"]:
    extensions.append("sphinx_sitemap")
    sitemap_url_scheme = "{link}"
exclude_patterns = ["_build", "auto_examples/*.ipynb", "auto_examples/*.py"]
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_title = "skqfair"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_logo = html_favicon = "_static/logo.svg"
notfound_urls_prefix = "/"
html_math_renderer = "mathml"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}
if addresses["repository"]:
    html_theme_options["github_url"] = addresses["repository"]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "within_subsection_order": "gallery_order.TeachingOrder",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 1,
    "write_computation_times": False,  # its page loads scripts from elsewhere
    "matplotlib_animations": False,
    "remove_config_comments": True,
}
warnings.filterwarnings("ignore", category=UserWarning, message="FigureCanvasAgg is non-interactive")


def plain_references(app, what, name, obj, options, lines):
    """Write out references to scikit-learn's own pages, in the docstrings of inherited methods."""
    text = re.sub(r":(?:ref|term):`([^`<]*?)\s*(?:<[^`]*>)?`", r"\1", "\n".join(lines))
    lines[:] = text.split("\n")


def mathml(self, node, as_block):
    """Write a formula as MathML, which browsers draw without a script from elsewhere."""
    tex = re.sub(r"\\[bB]igg?[lr]?(?![a-z])", "", node.astext()).replace(r"\dots", r"\ldots")
    self.body.append(str(tex2mathml(tex.strip(), as_block=as_block)))
    raise nodes.SkipNode


def setup(app):
    inline = (lambda self, node: mathml(self, node, as_block=False), None)
    block = (lambda self, node: mathml(self, node, as_block=True), None)
    app.add_html_math_renderer("mathml", inline, block)
    app.connect("autodoc-process-docstring", plain_references)
