"""RestartRequired names every field that waits for a restart, by its path, and only those."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.planning.restart import never_taken, pending_fields
from reconciler.resources.virtualmachine import (
    Boot,
    Cpu,
    Disk,
    DiskCache,
    Interface,
    NicModel,
    RunStrategy,
    VirtualMachineSpec,
)

GIB = 1 << 30
ROOT, DATA = Disk(name="root", size=4 * GIB), Disk(name="data", size=8 * GIB)
LAN = Interface(name="lan", bridge="br0")
STARTED = VirtualMachineSpec(cpu=Cpu(cores=2), memory=GIB, disks=(ROOT, DATA), interfaces=(LAN,))


def pending(**fields: Any) -> tuple[str, ...]:
    return pending_fields(STARTED, replace(STARTED, **fields))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, ()),
        ({"run_strategy": RunStrategy.HALTED, "priority": 3}, ()),
        ({"cpu": Cpu(cores=4)}, ("spec.cpu.cores",)),
        ({"cpu": Cpu(cores=4, model="Nehalem")}, ("spec.cpu.cores", "spec.cpu.model")),
        ({"memory": 2 * GIB, "machine": "pc"}, ("spec.machine", "spec.memory")),
        ({"boot": Boot(kernel="/k")}, ("spec.boot",)),
        ({"domain_xml": "<domain/>"}, ("spec.domainXML",)),
        ({"disks": (ROOT,)}, ("spec.disks[data]",)),
        ({"disks": (ROOT, DATA, Disk(name="more"))}, ("spec.disks[more]",)),
        ({"disks": (DATA, ROOT)}, ("spec.disks",)),
        ({"disks": (replace(ROOT, size=5 * GIB), DATA)}, ("spec.disks[root].size",)),
        (
            {"disks": (ROOT, replace(DATA, cache=DiskCache.UNSAFE, read_only=True))},
            ("spec.disks[data].cache", "spec.disks[data].readOnly"),
        ),
        ({"interfaces": ()}, ("spec.interfaces[lan]",)),
        (
            {"interfaces": (Interface(name="lan", network="n", model=NicModel.E1000E),)},
            ("spec.interfaces[lan].bridge", "spec.interfaces[lan].model", "spec.interfaces[lan].network"),
        ),
    ],
)
def test_every_pending_field_is_named_by_its_path(fields: dict[str, Any], named: tuple[str, ...]) -> None:
    assert pending(**fields) == named


def test_a_smaller_disk_is_refused_in_words_and_waits_for_no_restart() -> None:
    wanted = replace(STARTED, disks=(ROOT, replace(DATA, size=2 * GIB)))
    assert pending_fields(STARTED, wanted) == ()
    assert never_taken(STARTED, wanted) == (
        "disk 'data' is not made smaller: an image is never shrunk to 2Gi, set spec.disks[data].size back",
    )


def test_a_size_that_is_no_longer_asked_for_changes_nothing() -> None:
    wanted = replace(STARTED, disks=(ROOT, replace(DATA, size=None)))
    assert (pending_fields(STARTED, wanted), never_taken(STARTED, wanted)) == ((), ())


def test_a_smaller_size_of_another_image_waits_for_the_restart() -> None:
    wanted = replace(STARTED, disks=(ROOT, replace(DATA, image="other", size=2 * GIB)))
    assert pending_fields(STARTED, wanted) == ("spec.disks[data].image", "spec.disks[data].size")
    assert never_taken(STARTED, wanted) == ()
