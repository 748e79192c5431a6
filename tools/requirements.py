"""Prints the dependencies and the development group, one a line, for a pip before 25.1 (no --group)."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
print("\n".join([*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]))
