"""Every folder here is a scenario: its script comes to its end as expected, and its log is the golden one.

After a change that you meant: `python tools/scenario.py --update tests/scenarios/NAME`, and read it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.adapters.schema_files import load_schemas
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.sim.scenario import parse_script, run

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/script"))
LONG = ("better-rank-flaps", "clocks-drift", "crashes-everywhere", "nine-nodes")
"""Those that take more than a second."""
SCHEMAS = load_schemas()


def parse(path: str, data: bytes) -> ParsedFile:
    return parse_manifest(path, data, SCHEMAS)


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(folder, id=folder.name, marks=(pytest.mark.slow,) if folder.name in LONG else ())
        for folder in FOLDERS
    ],
)
def test_scenario(folder: Path) -> None:
    script = parse_script((folder / "script").read_text(encoding="utf-8"))
    log = run(script, parse)
    assert log.splitlines() == (folder / "log").read_text(encoding="utf-8").splitlines()
