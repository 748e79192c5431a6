"""Domains that an operator made with virsh, on real Ceph, libvirt and QEMU, become VMs: the guest counts on
in the same process, its image has one claim and one client; what is not certain is refused (rule 9)."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest
import rados
import rbd

from reconciler.domainxml.read import describe_xml

pytestmark = [pytest.mark.libvirt, pytest.mark.ceph, pytest.mark.slow]

POOL = """\
apiVersion: vcl/v1
kind: StoragePool
metadata: {{name: ceph}}
spec:
  type: rbd
  rbd: {{pool: vms, conf: {conf}}}
"""
DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 quiet no_timer_check vcl.name={name}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
  <devices>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <auth username='qemu'><secret type='ceph' uuid='{secret}'/></auth>
      <source protocol='rbd' name='vms/{name}-old'><config file='{conf}'/></source>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='pty'><log file='{log}' append='on'/><target port='0'/></serial>
    <console type='pty'><target type='serial' port='0'/></console>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <watchdog model='i6300esb' action='reset'/>
  </devices>
</domain>
"""

FILES = """\
apiVersion: vcl/v1
kind: StoragePool
metadata: {{name: files}}
spec:
  type: directory
  directory: {{path: "{path}"}}
"""
UEFI = """\
<domain type='qemu'>
  <name>efi</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  <os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='{path}'/>
      <target dev='sda' bus='sata'/>
    </disk>
  </devices>
</domain>
"""


class Operator:
    """Somebody with virsh, before there was vcl."""

    def __init__(self, node: Any, ceph: Any, context: Any) -> None:
        self.node = node
        self._ceph = ceph
        self._context = context
        self.secret = str(uuid.uuid4())
        with node.libvirt() as connection:
            xml = (
                f"<secret ephemeral='no' private='yes'><uuid>{self.secret}</uuid>"
                "<usage type='ceph'><name>by hand</name></usage></secret>"
            )
            key = ceph.command("auth", "print-key", "client.qemu").strip()
            connection.secretDefineXML(xml).setValue(_decoded(key))

    def run(self, name: str) -> tuple[int, str]:
        """Define with autostart, and start; the process and the UUID."""
        rbd.RBD().create(self._context, f"{name}-old", 1 << 20)
        log = self.node.state / "libvirt/libvirt/console" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        identity = str(uuid.uuid4())
        document = DOMAIN.format(
            name=name,
            uuid=identity,
            kernel=self.node.guest.kernel,
            initrd=self.node.guest.initrd,
            conf=self._ceph.conf,
            secret=self.secret,
            log=log,
        )
        with self.node.libvirt() as connection:
            domain = connection.defineXML(document)
            domain.setAutostart(1)
            domain.create()
        self.node.until_printed(name, "tick 3")
        (pid,) = self.node.qemus(name)
        return pid, identity

    def clean_up(self) -> None:
        with self.node.libvirt() as connection:
            connection.secretLookupByUUIDString(self.secret).undefine()

    def watchers(self, name: str) -> list[str]:
        with rbd.Image(self._context, f"{name}-old", read_only=True) as opened:
            return [watcher["addr"] for watcher in opened.watchers_list()]


def _decoded(key: str) -> bytes:
    import base64

    return base64.b64decode(key)


@pytest.fixture
def operator(node: Any, private_ceph: Any) -> Iterator[Operator]:
    node.start()
    node.write("ceph.yaml", POOL.format(conf=private_ceph.conf))
    node.until(lambda: node.get("storagepool", "ceph"), what="the pool is there")
    with (
        rados.Rados(conffile=str(private_ceph.conf), name="client.admin") as cluster,
        cluster.open_ioctx("vms") as context,
    ):
        made = Operator(node, private_ceph, context)
        yield made
        with contextlib.suppress(libvirt.libvirtError):
            made.clean_up()


def ticks(node: Any, name: str) -> int:
    return max((int(found) for found in re.findall(r"tick (\d+)", node.console(name))), default=0)


def defined(node: Any, name: str) -> tuple[int, int]:
    """(persistent, autostart) of a domain."""
    with node.libvirt() as connection:
        domain = connection.lookupByName(name)
        return domain.isPersistent(), domain.autostart()


