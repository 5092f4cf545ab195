"""One place has the project's addresses; links follow it."""

import re
import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]


def set_up(tmp_path, monkeypatch, repository, documentation):
    """Return what setup.py says where pyproject.toml has these addresses."""
    asked = {}
    monkeypatch.setitem(
        sys.modules, "setuptools", SimpleNamespace(setup=lambda **said: asked.update(said))
    )
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert text.count('\nrepository = ""\ndocumentation = ""\n') == 1
    said = f'\nrepository = "{repository}"\ndocumentation = "{documentation}"\n'
    (tmp_path / "pyproject.toml").write_text(
        text.replace('\nrepository = ""\ndocumentation = ""\n', said), "utf-8"
    )
    for name in ("setup.py", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    runpy.run_path(str(tmp_path / "setup.py"))
    return asked


def links(text):
    return re.findall(r"(!?)\[[^]]*\]\(([^)]*)\)", text)


def test_without_an_address_nothing_is_invented(tmp_path, monkeypatch):
    asked = set_up(tmp_path, monkeypatch, "", "")
    assert asked["project_urls"] == {}
    assert asked["long_description"] == (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("repository", ["https://example.org/skqfair", "https://example.org/skqfair/"])
def test_with_one_every_link_is_absolute_and_leads_to_a_file(tmp_path, monkeypatch, repository):
    asked = set_up(tmp_path, monkeypatch, repository, "https://example.org/docs/")
    assert asked["project_urls"] == {
        "Repository": "https://example.org/skqfair",
        "Documentation": "https://example.org/docs/",
    }
    found = links(asked["long_description"])
    assert len(found) == len(links((ROOT / "README.md").read_text("utf-8"))) > 10
    for picture, link in found:
        assert link.startswith("https://")
        kind = "raw" if picture else "blob"
        if link.startswith("https://example.org/"):
            path = link.removeprefix(f"https://example.org/skqfair/{kind}/main/")
            assert (ROOT / path).is_file(), link
