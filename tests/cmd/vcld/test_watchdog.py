"""What a daemon makes of a watchdog: its own from the configuration, another node's from its session."""

from __future__ import annotations

from dataclasses import replace

from vcld.config import config_from
from vcld.fencing import facts_of, keeper_of

from reconciler.adapters.fencing.watchdog import WatchdogFacts
from reconciler.resources.records import ArmedWatchdog, Session
from reconciler.sim.clock import VirtualClock

SESSION = Session(
    session=4,
    boot_id="boot-1",
    machine_id="m",
    started="",
    watchdog=ArmedWatchdog(identity="iTCO_wdt", period=30.0),
)


def test_another_nodes_watchdog_is_as_its_session_says_and_as_old_as_its_lease() -> None:
    assert facts_of(SESSION, 12.0) == WatchdogFacts(
        identity="iTCO_wdt", period=30.0, boot_id="boot-1", lease_age=12.0
    )


def test_without_a_record_or_a_look_at_its_lease_there_is_none() -> None:
    assert facts_of(None, 12.0) is None
    assert facts_of(replace(SESSION, watchdog=None), 12.0) is None
    assert facts_of(SESSION, None) is None


def test_only_a_node_with_a_mesh_and_a_configured_watchdog_has_one() -> None:
    mesh = {"address": "10.0.0.1", "mesh": {}}
    assert keeper_of(config_from({"watchdog": {}}), VirtualClock()) is None
    assert keeper_of(config_from(mesh), VirtualClock()) is None
    assert keeper_of(config_from({**mesh, "watchdog": {"periodSeconds": 20}}), VirtualClock()) is not None