def test_a_guest_made_by_hand_counts_on_under_vcl(operator: Operator) -> None:
    node = operator.node
    pid, identity = operator.run("old")
    shown = node.vcl("adopt", "--from", node.libvirtd.uri, "old", "--dry-run=client")
    assert (shown.returncode, "image: old-old" in shown.stdout) == (0, True), shown.stderr
    assert defined(node, "old") == (1, 1)

    count = ticks(node, "old")
    adopted = node.vcl("adopt", "--from", node.libvirtd.uri, "old", "--yes")
    assert adopted.returncode == 0, adopted.stderr
    assert adopted.stdout == "virtualmachine/old adopted\n"
    assert operator.secret in adopted.stderr
    node.until_phase("old", "Running")
    assert node.qemus("old") == [pid]
    assert defined(node, "old") == (0, 0)
    found, claim = node.get("vm", "old"), node.claim("old")
    assert found["metadata"]["uid"] == identity
    assert set(operator.watchers("old")) == {c for c in claim["clients"] if not c.startswith("pid:")}
    assert any(client.startswith(f"pid:{pid}:") for client in claim["clients"])
    node.until(lambda: ticks(node, "old") > count + 3, what="the guest counts on")
    assert node.condition("old", "RestartRequired").get("status") != "True", node.message("old")
    assert "# Adopted from" in (node.manifests / "virtualmachine-old.yaml").read_text()
    assert "adopted" in node.vcl("describe", "vm", "old").stdout.lower()
    kept = list((node.state / "libvirt/libvirt/adopted").glob("old-*.xml"))
    assert len(kept) == 1
    assert "autostart" in kept[0].read_text()

    # A daemon that is killed and starts again finds it as its own.
    node.end(9)
    node.start()
    node.until_phase("old", "Running")
    assert node.qemus("old") == [pid]

    # It is a VM like others: stopped and started, it finds its data, with the pool's key.
    assert node.vcl("stop", "old", "--wait").returncode == 0
    assert operator.watchers("old") == []
    operator.clean_up()
    assert node.vcl("start", "old", "--wait").returncode == 0
    node.until_printed("old", "vcl-guest: disk found", times=2)
    starts = [int(number) for number in re.findall(r"disk found (\d+)", node.console("old"))]
    assert starts[-1] >= count
    assert node.qemus("old") != [pid]
    with node.libvirt() as connection:
        assert connection.lookupByName("old").UUIDString() == identity


def test_an_image_that_somebody_else_has_open_keeps_its_domain_by_hand(
    operator: Operator, private_ceph: Any
) -> None:
    node = operator.node
    pid, _ = operator.run("shared")
    child = Path(__file__).parents[1] / "adapters/rbd/rbd_child.py"
    command = [sys.executable, str(child), str(private_ceph.conf), "qemu", "vms", "", "shared-old"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as backup:
        assert backup.stdout is not None
        address = backup.stdout.readline().strip()
        refused = node.vcl("adopt", "--from", node.libvirtd.uri, "shared", "--yes")
        backup.communicate()
    assert refused.returncode == 1
    assert address in refused.stderr
    assert defined(node, "shared") == (1, 1)
    assert node.qemus("shared") == [pid]
    assert not node.get("vm", "shared")
    node.until(lambda: len(operator.watchers("shared")) == 1, what="the other one has closed it")
    assert node.vcl("adopt", "--from", node.libvirtd.uri, "shared", "--yes").returncode == 0
    node.until_phase("shared", "Running")
    assert node.qemus("shared") == [pid]


def test_a_domain_that_is_off_is_taken_out_of_libvirt_and_stays_off(operator: Operator) -> None:
    node = operator.node
    _, identity = operator.run("resting")
    with node.libvirt() as connection:
        connection.lookupByName("resting").destroy()
    adopted = node.vcl("adopt", "--from", node.libvirtd.uri, "resting")
    assert adopted.stdout == "virtualmachine/resting created\n", adopted.stderr
    with node.libvirt() as connection:
        assert "resting" not in [domain.name() for domain in connection.listAllDomains()]
    node.until_phase("resting", "Stopped")
    assert node.qemus("resting") == []
    assert node.vcl("start", "resting", "--wait").returncode == 0
    with node.libvirt() as connection:
        assert connection.lookupByName("resting").UUIDString() == identity


def test_a_uefi_guest_on_a_file_keeps_its_variables_where_libvirt_put_them(operator: Operator) -> None:
    node = operator.node
    images = node.root / "old images"
    images.mkdir()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", images / "efi.qcow2", "4M"], check=True)
    node.write("files.yaml", FILES.format(path=images))
    node.until(lambda: node.get("storagepool", "files"), what="the pool is there")
    identity = str(uuid.uuid4())
    with node.libvirt() as connection:
        domain = connection.defineXML(UEFI.format(uuid=identity, path=images / "efi.qcow2"))
        domain.create()
        nvram = describe_xml(domain.XMLDesc()).nvram
    (pid,) = node.qemus("efi")
    shown = node.vcl("adopt", "--from", node.libvirtd.uri, "efi", "--dry-run=client").stdout
    assert "pool: files" in shown
    assert nvram in shown
    adopted = node.vcl("adopt", "--from", node.libvirtd.uri, "efi", "--yes")
    assert adopted.returncode == 0, adopted.stderr
    node.until_phase("efi", "Running")
    assert node.qemus("efi") == [pid]
    claimed = node.claim("efi")["disks"]
    # The libvirtd of tests has a /var/lib/libvirt of its own: vcld knows the file by its path.
    assert any(disk.endswith(nvram.strip("/").replace("/", "|")) for disk in claimed), claimed
    assert len([disk for disk in claimed if not disk.startswith("name/")]) == 1
    assert node.vcl("stop", "efi", "--force", "--wait").returncode == 0
    assert node.vcl("start", "efi").returncode == 0
    node.until_phase("efi", "Running")
    with node.libvirt() as connection:
        facts = describe_xml(connection.lookupByName("efi").XMLDesc())
    assert (facts.nvram, facts.disks[0].source) == (nvram, str(images / "efi.qcow2"))
    assert facts.uuid == identity
