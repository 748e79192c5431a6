"""Whose a client is, and whether a person's word may shut it out."""

from __future__ import annotations

from reconciler.planning.unlocking import Known, identified, refusal, whose
from reconciler.resources.images import Holder
from reconciler.resources.membership import Member
from reconciler.resources.migrations import ClaimMigration, MigrationPhase, MigrationSide
from reconciler.resources.records import Claim, Session

CLIENT = "10.77.0.2:0/5"


def claim(**more: object) -> Claim:
    fields: dict[str, object] = {"node": "r2", "uid": "u", **more}
    return Claim(**fields)  # type: ignore[arg-type]


def session(**more: object) -> Session:
    fields: dict[str, object] = {"session": 1, "boot_id": "b", "machine_id": "m", "started": "", **more}
    return Session(**fields)  # type: ignore[arg-type]


def told(**known: object) -> tuple[str, str]:
    records: dict[str, object] = {"claims": {}, "members": {}, "sessions": {}, **known}
    holder = identified(Holder(client=f"v1:{CLIENT}", description=""), Known(**records))  # type: ignore[arg-type]
    return whose(holder), refusal(holder)[0]


def test_a_client_in_a_claim_is_that_vms_and_stays() -> None:
    words, problem = told(claims={"web": claim(clients=(CLIENT,))})
    assert words == "VM web on node r2"
    assert "may be writing" in problem


def test_a_client_of_the_copy_that_a_migration_brings_stays() -> None:
    mark = ClaimMigration(id="m", source="r1", target="r2")
    side = MigrationSide(
        id="m", node="r2", session=1, boot_id="b", phase=MigrationPhase.RUNNING, clients=(CLIENT,)
    )
    words, problem = told(claims={"web": claim(node="r1", migration=mark)}, sides={"m/r2": side})
    assert words == "VM web on node r2"
    assert "may be writing" in problem
    assert told(claims={"web": claim(node="r1")}, sides={"m/r2": side})[1] == ""


def test_a_client_of_an_earlier_run_may_go() -> None:
    known = {"web": claim(former_clients=(CLIENT,))}
    assert told(claims=known) == ("of an earlier run of VM web", "")


def test_one_that_runs_in_one_vm_and_ran_in_another_stays() -> None:
    known = {"a": claim(former_clients=(CLIENT,)), "web": claim(clients=(CLIENT,))}
    assert told(claims=known)[1]


def test_a_daemon_stays() -> None:
    words, problem = told(sessions={"r2": session(clients=(CLIENT,))})
    assert words == "vcld on node r2"
    assert problem


def test_an_address_is_a_nodes_by_its_session_or_its_member() -> None:
    expected = ("on node r2, not started by vcl", "")
    assert told(sessions={"r2": session(addresses=("10.77.0.2",))}) == expected
    assert told(members={"r2": Member(address="10.77.0.2")}) == expected
    assert told() == ("not a client that vcl knows", "")
