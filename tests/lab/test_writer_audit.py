"""The audits have teeth: two that could write to an image are told of, and so is what two have written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

cluster = sys.modules["vcl_lab_cluster"]
WRITER = Path(__file__).parents[1] / "adapters/rbd/rbd_child.py"
YEARS = "315360000"


def make(lab: Any, image: str) -> None:
    conf = str(lab.storage.dir / "ceph.conf")
    lab.storage.host.run("rbd", "-c", conf, "create", "--size", "2M", f"vms/{image}")


@contextmanager
def writer(lab: Any, machine: str, image: str) -> Iterator[str]:
    """Somebody on the machine who has the image open for writing; the address."""
    words = [sys.executable, str(WRITER), "/etc/ceph/ceph.conf", "qemu", "vms", "", image]
    command = lab.host(machine).command(*words)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield child.stdout.readline().strip()
        finally:
            child.kill()


@contextmanager
def guest(lab: Any, machine: str, image: str, guest_image: Any) -> Iterator[Path]:
    """A QEMU that nobody manages, with the guest of the tests; its console."""
    console = lab.host(machine).dir / f"{image}.console"
    drive = f"file=rbd:vms/{image}:id=qemu:conf=/etc/ceph/ceph.conf,format=raw,if=virtio,cache=none"
    boot = [
        "-kernel",
        guest_image.kernel,
        "-initrd",
        guest_image.initrd,
        "-append",
        "console=ttyS0 quiet no_timer_check",
    ]
    display = ["-display", "none", "-nodefaults", "-serial", f"file:{console}"]
    words = ["qemu-system-x86_64", "-accel", "tcg", "-m", "128", *display, *boot, "-drive", drive]
    with subprocess.Popen(lab.host(machine).command(*words), stdin=subprocess.DEVNULL) as child:
        try:
            yield console
        finally:
            for each in lab.host(machine).members():
                if drive in each.words():
                    each.signal(9)
            child.wait(30)


def ticks(console: Path) -> int:
    return console.read_text(errors="replace").count("vcl-guest: tick") if console.exists() else 0


def test_one_writer_is_nothing_to_tell_of(bare_lab: Any) -> None:
    make(bare_lab, "alone")
    before = bare_lab.audit.seen("writers")
    with writer(bare_lab, "r1", "alone"):
        bare_lab.audit.looked()
    assert bare_lab.audit.seen("writers") > before
    assert bare_lab.audit.findings() == []


def test_two_writers_are_told_of_until_one_is_fenced(bare_lab: Any) -> None:
    lab = bare_lab
    make(lab, "two")
    with writer(lab, "r1", "two") as first:
        with lab.audit.caught() as found, writer(lab, "r2", "two") as second:
            lab.audit.looked()
            lab.storage.command("osd", "blocklist", "add", first, YEARS)
            lab.audit.looked()
        assert {json.dumps(each["clients"]) for each in found} == {json.dumps(sorted([first, second]))}
        assert found[0]["image"] == "two"
        before = lab.audit.seen("fenced")
        lab.storage.command("osd", "blocklist", "add", second, YEARS)
        with writer(lab, "r3", "two"):
            lab.audit.looked()
    assert lab.audit.seen("fenced") >= before
    assert lab.audit.findings() == []


def test_what_a_second_qemu_writes_is_seen_in_the_data(bare_lab: Any, guest_image: Any) -> None:
    lab = bare_lab
    make(lab, "shared")
    both = {"two writers", "counter went back"}
    with lab.audit.caught() as found:
        with guest(lab, "r1", "shared", guest_image) as one:
            cluster.until(lambda: ticks(one) >= 3, 60.0, "the first writes")
            assert foreign(lab, "shared") == ()
            with guest(lab, "r2", "shared", guest_image) as other:
                cluster.until(lambda: ticks(other) >= 4, 60.0, "the second writes")
                cluster.until(lambda: told(lab) >= both, 60.0, f"it tells of {both}")
                # While both write: the one that goes on alone may write all of the other's records anew.
                cluster.until(lambda: foreign(lab, "shared"), 60.0, "the data show two writers")
        # Ceph takes half a minute to notice that both are gone.
        for client in {client for each in lab.audit.findings() for client in each.get("clients", ())}:
            lab.storage.command("osd", "blocklist", "add", client, YEARS)
    assert {each["what"] for each in found} >= both


def foreign(lab: Any, image: str) -> tuple[str, ...]:
    """What no single writer can have left in the image's records."""
    found: tuple[str, ...] = cluster.foreign(cluster.records(lab.storage.content(image)))
    return found


def told(lab: Any) -> set[str]:
    return {each["what"] for each in lab.audit.findings()}


def test_records_of_boots_one_after_the_other_are_well() -> None:
    assert cluster.foreign(boots((1, 0, 1, 4), (2, 4, 5, 9))) == ()
    # The last record of a boot that was cut off before it counted is written anew by the next one.
    assert cluster.foreign(boots((1, 0, 1, 3), (2, 3, 4, 4))) == ()


def test_records_of_a_boot_that_wrote_too_late_are_not() -> None:
    (late,) = cluster.foreign(boots((1, 0, 1, 4), (2, 4, 5, 8), (1, 0, 9, 9)))
    assert "was written though boot 2" in late
    assert cluster.foreign(boots((1, 0, 1, 5), (2, 4, 6, 8)))
    assert "both are the disk's boot 1" in cluster.foreign((*boots((1, 0, 1, 2)), other(3)))[0]
    assert cluster.foreign(boots((1, 0, 1, 2), (1, 0, 4, 5))) == ("the record 3 is missing",)


def boots(*each: tuple[int, int, int, int]) -> tuple[Any, ...]:
    """Records of (boot, counter that it found, first, last)."""
    return tuple(
        cluster.Written(tick=tick, boots=number, found=found, boot=f"id{number}")
        for number, found, first, last in each
        for tick in range(first, last + 1)
    )


def other(tick: int) -> Any:
    return cluster.Written(tick=tick, boots=1, found=0, boot="other")
