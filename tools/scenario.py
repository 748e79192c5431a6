#!/usr/bin/env python3
"""Plays a scenario, or several, and compares its log with the golden one.

.venv/bin/python tools/scenario.py tests/scenarios/master-loses-power
.venv/bin/python tools/scenario.py --update tests/scenarios/*     after you have understood the difference
.venv/bin/python tools/scenario.py --seed 5 --print tests/scenarios/NAME
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from reconciler.adapters.schema_files import load_schemas
from reconciler.resources.manifest import parse_manifest
from reconciler.sim.scenario import parse_script, run
from reconciler.sim.world import BadScript, SimulationError


def play(folder: Path, seed: int | None) -> str:
    """The log of the script in a folder."""
    schemas = load_schemas()
    script = parse_script((folder / "script").read_text(encoding="utf-8"))
    if seed is not None:
        script.seed = seed
    return run(script, lambda path, data: parse_manifest(path, data, schemas))


def main() -> int:
    """0 when every log is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="with a `script` and its golden `log`")
    parser.add_argument("--update", action="store_true", help="write the golden log")
    parser.add_argument("--seed", type=int, help="another seed than the script's; its log is not compared")
    parser.add_argument("--print", action="store_true", help="show the log")
    chosen = parser.parse_args()
    wrong = 0
    for folder in chosen.folder:
        try:
            log = play(folder, chosen.seed)
        except (SimulationError, BadScript) as error:
            print(f"{folder.name}: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
            wrong += 1
            continue
        if chosen.print:
            print(log, end="")
        golden = folder / "log"
        if chosen.update and chosen.seed is None:
            golden.write_text(log, encoding="utf-8")
        elif chosen.seed is None:
            before = golden.read_text(encoding="utf-8") if golden.exists() else ""
            different = list(
                difflib.unified_diff(before.splitlines(), log.splitlines(), "log", "now", "", "")
            )
            print(*different, sep="\n", end="\n" * bool(different))
            wrong += bool(different)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
