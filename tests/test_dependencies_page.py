"""Whatever is declared is on the page that says why it is there."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_declared_dependency_is_on_the_page():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs/user_guide/dependencies.md").read_text()
    extras = project["optional-dependencies"]
    declared = {
        re.match(r"[\w-]+", bound).group()
        for bounds in (project["dependencies"], *(extras[name] for name in extras if name != "all"))
        for bound in bounds
    }
    words = set(re.findall(r"[\w-]+", page))
    assert not declared - words
    always = page.partition("## Always")[2].partition("## Extras")[0]
    rows = set(re.findall(r"^\| ([\w-]+) \|", always, re.MULTILINE)) - {"package", "---"}
    assert rows == {re.match(r"[\w-]+", bound).group() for bound in project["dependencies"]}
