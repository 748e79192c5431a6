"""POST nodes/NAME/confirm-down: the word is carried to the store, and a refusal back with its cure."""

from __future__ import annotations

from typing import Any

from reconciler.loops.confirmations import Confirmations
from reconciler.planning.confirming import Witness
from reconciler.planning.liveness import Sight
from reconciler.planning.timers import Timers
from reconciler.resources import keys
from reconciler.resources.fencing import ConfirmRecord
from reconciler.resources.membership import Member
from reconciler.resources.records import load
from reconciler.sim.desk import Desk
from reconciler.testing.fence_records import SILENT_R3

SAID = {"incident": "r3-12", "bootId": "boot-a", "by": "ann@desk"}


async def fenced(desk: Desk) -> None:
    await desk.put({keys.member("r3"): Member(address="r3"), keys.fence("r3"): SILENT_R3})


def confirmations(desk: Desk) -> Confirmations:
    def witness() -> Witness:
        return Witness(me="r1", sights=(Sight(name="r3", rank=2),), ran_for=60.0)

    return Confirmations(desk.views, desk.writer, desk.clock, Timers(), witness, desk.recorder.record)


async def test_a_word_goes_to_the_store(desk: Desk, idle_api: Any) -> None:
    await fenced(desk)
    idle_api.confirmations = confirmations(desk)
    await idle_api.start()
    status, answer = await idle_api.call("POST", "nodes/r3/confirm-down", json=SAID)
    assert (status, answer["by"]) == (200, "ann@desk")
    found = await desk.cache.read([keys.confirm("r3")])
    assert load(ConfirmRecord, found[keys.confirm("r3")].value).incident == "r3-12"
    shown = (await idle_api.get("nodes/r3"))[1]
    assert shown["status"]["fencing"]["incident"] == "r3-12"


async def test_a_refusal_says_why_and_what_to_do(desk: Desk, idle_api: Any) -> None:
    await fenced(desk)
    idle_api.confirmations = confirmations(desk)
    await idle_api.start()
    late = {**SAID, "incident": "r3-10"}
    status, answer = await idle_api.call("POST", "nodes/r3/confirm-down", json=late)
    assert status == 409
    assert "is r3-12, and what you confirm is r3-10" in answer["message"]
    assert "vcl describe node r3" in answer["details"]["cure"]


async def test_an_incomplete_word_an_unknown_node_and_a_single_node_are_refused(desk: Desk, api: Any) -> None:
    await fenced(desk)
    assert (await api.call("POST", "nodes/r3/confirm-down", json={"incident": "r3-12"}))[0] == 400
    assert (await api.call("POST", "nodes/r9/confirm-down", json=SAID))[0] == 404
    status, answer = await api.call("POST", "nodes/r3/confirm-down", json=SAID)
    assert (status, "nobody is fenced" in answer["message"]) == (409, True)


async def test_verbs_of_nodes_are_recorded_and_shown(desk: Desk, api: Any) -> None:
    await desk.put({keys.member("r3"): Member(address="10.0.0.3", rank=2, version="")})
    status, answer = await api.call("POST", "nodes/r3/drain", json={})
    assert (status, answer["status"]["unschedulable"]) == (200, True)
    assert answer["status"]["intent"]["drain"]
    assert (await api.call("POST", "nodes/r3/cordon", json={"bringBack": True}))[0] == 400
    status, answer = await api.call("POST", "nodes/r3/uncordon", json={"bringBack": True})
    assert (status, answer["status"]["intent"]["bringBack"]) == (200, True)
    assert (await api.call("POST", "nodes/r9/cordon", json={}))[0] == 404


async def test_a_shutdown_is_by_the_policy_of_the_cluster_or_by_its_own(desk: Desk, api: Any) -> None:
    await desk.put({keys.member("r3"): Member(address="10.0.0.3", rank=2, version="")})
    status, answer = await api.call("POST", "nodes/r3/shutdown", json={})
    assert (status, answer["status"]["unschedulable"]) == (200, True)
    asked = answer["status"]["intent"]["shutdown"]
    assert (asked["policy"], asked["timeoutSeconds"]) == ("Migrate", 300)
    own = {"policy": "Freeze", "timeoutSeconds": 20}
    status, answer = await api.call("POST", "nodes/r3/shutdown", json=own)
    assert answer["status"]["intent"]["shutdown"] == {**asked, **own}
    for wrong in ({"policy": "Move"}, {"timeoutSeconds": -1}, {"timeoutSeconds": True}, {"bringBack": True}):
        assert (await api.call("POST", "nodes/r3/shutdown", json=wrong))[0] == 400
