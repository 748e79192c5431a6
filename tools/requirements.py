"""Prints the dependencies and the development group, one a line, for a pip before 25.1 (no --group); with a
group's name that group alone.

.venv/bin/pip install -r <(.venv/bin/python tools/requirements.py bench)
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
groups = project["dependency-groups"]
wanted = groups[sys.argv[1]] if len(sys.argv) > 1 else [*project["project"]["dependencies"], *groups["dev"]]
print("\n".join(wanted))
