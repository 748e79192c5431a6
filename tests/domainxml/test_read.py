"""Reading facts back: from samples of every age, from a running domain, and from nonsense."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.domainxml.metadata import NAMESPACE, Ownership, ownership, put
from reconciler.domainxml.parse import DomainXmlInvalid
from reconciler.domainxml.read import BootFacts, VncFacts, describe_xml

RUNNING = (Path(__file__).parent / "running" / "q35-uefi-libvirt-9.0.xml").read_text()


def devices(inner: str) -> str:
    return f"<domain><devices>{inner}</devices></domain>"


def test_a_running_domain_tells_what_it_is() -> None:
    facts = describe_xml(RUNNING)
    assert (facts.name, facts.uuid) == ("web", "6f1c3b52-7a30-4b7e-9a53-0d4f6f0f8a01")
    assert (facts.virtualization, facts.architecture, facts.machine) == ("qemu", "x86_64", "pc-q35-7.2")
    assert (facts.vcpus, facts.memory, facts.firmware) == (2, 257 << 20, "uefi")
    assert facts.vnc == VncFacts(host="127.0.0.1", port=5902)
    assert (facts.agent, facts.agent_connected) == ("disconnected", False)
    assert facts.console_log == "/var/log/vcl/console/web.log"
    assert facts.writable == ("/pool/data.qcow2", "/pool/root.qcow2", "/var/lib/vcl/nvram/web.fd")
    assert [(disk.name, disk.target, disk.read_only) for disk in facts.disks] == [
        ("root", "vda", False),
        ("", "vdb", True),
        ("data", "sda", False),
        ("sat", "sdb", True),
    ]
    assert [nic.name for nic in facts.interfaces] == ["nat", "two"]


def test_its_mark_is_read_back() -> None:
    mark = ownership(RUNNING)
    assert mark is not None
    assert (mark.cluster_uid, mark.node, mark.name, mark.generation) == ("c", "r1", "web", 3)


def test_network_disks_are_named_by_protocol_pool_and_image(samples: dict[str, str]) -> None:
    root, spool = describe_xml(samples["rbd-secret"]).disks
    assert (root.type, root.protocol, root.source) == ("network", "rbd", "rbd:vms/mail-root")
    assert root.hosts == ("192.0.2.11:6789", "192.0.2.12:6789", "2001:db8::13:6789")
    assert root.config == "/etc/ceph/ceph.conf"
    assert (spool.source, spool.read_only) == ("rbd:vms/tenant1/mail-spool", True)
    assert describe_xml(samples["rbd-secret"]).writable == ("rbd:vms/mail-root",)


def test_every_kind_of_source_that_can_be_written_is_named(samples: dict[str, str]) -> None:
    assert describe_xml(samples["numa-hugepages"]).writable == (
        "nvme:0x0000:0x09:0x00:0x0/1",
        "volume:fast/db-root",
    )
    assert describe_xml(samples["shared-and-luks"]).writable == (
        "/srv/shared/c1.qcow2",
        "/srv/shared/quorum.img",
        "iscsi:iqn.2013-07.com.example:disks/1",
        "nbd:export1",
    )


def test_the_target_of_a_block_job_and_file_backed_memory_are_written_too(samples: dict[str, str]) -> None:
    assert describe_xml(samples["memory-devices"]).writable == (
        "/srv/vms/copy.qcow2",
        "/srv/vms/pmem.1.qcow2",
        "/srv/vms/pmem.nvdimm",
    )


def test_a_floppy_is_written_and_a_cd_is_not(samples: dict[str, str]) -> None:
    facts = describe_xml(samples["i440fx-ide-2011"])
    assert facts.writable == ("/srv/floppies/drivers.img", "/var/lib/libvirt/images/oldbox.img")


def test_nvram_in_a_source_element_is_found() -> None:
    text = (
        "<domain><os><loader type='pflash'>/c.fd</loader>"
        "<nvram type='file'><source file='/v.fd'/></nvram></os></domain>"
    )
    assert describe_xml(text).writable == ("/v.fd",)


def test_shared_disks_are_flagged(samples: dict[str, str]) -> None:
    disks = describe_xml(samples["shared-and-luks"]).disks
    assert [disk.target for disk in disks if disk.shareable] == ["vdb"]


def test_host_devices_are_counted(samples: dict[str, str]) -> None:
    assert describe_xml(samples["passthrough-hostdev"]).host_devices == 2


def test_vnc_on_a_socket_has_no_port(samples: dict[str, str]) -> None:
    assert describe_xml(samples["rbd-secret"]).vnc == VncFacts(socket="/run/vnc/mail.sock")
    assert describe_xml(samples["windows-spice-sata"]).vnc is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<memory>1024</memory>", 1 << 20),
        ("<memory unit='b'>1024</memory>", 1024),
        ("<memory unit='MB'>1</memory>", 1_000_000),
        ("<memory unit='G'>2</memory>", 2 << 30),
        ("<memory unit='parsec'>1</memory>", 0),
        ("<memory>much</memory>", 0),
        ("<memory>-1</memory>", 0),
        ("", 0),
    ],
)
def test_memory_is_read_in_any_unit(text: str, value: int) -> None:
    assert describe_xml(f"<domain>{text}</domain>").memory == value


@pytest.mark.parametrize(
    "text",
    [
        "<domain/>",
        "<domain><os><type/></os><vcpu current='x'>y</vcpu><devices/></domain>",
        devices("<disk/><disk type='network'><source/></disk><disk><source file=''/></disk>"),
        devices("<interface/><channel/><serial/><graphics type='vnc' port='no'/><memory model='nvdimm'/>"),
        devices("<disk><source type='x'/><alias name='ua-disk-%_zz'/><mirror/></disk>"),
        "<domain><metadata><domain xmlns='urn:vcl:domain:1' uid='x'/></metadata></domain>",
        "<domain xmlns='urn:x'><name/></domain>",
    ],
)
def test_sparse_or_senseless_xml_is_read_as_far_as_it_goes(text: str) -> None:
    facts = describe_xml(text)
    assert (facts.ownership, facts.writable, facts.boot) == (None, (), BootFacts())


def test_what_is_not_well_formed_is_one_clear_error() -> None:
    with pytest.raises(DomainXmlInvalid, match="line 1: not well-formed XML"):
        describe_xml("<domain><name>")


def render(mark: Ownership) -> str:
    """The mark as it is in a domain's metadata."""
    root = ET.Element("domain")
    put(root, mark)
    return ET.tostring(root[0][0], encoding="unicode")


