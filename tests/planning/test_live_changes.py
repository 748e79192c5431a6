"""What a running VM takes at once, in which order, and what counts as started with afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.planning.live_changes import (
    LONGEST_PAUSE,
    PATIENCE,
    Tries,
    live_changes,
    next_change,
    obstacles,
    taken,
    under_way,
)
from reconciler.planning.restart import pending_fields
from reconciler.resources.changes import AttachDisk, DetachDisk, GrowDisk, Memory, Reconnect, Vcpus
from reconciler.resources.codec import decode, encode
from reconciler.resources.virtualmachine import (
    Cpu,
    Disk,
    DiskCache,
    Interface,
    NicModel,
    NicState,
    VirtualMachineSpec,
)

GIB = 1 << 30
ROOT, DATA = Disk(name="root", size=4 * GIB), Disk(name="data", size=8 * GIB)
LAN = Interface(name="lan", bridge="br0")
STARTED = VirtualMachineSpec(cpu=Cpu(cores=2), memory=GIB, disks=(ROOT, DATA), interfaces=(LAN,))


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({}, ()),
        ({"cpu": Cpu(cores=4)}, (Vcpus(count=4),)),
        ({"cpu": Cpu(cores=1)}, ()),
        ({"cpu": Cpu(cores=2, max_cores=8)}, ()),
        ({"memory": 2 * GIB}, (Memory(size=2 * GIB),)),
        ({"memory": GIB // 2}, (Memory(size=GIB // 2),)),
        ({"machine": "pc", "domain_xml": "<domain/>"}, ()),
        ({"disks": (replace(ROOT, size=5 * GIB), DATA)}, (GrowDisk(disk="root", size=5 * GIB),)),
        ({"disks": (replace(ROOT, size=3 * GIB), DATA)}, ()),
        ({"disks": (replace(ROOT, size=5 * GIB, image="other"), DATA)}, ()),
        ({"disks": (replace(ROOT, size=5 * GIB, read_only=True), DATA)}, ()),
        ({"disks": (replace(ROOT, cache=DiskCache.UNSAFE), DATA)}, ()),
        ({"disks": (ROOT,)}, (DetachDisk(disk="data"),)),
        ({"disks": (ROOT, DATA, Disk(name="more"))}, (AttachDisk(disk="more"),)),
        (
            {"disks": (ROOT, Disk(name="again", image="web.data"))},
            (DetachDisk(disk="data"), AttachDisk(disk="again")),
        ),
        (
            {"interfaces": (replace(LAN, state=NicState.DOWN),)},
            (Reconnect(interface="lan", fields=("state",)),),
        ),
        ({"interfaces": (replace(LAN, bridge="br1"),)}, (Reconnect(interface="lan", fields=("bridge",)),)),
        ({"interfaces": (replace(LAN, bridge="br1", model=NicModel.E1000E),)}, ()),
        ({"interfaces": ()}, ()),
    ],
)
def test_what_a_running_guest_can_take(fields: dict[str, Any], changes: tuple[Any, ...]) -> None:
    assert live_changes(STARTED, replace(STARTED, **fields)) == changes


def test_each_is_tried_in_turn_and_one_that_waits_holds_up_no_other() -> None:
    more, roomier = Vcpus(count=4), Memory(size=2 * GIB)
    tries = Tries()
    assert next_change((roomier, more), tries, 0.0) == (roomier, None)
    tries = tries.failed(roomier, "no room", 0.0)
    assert next_change((roomier, more), tries, 0.5) == (more, None)
    tries = tries.refused(more, "never")
    assert next_change((roomier, more), tries, 0.5) == (None, 1.0)
    assert next_change((roomier, more), tries, 1.0) == (roomier, None)
    assert next_change((more,), tries, 1e9) == (None, None)


def test_the_pauses_grow_to_a_minute() -> None:
    tries, change, pauses = Tries(), Memory(size=GIB), []
    for _ in range(9):
        tries = tries.failed(change, "the guest sleeps", 100.0)
        found = tries.of(change)
        assert found is not None
        assert found.retry_at is not None
        pauses.append(found.retry_at - 100.0)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, *[LONGEST_PAUSE] * 3]


def test_nobody_is_told_of_a_restart_while_there_is_hope() -> None:
    change, tries = Memory(size=GIB), Tries()
    for _ in range(PATIENCE - 1):
        assert under_way((change,), tries) == {"spec.memory"}
        assert obstacles((change,), tries) == {}
        tries = tries.failed(change, "the guest sleeps", 0.0)
    tries = tries.failed(change, "the guest sleeps", 0.0)
    assert under_way((change,), tries) == frozenset()
    assert obstacles((change,), tries) == {"spec.memory": "has not come about: the guest sleeps"}
    refused = Tries().refused(change, "no device")
    assert obstacles((change,), refused) == {"spec.memory": "waits for a restart: no device"}
    assert under_way((change,), refused) == frozenset()


def test_a_disk_that_came_is_where_the_spec_has_it() -> None:
    names = ["a", "b", "c", "d"]
    wanted = {"disks": [{"name": name, "size": "1Gi"} for name in names]}
    pinned: dict[str, Any] = {"disks": [{"name": "b"}]}
    for name in ("d", "a", "c"):
        pinned = taken(pinned, wanted, AttachDisk(disk=name))
    assert [disk["name"] for disk in pinned["disks"]] == names
    assert taken(pinned, wanted, AttachDisk(disk="a")) == pinned


def test_what_a_newer_release_wrote_stays() -> None:
    pinned = {"cpu": {"cores": 1, "later": 1}, "disks": [{"name": "a", "size": 1, "later": 2}], "later": 3}
    wanted = {"cpu": {"cores": 2}, "disks": [{"name": "a", "size": 5}]}
    after = taken(taken(pinned, wanted, Vcpus(count=2)), wanted, GrowDisk(disk="a", size=5))
    assert after == {
        "cpu": {"cores": 2, "later": 1},
        "disks": [{"name": "a", "size": 5, "later": 2}],
        "later": 3,
    }


SIZES = st.none() | st.integers(1, 4)
NAMES = st.sampled_from("abcd")
DISKS = st.lists(st.builds(Disk, name=NAMES, size=SIZES), max_size=4, unique_by=lambda d: d.name).map(tuple)
NICS = st.lists(
    st.builds(
        Interface,
        name=NAMES,
        bridge=st.none() | st.sampled_from(["br0", "br1"]),
        state=st.none() | st.sampled_from(NicState),
    ),
    max_size=2,
    unique_by=lambda nic: nic.name,
).map(tuple)
SPECS = st.builds(
    VirtualMachineSpec,
    cpu=st.builds(Cpu, cores=st.integers(1, 3)),
    memory=st.integers(1, 3),
    disks=DISKS,
    interfaces=NICS,
)


@given(SPECS, SPECS)
def test_when_all_that_can_come_has_come_only_the_rest_waits(
    started: VirtualMachineSpec, wanted: VirtualMachineSpec
) -> None:
    changes = live_changes(started, wanted)
    pinned: Any = encode(started)
    for change in changes:
        pinned = taken(pinned, encode(wanted), change)
    after = decode(VirtualMachineSpec, pinned, "spec")
    brought = {path for change in changes for path in change.paths}
    before, left = pending_fields(started, wanted), pending_fields(after, wanted)
    assert set(left) == set(before) - brought
    assert live_changes(after, wanted) == ()
