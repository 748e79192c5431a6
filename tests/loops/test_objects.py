"""The read model: fresh, cheap when nothing changes, and watches that tell every change once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from reconciler.loops import objects as module
from reconciler.loops.objects import Objects
from reconciler.loops.watches import ObjectWatch
from reconciler.planning.cluster_view import NodeLine
from reconciler.planning.selectors import parse_selector
from reconciler.resources import keys
from reconciler.resources.errors import Expired, NotFound, StoreUnavailable
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Epoch, Intent, ObjectMeta, Source, SpecRecord
from reconciler.resources.status import NodeStatus
from reconciler.sim.desk import Desk, running, vm_record

VM = Kind.VIRTUAL_MACHINE
SPEC = keys.spec(VM, "web")


@pytest.fixture
async def desk() -> Desk:
    made = Desk()
    await made.start()
    return made


async def told(watch: ObjectWatch) -> list[tuple[str, str]]:
    batch = await watch.next(0.0)
    return [(event.type.value, event.view.name) for event in batch.events]


def phase(desk: Desk, name: str = "web") -> str:
    return str(desk.objects.get(VM, name).object["status"]["phase"])


async def test_what_changes_is_shown_at_once(desk: Desk) -> None:
    await desk.vm("web")
    assert phase(desk) == "Pending"
    await desk.run("web")
    assert phase(desk) == "Running"
    await desk.put({}, deletes=(SPEC,))
    with pytest.raises(NotFound, match="virtualmachine 'web' not found"):
        desk.objects.get(VM, "web")


async def test_what_did_not_change_is_not_made_again(desk: Desk) -> None:
    await desk.vm("web")
    await desk.vm("db")
    web, db = desk.objects.get(VM, "web"), desk.objects.get(VM, "db")
    await desk.run("web")
    assert desk.objects.get(VM, "web") is not web
    assert desk.objects.get(VM, "db") is db
    assert db.json() is db.json()


async def test_lists_are_sorted_and_selected(desk: Desk) -> None:
    await desk.vm("web", labels={"app": "shop"})
    await desk.vm("app", labels={"app": "shop"})
    await desk.vm("db")
    names = [view.name for view in desk.objects.list(VM).views]
    assert names == ["app", "db", "web"]
    selected = desk.objects.list(VM, parse_selector("app=shop"))
    assert [view.name for view in selected.views] == ["app", "web"]
    assert selected.revision == desk.cache.revision


async def test_a_model_made_later_knows_what_is_there(desk: Desk) -> None:
    await desk.vm("web")
    assert [view.name for view in Objects(desk.cache).list(VM).views] == ["web"]


async def test_nothing_is_said_before_the_store_was_read() -> None:
    with pytest.raises(StoreUnavailable):
        Desk().objects.find(VM, "web")


async def test_a_removed_record_raises_the_version(desk: Desk) -> None:
    await desk.vm("web")
    await desk.put({keys.intent(VM, "web"): Intent(paused=True)})
    before = int(desk.objects.get(VM, "web").object["metadata"]["resourceVersion"])
    await desk.put({}, deletes=(keys.intent(VM, "web"),))
    after = int(desk.objects.get(VM, "web").object["metadata"]["resourceVersion"])
    assert after > before


async def test_a_change_elsewhere_that_alters_an_object_raises_its_version(desk: Desk) -> None:
    await desk.put({keys.node_status(Kind.NODE, "r1"): NodeStatus(uid="n", ready=True)})
    watch = desk.objects.watch(Kind.NODE, since=desk.objects.revision)
    await desk.put({keys.EPOCH: Epoch(epoch=1, holder="r1")})
    assert await told(watch) == [("MODIFIED", "r1")]
    assert desk.objects.get(Kind.NODE, "r1").object["status"]["roles"] == ["master"]


async def test_node_rows_follow_the_vms(desk: Desk) -> None:
    await desk.put({keys.node_status(Kind.NODE, "r1"): NodeStatus(uid="n", ready=True, cpu=8)})
    await desk.vm("web")
    await desk.run("web")
    nodes = desk.objects.list(Kind.NODE)
    assert b'"8","2/32"' in desk.objects.table(Kind.NODE, nodes.views, nodes.revision)


async def test_a_node_is_as_alive_as_it_is_seen_to_be(desk: Desk) -> None:
    lines = {"r1": NodeLine(name="r1", rank=0, address="", standing="Ready")}
    objects = Objects(desk.cache, lines.get)
    await desk.put({keys.node_status(Kind.NODE, "r1"): NodeStatus(uid="n", ready=True)})
    watch = objects.watch(Kind.NODE, since=objects.revision)
    objects.seen_anew(["r1", "never-heard-of"])
    assert await told(watch) == []
    lines["r1"] = replace(lines["r1"], standing="Silent", reason="silent on the mesh for 5.0 s")
    objects.seen_anew(["r1"])
    assert await told(watch) == [("MODIFIED", "r1")]
    status = objects.get(Kind.NODE, "r1").object["status"]
    assert (status["ready"], status["message"]) == (False, "silent on the mesh for 5.0 s")
    nodes = objects.list(Kind.NODE)
    assert b'"r1","Silent"' in objects.table(Kind.NODE, nodes.views, nodes.revision)
    lines["r1"] = replace(lines["r1"], reason="silent on the mesh for 6.0 s")
    objects.seen_anew(["r1"])
    assert await told(watch) == []


async def test_a_vm_is_as_sure_as_its_node_is_seen_to_be(desk: Desk) -> None:
    line = NodeLine(name="r1", rank=0, address="", standing="Ready")
    lines = {"r1": line}
    objects = Objects(desk.cache, lines.get)
    await desk.vm("web")
    await desk.vm("other")
    await desk.run("web")
    watch = objects.watch(Kind.VIRTUAL_MACHINE, since=objects.revision)

    async def seen(now: NodeLine) -> tuple[list[tuple[str, str]], str, str]:
        lines["r1"] = now
        objects.seen_anew(["r1"])
        status = objects.get(Kind.VIRTUAL_MACHINE, "web").object["status"]
        return await told(watch), status["phase"], status["message"]

    why = "isolated: no other node was heard"
    assert await seen(replace(line, held=why)) == ([("MODIFIED", "web")], "Paused", f"paused: {why}")
    ended = replace(line, held="the storage's blocklist has this node", ending=True)
    assert (await seen(ended))[1:] == ("Stopping", "ended: the storage's blocklist has this node")
    silent = replace(line, standing="Silent", reason="silent on the mesh for 5.0 s")
    assert (await seen(silent))[1:] == ("Unknown", "node r1: silent on the mesh for 5.0 s")
    vms = objects.list(Kind.VIRTUAL_MACHINE)
    assert b'"web","Unknown"' in objects.table(Kind.VIRTUAL_MACHINE, vms.views, vms.revision)
    degraded = replace(line, standing="Degraded", reason="its daemon is not running")
    assert await seen(degraded) == ([("MODIFIED", "web")], "Running", "")


async def test_a_node_that_gets_a_manifest_is_still_the_same_node(desk: Desk) -> None:
    await desk.put({keys.node_status(Kind.NODE, "r1"): NodeStatus(uid="r1", ready=True)})
    watch = desk.objects.watch(Kind.NODE, since=desk.objects.revision)
    metadata = ObjectMeta(name="r1", uid="another")
    record = SpecRecord(kind="Node", metadata=metadata, spec={}, source=Source(path="r1.yaml"))
    await desk.put({keys.spec(Kind.NODE, "r1"): record})
    assert await told(watch) == [("MODIFIED", "r1")]


async def test_subscribers_hear_which_objects_may_have_changed(desk: Desk) -> None:
    heard: list[frozenset[tuple[Kind, str]]] = []
    undo = desk.objects.subscribe(heard.append)
    await desk.vm("web")
    await desk.put({keys.intent(VM, "nobody"): Intent()})
    undo()
    await desk.vm("db")
    assert heard == [frozenset({(VM, "web")})]


async def test_a_watch_from_the_start_tells_everything_first(desk: Desk) -> None:
    await desk.vm("web")
    watch = desk.objects.watch(VM)
    assert await told(watch) == [("ADDED", "web")]
    await desk.run("web")
    assert await told(watch) == [("MODIFIED", "web")]
    await desk.put({}, deletes=(SPEC,))
    assert await told(watch) == [("DELETED", "web")]
    assert await told(watch) == []


async def test_a_deleted_object_is_told_as_it_was_last_seen(desk: Desk) -> None:
    await desk.vm("web")
    await desk.run("web")
    watch = desk.objects.watch(VM)
    await told(watch)
    await desk.put({}, deletes=(SPEC,))
    [event] = (await watch.next(0.0)).events
    assert event.view.object["status"]["phase"] == "Running"


async def test_a_watch_goes_on_from_a_revision(desk: Desk) -> None:
    for name in ("web", "db", "app"):
        await desk.vm(name)
    revision = desk.objects.list(VM).revision
    await desk.run("web")
    await desk.put({}, deletes=(keys.spec(VM, "db"),))
    await desk.vm("new")
    watch = desk.objects.watch(VM, since=revision)
    assert await told(watch) == [("MODIFIED", "web"), ("DELETED", "db"), ("ADDED", "new")]


async def test_what_came_and_went_in_between_is_not_told(desk: Desk) -> None:
    revision = desk.objects.revision
    watch = desk.objects.watch(VM)
    await desk.vm("web")
    await desk.put({}, deletes=(SPEC,))
    assert await told(watch) == []
    assert await told(desk.objects.watch(VM, since=revision)) == []


async def test_an_object_made_again_is_told_as_deleted_and_added(desk: Desk) -> None:
    await desk.vm("web", uid="old")
    watch = desk.objects.watch(VM)
    await told(watch)
    await desk.put({}, deletes=(SPEC,))
    await desk.vm("web", uid="new")
    assert await told(watch) == [("DELETED", "web"), ("ADDED", "web")]


async def test_a_relabelled_object_enters_and_leaves_a_selected_watch(desk: Desk) -> None:
    await desk.vm("web", labels={"app": "shop"})
    await desk.vm("db")
    watch = desk.objects.watch(VM, selector=parse_selector("app=shop"))
    assert await told(watch) == [("ADDED", "web")]
    await desk.vm("db", labels={"app": "shop"})
    await desk.vm("web")
    assert await told(watch) == [("ADDED", "db"), ("DELETED", "web")]


async def test_a_selected_watch_from_a_revision_is_not_told_of_others(desk: Desk) -> None:
    await desk.vm("db")
    revision = desk.objects.list(VM).revision
    await desk.run("db")
    watch = desk.objects.watch(VM, selector=parse_selector("app=shop"), since=revision)
    assert await told(watch) == []


async def test_a_watch_of_one_name_hears_of_no_other(desk: Desk) -> None:
    watch = desk.objects.watch(VM, name="web")
    await desk.vm("db")
    await desk.vm("web")
    assert await told(watch) == [("ADDED", "web")]


async def test_many_changes_cost_a_slow_reader_one_entry(desk: Desk) -> None:
    watch = desk.objects.watch(VM)
    for number in range(50):
        await desk.vm("web", priority=number)
    [event] = (await watch.next(0.0)).events
    assert event.view.object["spec"]["priority"] == 49


async def test_a_write_that_changes_nothing_a_reader_sees_twice_is_told_once(desk: Desk) -> None:
    await desk.vm("web")
    watch = desk.objects.watch(VM, since=desk.objects.revision)
    await desk.run("web")
    assert await told(watch) == [("MODIFIED", "web")]
    assert await told(watch) == []


async def test_a_waiting_reader_is_woken(desk: Desk) -> None:
    watch = desk.objects.watch(VM)
    waiting = asyncio.create_task(watch.next(5.0))
    await asyncio.sleep(0)
    await desk.vm("web")
    batch = await asyncio.wait_for(waiting, 5.0)
    assert batch.revision == desk.cache.revision
    assert [event.view.name for event in batch.events] == ["web"]


async def test_a_quiet_time_gives_the_revision_it_is_at(desk: Desk) -> None:
    batch = await desk.objects.watch(VM).next(0.01)
    assert (batch.events, batch.revision) == ((), desk.cache.revision)


async def test_revisions_before_this_daemon_and_after_the_store_are_expired(desk: Desk) -> None:
    with pytest.raises(Expired):
        desk.objects.watch(VM, since=0)
    with pytest.raises(Expired):
        desk.objects.watch(VM, since=desk.objects.revision + 1)


async def test_forgotten_history_is_expired_and_memory_bounded(desk: Desk) -> None:
    revision = desk.objects.revision
    for number in range(module.HISTORY + 1):
        await desk.vm("web", priority=number)
    with pytest.raises(Expired):
        desk.objects.watch(VM, since=revision)
    assert await told(desk.objects.watch(VM, since=desk.objects.revision - 1)) == [("MODIFIED", "web")]


async def test_a_closed_watch_is_told_nothing(desk: Desk) -> None:
    watch = desk.objects.watch(VM)
    watch.close()
    await desk.vm("web")
    assert await told(watch) == []


async def test_a_thousand_vms_are_told_in_one_batch(desk: Desk) -> None:
    watch = desk.objects.watch(VM)
    records = {keys.spec(VM, f"vm{n:04}"): vm_record(f"vm{n:04}") for n in range(1000)}
    await desk.put({**records, **running("vm0007")})
    batch = await watch.next(0.0)
    assert len(batch.events) == 1000
    shown = {event.view.name: event.view.object["status"]["phase"] for event in batch.events}
    assert (shown["vm0006"], shown["vm0007"]) == ("Pending", "Running")
