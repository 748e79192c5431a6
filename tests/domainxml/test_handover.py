"""What is changed of a guest's live definition on its way to another host, and that nothing else is."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from reconciler.domainxml.handover import Place, handed_over
from reconciler.domainxml.metadata import ownership
from reconciler.resources.errors import InvalidInput

MARK = (
    '<metadata><vcl:domain xmlns:vcl="urn:vcl:domain:1" cluster="c" node="r1" uid="u" name="web" spec="s"/>'
    '<other:note xmlns:other="urn:other">kept</other:note></metadata>'
)
LIVE = f"""\
<domain type='qemu' id='3'><name>web</name><uuid>u</uuid>{MARK}
<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><nvram>/var/lib/a/nvram/web.fd</nvram></os>
<devices>
<disk type='network' device='disk'><source protocol='rbd' name='vms/web'/><target dev='vda'/></disk>
<disk type='file' device='cdrom'><source file='/var/lib/a/seed/web.iso'/><target dev='sda'/></disk>
<serial type='pty'><log file='/var/lib/a/console/web.log' append='on'/></serial>
</devices></domain>"""
HERE = Place(node="r1", root="/var/lib/a")


def test_the_mark_names_the_target_and_keeps_everything_else() -> None:
    document = handed_over(LIVE, HERE, Place(node="r2", root="/var/lib/a"))
    before, after = ownership(LIVE), ownership(document)
    assert before is not None
    assert after is not None
    assert (after.node, after.uid, after.name, after.spec) == ("r2", before.uid, before.name, before.spec)
    assert "kept" in document


def test_the_guests_own_files_are_where_the_target_keeps_them() -> None:
    document = handed_over(LIVE, HERE, Place(node="r2", root="/srv/b"))
    root = ET.fromstring(document)
    assert root.findtext("os/nvram") == "/srv/b/nvram/web.fd"
    assert [log.get("file") for log in root.iter("log")] == ["/srv/b/console/web.log"]
    assert [source.get("name") for source in root.iter("source") if source.get("name")] == ["vms/web"]


def test_an_image_of_cloud_init_that_the_target_has_not_leaves_the_drive_empty() -> None:
    root = ET.fromstring(handed_over(LIVE, HERE, Place(node="r2", root="/var/lib/a")))
    policies = {disk.get("device"): disk.find("source").get("startupPolicy") for disk in root.iter("disk")}  # type: ignore[union-attr]
    assert policies == {"disk": None, "cdrom": "optional"}


def test_a_domain_without_a_mark_is_nobodys_to_hand_over() -> None:
    with pytest.raises(InvalidInput, match="no mark"):
        handed_over(LIVE.replace(MARK, ""), HERE, Place(node="r2", root="/var/lib/a"))
