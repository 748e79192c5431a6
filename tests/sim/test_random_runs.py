"""Random runs with dense faults: what must hold after every event holds, and all is well when all is healed.

A few seconds of `make check` go here, more of `make test`. `tools/soak.py` runs for as long as you want.
"""

from __future__ import annotations

import pytest

from reconciler.adapters.schema_files import load_schemas
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.sim.soak import FENCED_WELL_WITHIN, WELL_WITHIN, Plan, soak

SCHEMAS = load_schemas()

MORE = [
    Plan(seed=1, seconds=250.0),
    Plan(seed=21, nodes=5, seconds=120.0),
    Plan(seed=31, nodes=2, seconds=250.0),
    *(Plan(seed=seed, seconds=250.0) for seed in range(2, 8)),
    *(Plan(seed=seed, seconds=150.0, density=1.0) for seed in range(12, 14)),
    Plan(seed=22, nodes=5, seconds=120.0),
]
PLANS = [
    Plan(seed=11, seconds=150.0, density=1.0),
    Plan(seed=41, nodes=1, seconds=150.0),
    *(pytest.param(plan, marks=pytest.mark.slow) for plan in MORE),
]


def parse(path: str, data: bytes) -> ParsedFile:
    return parse_manifest(path, data, SCHEMAS)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"seed {plan.seed}, {plan.nodes} nodes")
def test_invariants_hold_and_the_cluster_recovers(plan: Plan) -> None:
    outcome = soak(plan, parse)
    assert outcome.well_after <= WELL_WITHIN
    assert outcome.acknowledged > 0
    assert outcome.epochs > 0


FENCED = [
    pytest.param(Plan(seed=61, seconds=60.0, fencing=True), marks=pytest.mark.slow),
    Plan(seed=71, seconds=30.0, fencing=True, drains=True),
    pytest.param(Plan(seed=305, seconds=60.0, fencing=True, moves=True), marks=pytest.mark.slow),
    *(
        pytest.param(Plan(seed=seed, seconds=120.0, fencing=True), marks=pytest.mark.slow)
        for seed in (62, 63)
    ),
    *(
        pytest.param(Plan(seed=seed, seconds=120.0, fencing=True, drains=True), marks=pytest.mark.slow)
        for seed in (72, 73)
    ),
    *(
        pytest.param(
            Plan(seed=seed, seconds=120.0, fencing=True, drains=True, moves=True), marks=pytest.mark.slow
        )
        for seed in (306, 307)
    ),
]


@pytest.mark.parametrize("plan", FENCED, ids=lambda plan: f"seed {plan.seed}, {plan.nodes} nodes")
def test_no_image_ever_has_two_writers_and_all_vms_run_again(plan: Plan) -> None:
    outcome = soak(plan, parse)
    assert outcome.well_after <= FENCED_WELL_WITHIN
    assert outcome.writes > 0


def test_the_same_plan_gives_the_same_run() -> None:
    plan = Plan(seed=51, seconds=30.0)
    assert soak(plan, parse) == soak(plan, parse)
