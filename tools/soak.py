#!/usr/bin/env python3
"""Random runs of a simulated cluster, for as long as you want.

.venv/bin/python tools/soak.py --seconds 60              from a random seed on, for a minute
.venv/bin/python tools/soak.py --seed 17 --runs 1        one run; the same values make the same run again
"""

from __future__ import annotations

import argparse
import sys
import time
from random import SystemRandom

from reconciler.adapters.schema_files import load_schemas
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.sim.soak import Plan, soak
from reconciler.sim.world import SimulationError


def main() -> int:
    """0 when nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="real ones (30)")
    parser.add_argument("--runs", type=int, default=0, help="end after so many runs instead")
    parser.add_argument("--seed", type=int, help="of the first run; the following ones count up")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--length", type=float, default=300.0, help="virtual seconds of faults (300)")
    parser.add_argument("--density", type=float, default=0.5, help="faults that begin in a second (0.5)")
    parser.add_argument("--fencing", action="store_true", help="guests on Ceph, and silent nodes are fenced")
    parser.add_argument("--moves", action="store_true", help="VMs are migrated, and migrations break off")
    parser.add_argument("--drains", action="store_true", help="nodes are cordoned, drained and brought back")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else SystemRandom().randrange(1_000_000)
    schemas = load_schemas()

    def parse(path: str, data: bytes) -> ParsedFile:
        return parse_manifest(path, data, schemas)

    began, virtual, runs, failed = time.monotonic(), 0.0, 0, 0
    while runs < chosen.runs if chosen.runs else time.monotonic() - began < chosen.seconds:
        plan = Plan(
            seed=seed + runs,
            nodes=chosen.nodes,
            seconds=chosen.length,
            density=chosen.density,
            fencing=chosen.fencing,
            drains=chosen.drains,
            moves=chosen.moves,
        )
        runs += 1
        try:
            outcome = soak(plan, parse)
        except SimulationError as error:
            failed += 1
            print(f"seed {plan.seed}: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
            continue
        virtual += outcome.virtual
        print(
            f"seed {plan.seed}: {outcome.epochs} masters, {outcome.saves} saves, {outcome.acknowledged} "
            f"applies acknowledged, {outcome.fencings} fencings, {outcome.writes} writes; "
            f"all well {outcome.well_after:.1f} s after the last fault"
        )
    spent = time.monotonic() - began
    speed = virtual / max(spent, 0.001)
    print(f"{runs} runs, {failed} failed; {virtual:.0f} virtual seconds in {spent:.0f} s: {speed:.0f} x")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
