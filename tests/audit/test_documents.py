"""Pages, Markdown, JSON and cards of an audit."""

import os
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from skqfair import CompressionAudit
from skqfair.audit._present import cells

TABLES = ("models", "groups", "changes", "detectable", "exemplars")


def make(n=400, n_groups=4, n_models=3, seed=0, names="group <{}> & co", **options):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    models = {"float": np.clip(y + rng.normal(size=n) / 3, 0, 1)}
    for i in range(n_models - 1):
        models[f"int{8 - i}"] = np.clip(models["float"] + rng.normal(size=n) / 4, 0, 1)
    models = {name: np.column_stack([1 - p, p]) for name, p in models.items()}
    groups = pd.Series([names.format(i) for i in rng.integers(0, n_groups, n)], name="race")
    return CompressionAudit.from_predictions(y, models, sensitive_features=groups, **options)


@pytest.fixture(scope="module")
def audit():
    return make()


class Page(HTMLParser):
    """What a reader of the page meets: open elements, links to elsewhere, headings, alternatives."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "line", "circle", "rect", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attrs for name, attrs in self.seen if name == tag]


def test_the_page_is_whole_and_by_itself(audit):
    text = audit.to_html()
    page = Page(text)
    assert not [tag for tag, _ in page.seen if tag in ("link", "img", "iframe", "object")]
    addresses = re.findall(r"(?:https?:)?//[\w.]+", text)
    assert set(addresses) <= {"http://www.w3.org"}  # the name of SVG, not fetched
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("main")) == len(page.all("h1")) == len(page.all("title")[:1]) == 1
    pictures = [a for a in page.all("svg") if a.get("role") == "img"]
    assert len(pictures) == 2
    assert all(len(a["aria-label"]) > 20 for a in pictures)
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in page.all("div"))
    assert all(a["scope"] == "col" and a["aria-sort"] == "none" for a in page.all("th"))
    for media in ("prefers-color-scheme:dark", "@media print"):
        assert media in text


def test_names_are_escaped(audit):
    text = audit.to_html()
    assert "group &lt;0&gt; &amp; co" in text
    assert "<0>" not in text
    assert "\\|" in make(names="a|b {}").to_markdown()


def test_the_page_says_what_the_tables_say(audit):
    text = audit.to_html()
    for said in audit.verdicts:
        assert said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in text
    row = audit.changes.iloc[0]
    assert f"{row['change']:+.3f} ({row['change_low']:+.3f} to {row['change_high']:+.3f})" in text
    assert audit.context["data_sha256"] in text
    assert audit.context["versions"]["numpy"] in text


def test_changes_whose_interval_does_not_reach_zero_have_a_star():
    changes = make(n=300, n_groups=2, metrics=()).changes
    established = changes["change_low"] * changes["change_high"] > 0
    assert set(established) == {True, False}
    _, rows = cells(changes)
    assert [any(text.endswith(") *") for text, _ in row) for row in rows] == established.tolist()


def test_twenty_groups_and_five_models_are_no_large_page():
    audit = make(n=20_000, n_groups=20, n_models=5, metrics=["selection_rate", "log_loss"])
    assert len(audit.to_html().encode()) < 1_000_000


def test_colours_have_contrast():
    """WCAG: 4.5 for text, 3 for what pictures draw."""
    from skqfair.audit._page import STYLE

    def luminance(colour):
        colour = colour if len(colour) == 6 else "".join(c * 2 for c in colour)
        rgb = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    light, dark = (dict(re.findall(r"--(\w+):#(\w+)", part)) for part in STYLE.split("@media screen"))
    for scheme in (light, dark):
        for name, least in {"ink": 4.5, "soft": 4.5, **{f"m{i}": 3 for i in range(7)}}.items():
            for ground in ("paper",) + (("head",) if name == "ink" else ()):
                pair = sorted(luminance(scheme[key]) for key in (name, ground))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least


def test_notebooks_get_a_fragment(audit):
    text = audit._repr_html_()
    assert text.startswith("<style>")
    assert "<html" not in text
    Page(text)


@pytest.mark.parametrize("keys", ["words", "several", "numbers"])
def test_json_brings_back_the_same(keys, tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    groups = {
        "words": rng.choice(["a", "b"], 200),
        "several": pd.DataFrame({"r": rng.choice(["a", "b"], 200), "s": rng.integers(0, 2, 200)}),
        "numbers": rng.integers(0, 3, 200),
    }[keys]
    models = {32: y, 8: rng.integers(0, 2, 200)}
    audit = CompressionAudit.from_predictions(
        y, models, sensitive_features=groups, reference=32, sizes={32: 400}
    )
    path = audit.to_json(tmp_path / "audit.json")
    for source in (path, str(path), audit.to_json()):
        back = CompressionAudit.from_json(source)
        for name in TABLES:
            pd.testing.assert_frame_equal(getattr(back, name), getattr(audit, name))
        assert back.verdicts == audit.verdicts
        assert back.context == audit.context
        assert back.reference == 32


@pytest.mark.parametrize("text", ['{"format": 99}', "{", '{"a": 1}', '{"format": 1, "tables": {}}'])
def test_json_of_others_is_refused(text):
    with pytest.raises(ValueError, match="source"):
        CompressionAudit.from_json(text)


def test_markdown_tables_are_rectangular(audit):
    lines = audit.to_markdown().splitlines()
    blocks = "\n".join(line if line.startswith("|") else "" for line in lines).split("\n\n")
    widths = [
        {len(re.findall(r"(?<!\\)\|", row)) for row in block.split("\n") if row} for block in blocks
    ]
    assert all(len(width) <= 1 for width in widths)
    assert sum(len(width) for width in widths) == 6
    assert "## What could be shown" in lines


def test_a_model_card(audit):
    skops_card = pytest.importorskip("skops.card")
    card = audit.to_model_card()
    assert isinstance(card, skops_card.Card)
    text = card.render()
    assert "# Audit of compression" in text
    assert audit.verdicts[0][:30].replace("<", "&lt;") in text
    own = skops_card.Card(None, template=None)
    assert audit.to_model_card(own) is own


@pytest.mark.parametrize("method", ["to_html", "to_json", "to_markdown"])
def test_what_cannot_be_written_leaves_nothing(audit, method, tmp_path, monkeypatch):
    with pytest.raises(OSError, match="cannot write"):
        getattr(audit, method)(tmp_path / "absent" / "page")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder': Is a directory"):
        getattr(audit, method)(tmp_path / "folder")
    (tmp_path / "folder").rmdir()
    assert not os.listdir(tmp_path)
    path = tmp_path / "page"
    path.write_text("before")

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        getattr(audit, method)(path)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["page"]


def test_plot_draws_what_the_tables_say(audit):
    accuracy, change = audit.plot()
    drawn = np.sort(np.concatenate([c.lines[0].get_xdata() for c in accuracy.containers]))
    np.testing.assert_allclose(drawn, np.sort(audit.groups["accuracy"]))
    drawn = np.sort(np.concatenate([c.lines[0].get_xdata() for c in change.containers]))
    np.testing.assert_allclose(drawn, np.sort(audit.changes["change"]))
    with pytest.raises(ValueError, match="axes must be 2"):
        audit.plot([accuracy])
    accuracy.figure.clear()


def test_marks_stand_where_the_figures_are(audit):
    """The axis of the picture is linear: the first and last tick say where."""
    text = audit.to_html()
    picture = text[text.index('aria-label="Accuracy by group') :].split("</svg>")[0]
    ticks = re.findall(r'text-anchor="middle" x="([\d.]+)" y="[\d.]+">([-\d.]+)<', picture)
    (x0, v0), (x1, v1) = [(float(x), float(v)) for x, v in (ticks[0], ticks[-1])]
    marks = re.findall(r"<title>([^<]*), float: ([\d.]+) \(.*?<circle cx=\"([\d.]+)\"", picture)
    assert len(marks) == 4
    for _, value, x in marks:
        assert float(x) == pytest.approx(x0 + (float(value) - v0) / (v1 - v0) * (x1 - x0), abs=1)
