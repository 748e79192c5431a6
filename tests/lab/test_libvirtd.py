"""The private libvirtd itself: it meets nobody, its guests outlive it, and it leaves nothing behind."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

lab = sys.modules["vcl_lab_libvirtd"]
DOMAIN = (
    "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>"
    "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
)


@pytest.fixture
def other(private_libvirtd: Any, tmp_path: Path) -> Iterator[Any]:
    """A second one beside the run's; it need not probe QEMU again."""
    private_libvirtd.start()
    made = lab.PrivateLibvirtd(tmp_path / "other")
    shutil.copytree(private_libvirtd.dir / "cache", made.dir / "cache", dirs_exist_ok=True)
    yield made
    made.remove()


def names(daemon: Any) -> list[str]:
    connection = libvirt.open(daemon.uri)
    found = sorted(domain.name() for domain in connection.listAllDomains())
    connection.close()
    return found


def run(daemon: Any, name: str) -> None:
    connection = libvirt.open(daemon.uri)
    connection.createXML(DOMAIN.format(name=name), 0)
    connection.close()


def test_two_see_nothing_of_each_other(private_libvirtd: Any, other: Any) -> None:
    other.start()
    run(other, "here")
    assert names(other) == ["here"]
    assert names(private_libvirtd) == []
    assert private_libvirtd.guests() == ()
    other.stop()
    assert private_libvirtd.process() is not None


def test_a_guest_outlives_its_libvirtd_and_is_found_again(other: Any) -> None:
    other.start()
    run(other, "stays")
    (guest,) = other.guests()
    other.kill()
    assert other.process() is None
    assert other.guests() == (guest,)
    other.start()
    assert names(other) == ["stays"]
    other.restart()
    assert names(other) == ["stays"]
    assert other.guests() == (guest,)


def test_stopping_it_ends_what_it_ran_and_can_be_repeated(other: Any) -> None:
    other.start()
    other.start()
    run(other, "ends")
    (guest,) = other.guests()
    lab.PrivateLibvirtd(other.dir).stop()
    assert not guest.alive()
    assert other.process() is None
    other.stop()
    other.remove()
    assert not other.dir.exists()


def test_a_directory_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(lab.LibvirtdFailed, match="choose a shorter directory"):
        lab.PrivateLibvirtd(tmp_path / ("x" * 100)).start()
