"""What pyproject.toml cannot say: the README's links are absolute where the project has an address."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

root = Path(__file__).parent
addresses = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["skqfair"]
repository, documentation = addresses["repository"].rstrip("/"), addresses["documentation"]
readme = (root / "README.md").read_text("utf-8")
if repository:
    readme = re.sub(r"(!\[[^]]*\]\()(?!https?:)", rf"\1{repository}/raw/main/", readme)
    readme = re.sub(r"((?<!!)\[[^]]*\]\()(?!https?:)", rf"\1{repository}/blob/main/", readme)
pages = {"Repository": repository, "Documentation": documentation}

setup(
    long_description=readme,
    long_description_content_type="text/markdown",
    project_urls={name: page for name, page in pages.items() if page},
)
