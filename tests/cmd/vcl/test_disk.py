"""`vcl disk`: who holds an image is told as far as it is known, and nobody is shut out unasked."""

from __future__ import annotations

from typing import Any

import pytest

PERSON = {"client": "10.77.0.9:0/7", "entity": "client.41", "lock": "maintenance", "tag": "by hand"}
GUEST = {"client": "10.77.0.2:0/5", "entity": "client.5", "watching": True, "vm": "web", "node": "r2"}
FORMER = {**GUEST, "former": True, "fenced": True, "lock": "auto 1", "tag": "internal"}
VCLD = {"client": "10.77.0.2:0/6", "entity": "client.6", "watching": True, "node": "r2", "daemon": True}
OTHER = {"client": "10.77.0.3:0/6", "entity": "client.7", "watching": True, "node": "r3"}


def disk(*holders: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = {"name": "root", "pool": "ceph", "image": "web.root", "identity": "f/p//1", "network": True}
    return {**found, "holders": list(holders), **more}


def test_holders_are_shown_with_address_lock_and_whose_they_are(vcl: Any, api: Any) -> None:
    api.disks = [disk(PERSON, GUEST, FORMER, VCLD, OTHER)]
    lines = vcl("disk", "show", "web").out.splitlines()
    assert lines[0] == "Disk root:"
    told = {tuple(filter(None, (part.strip() for part in line.split("  ")))) for line in lines[5:]}
    assert told == {
        ("10.77.0.9:0/7", "client.41", "only lock 'maintenance', tag 'by hand'", "not known to vcl"),
        ("10.77.0.2:0/5", "client.5", "has it open", "VM web on node r2"),
        (
            "10.77.0.2:0/5",
            "client.5",
            "has it open; lock 'auto 1', tag 'internal'; blocklisted",
            "an earlier run of VM web at the address of node r2",
        ),
        ("10.77.0.2:0/6", "client.6", "has it open", "vcld on node r2"),
        ("10.77.0.3:0/6", "client.7", "has it open", "not vcl's at the address of node r3"),
    }


def test_what_nobody_holds_and_what_is_not_known_are_told_apart(vcl: Any, api: Any) -> None:
    api.disks = [disk(), disk(name="data", problem="the Ceph pool vms did not answer")]
    out = vcl("disk", "show", "web").out
    assert "Held by:  nobody\n" in out
    assert "Held by:  the Ceph pool vms did not answer\n" in out


def test_unlock_shuts_out_whom_it_has_shown(vcl: Any, api: Any) -> None:
    api.disks = [disk(PERSON)]
    result = vcl("disk", "unlock", "web", "root", "--yes")
    assert result.code == 0
    assert "10.77.0.9:0/7" in result.out
    assert "vcl retry web" in result.out
    body = {"clients": ["10.77.0.9:0/7"]}
    assert api.requests("POST") == [("virtualmachines/web/disks/root/unlock", {}, body)]


@pytest.mark.parametrize(
    ("found", "words", "told"),
    [
        (disk(PERSON), ("web", "root"), "no terminal"),
        (disk(PERSON), ("web", "data", "--yes"), "has no disk 'data'; it has: root"),
        (disk(PERSON, problem="Ceph does not answer"), ("web", "root", "--yes"), "Ceph does not answer"),
        (disk(missing=True), ("web", "root", "--yes"), "does not exist yet"),
        (disk({"client": "pid:7:1"}, network=False), ("web", "root", "--yes"), "the image is a file"),
    ],
)
def test_nothing_is_asked_of_the_daemon_when_it_makes_no_sense(
    vcl: Any, api: Any, found: dict[str, Any], words: tuple[str, ...], told: str
) -> None:
    api.disks = [found]
    result = vcl("disk", "unlock", *words)
    assert result.code != 0
    assert told in result.err
    assert api.requests("POST") == []


def test_an_image_that_nobody_holds_needs_no_unlocking(vcl: Any, api: Any) -> None:
    api.disks = [disk()]
    result = vcl("disk", "unlock", "web", "root")
    assert (result.code, result.out) == (0, "nobody holds the image web.root\n")
    assert api.requests("POST") == []
