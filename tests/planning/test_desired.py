"""Whether a VM should run, for every runStrategy, verb and end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.planning.desired import Wish, consumes, desired, purges
from reconciler.resources.codec import decode
from reconciler.resources.records import Claim, Intent, ObjectMeta, Source, SpecRecord
from reconciler.resources.virtualmachine import VirtualMachineSpec


def record(*, deleted: bool = False, purge: bool = False) -> SpecRecord:
    meta = ObjectMeta(name="web", uid="u1", deletion_timestamp="now" if deleted else None)
    return SpecRecord(
        kind="VirtualMachine", metadata=meta, spec={}, source=Source(path="web.yaml"), purge=purge
    )


def vm(strategy: str = "Always", **more: object) -> VirtualMachineSpec:
    raw = {"cpu": {"cores": 1}, "memory": "1Gi", "runStrategy": strategy, **more}
    return decode(VirtualMachineSpec, raw)


ENDED_WELL = Claim(uid="u1", exit="Shutdown", start="s1")
CRASHED = Claim(uid="u1", exit="Crashed", start="s1")
HELD = Claim(uid="u1", node="r1", start="s1")


@pytest.mark.parametrize(
    ("strategy", "intent", "claim", "wish"),
    [
        ("Always", Intent(), None, Wish.RUN),
        ("Always", Intent(), ENDED_WELL, Wish.RUN),
        ("Always", Intent(run="Stop"), HELD, Wish.STOP),
        ("RerunOnFailure", Intent(), None, Wish.RUN),
        ("RerunOnFailure", Intent(), CRASHED, Wish.RUN),
        ("RerunOnFailure", Intent(), ENDED_WELL, Wish.STOP),
        ("RerunOnFailure", Intent(run="Start", start="s2"), ENDED_WELL, Wish.RUN),
        ("RerunOnFailure", Intent(run="Start", start="s1"), ENDED_WELL, Wish.STOP),
        ("Manual", Intent(), None, Wish.STOP),
        ("Manual", Intent(run="Start", start="s1"), None, Wish.RUN),
        ("Manual", Intent(run="Start", start="s1"), HELD, Wish.RUN),
        ("Manual", Intent(run="Start", start="s1"), ENDED_WELL, Wish.STOP),
        ("Manual", Intent(run="Start", start="s1"), CRASHED, Wish.STOP),
        ("Manual", Intent(run="Start", start="s2"), CRASHED, Wish.RUN),
        ("Halted", Intent(), HELD, Wish.STOP),
        ("Halted", Intent(run="Start", start="s1"), None, Wish.RUN),
    ],
)
def test_what_is_wanted(strategy: str, intent: Intent, claim: Claim | None, wish: Wish) -> None:
    assert desired(record(), vm(strategy), intent, claim, power_on=True).wish is wish


def test_deletion_beats_everything() -> None:
    start = Intent(run="Start", start="s9")
    assert desired(record(deleted=True), vm(), start, HELD, power_on=True).wish is Wish.DELETED


def test_power_off_stops_and_says_how_to_go_on() -> None:
    off = desired(record(), vm(), Intent(), HELD, power_on=False)
    assert off.wish is Wish.STOP
    assert "power: On" in off.reason


def test_a_stopped_vm_says_who_stopped_it() -> None:
    assert "vcl start web" in desired(record(), vm(), Intent(run="Stop"), None, power_on=True).reason


def test_images_go_only_when_asked() -> None:
    assert not purges(record(deleted=True), vm())
    assert purges(record(deleted=True, purge=True), vm())
    assert purges(record(deleted=True), vm(deletionPolicy="Delete"))


def test_a_stopping_vm_still_takes_up_its_place() -> None:
    assert consumes(HELD, Wish.STOP)
    assert not consumes(ENDED_WELL, Wish.STOP)


def test_how_an_earlier_vm_of_the_name_ended_does_not_matter() -> None:
    earlier = replace(ENDED_WELL, uid="u0")
    assert desired(record(), vm("RerunOnFailure"), Intent(), earlier, power_on=True).wish is Wish.RUN


def test_a_new_run_strategy_ends_what_a_verb_asked_for() -> None:
    stopped = Intent(run="Stop", run_strategy="Always", force=True)
    assert desired(record(), vm("Always"), stopped, HELD, power_on=True).wish is Wish.STOP
    assert desired(record(), vm("RerunOnFailure"), stopped, HELD, power_on=True).wish is Wish.RUN


def test_a_deletion_gives_the_guest_its_time_unless_it_was_being_stopped_by_force() -> None:
    restarted = Intent(restart="r1", force=True)
    assert not desired(record(deleted=True), vm(), restarted, HELD, power_on=True).force
    assert desired(record(deleted=True), vm(), Intent(run="Stop", force=True), HELD, power_on=True).force