class TestOwnership:
    MARK = Ownership(cluster_uid="c1", node="r1", uid="u1", name="web", generation=2, cpu="host-model")

    def domain(self, inner: str) -> str:
        return f"<domain><metadata>{inner}</metadata></domain>"

    def test_what_is_written_is_read(self) -> None:
        assert ownership(self.domain(render(self.MARK))) == self.MARK

    def test_a_foreign_domain_has_none(self, samples: dict[str, str]) -> None:
        assert [ownership(text) for text in samples.values()] == [None] * len(samples)

    @pytest.mark.parametrize(
        "inner",
        [
            f"<a:domain xmlns:a='{NAMESPACE}' cluster='c1' node='r1' uid='u1'/>",
            f"<domain xmlns='{NAMESPACE}' cluster='c1' node='r1' uid='u1'/>",
        ],
    )
    def test_the_prefix_does_not_matter(self, inner: str) -> None:
        mark = ownership(self.domain(inner))
        assert mark is not None
        assert mark.uid == "u1"

    @pytest.mark.parametrize(
        "inner",
        [
            "<vcl:domain xmlns:vcl='urn:other' cluster='c1' node='r1' uid='u1'/>",
            f"<vcl:other xmlns:vcl='{NAMESPACE}' cluster='c1' node='r1' uid='u1'/>",
            f"<vcl:domain xmlns:vcl='{NAMESPACE}' node='r1' uid='u1'/>",
            f"<vcl:domain xmlns:vcl='{NAMESPACE}' cluster='c1' uid='u1'/>",
            f"<vcl:domain xmlns:vcl='{NAMESPACE}' cluster='c1' node='r1' uid=''/>",
        ],
    )
    def test_half_a_mark_is_none(self, inner: str) -> None:
        assert ownership(self.domain(inner)) is None

    def test_two_marks_are_no_proof_of_either(self) -> None:
        assert ownership(self.domain(render(self.MARK) * 2)) is None

    def test_a_mark_outside_the_metadata_is_none(self) -> None:
        assert ownership(f"<domain><description>{render(self.MARK)}</description></domain>") is None


_NAMES = st.sampled_from(
    [
        "disk",
        "source",
        "target",
        "alias",
        "mirror",
        "os",
        "nvram",
        "devices",
        "metadata",
        "memory",
        "interface",
    ]
)
_ATTRIBUTES = st.dictionaries(
    st.sampled_from(["type", "name", "file", "dev", "protocol", "model", "unit", "device", "pool"]),
    st.sampled_from(["", "x", "network", "nvdimm", "ua-disk-a", "ua-disk-_zz", "vnc", "9" * 30, "é"]),
    max_size=3,
)


@st.composite
def elements(draw: st.DrawFn, depth: int = 3) -> str:
    name = draw(_NAMES)
    attributes = "".join(f" {key}='{value}'" for key, value in draw(_ATTRIBUTES).items())
    inner = draw(st.lists(elements(depth - 1), max_size=3)) if depth else [draw(st.sampled_from(["", "1"]))]
    return f"<{name}{attributes}>{''.join(inner)}</{name}>"


@settings(deadline=None)
@given(st.lists(elements(), max_size=3))
def test_any_well_formed_domain_is_read(inner: list[str]) -> None:
    facts = describe_xml(f"<domain>{''.join(inner)}</domain>")
    assert facts.vcpus == 1
    assert "" not in facts.writable
