"""A VM with its disk in a real Ceph pool, on a real libvirtd and QEMU: its clients are known before it runs,
its data stays, and nobody else's image is touched."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rados
import rbd

pytestmark = [pytest.mark.libvirt, pytest.mark.ceph, pytest.mark.slow]

POOL = """\
apiVersion: vcl/v1
kind: StoragePool
metadata: {{name: ceph}}
spec:
  type: rbd
  rbd: {{pool: vms, conf: {conf}}}
"""


class Images:
    """The test's own look into the pool."""

    def __init__(self, context: Any) -> None:
        self.context = context

    def watchers(self, image: str) -> list[str]:
        with rbd.Image(self.context, image, read_only=True) as opened:
            return [watcher["addr"] for watcher in opened.watchers_list()]

    def names(self, vm: str) -> list[str]:
        """The images of a VM; other tests may have left theirs."""
        return sorted(name for name in rbd.RBD().list(self.context) if name.startswith(f"{vm}."))

    @contextlib.contextmanager
    def locked_by_a_person(self, image: str) -> Iterator[None]:
        """`rbd lock add`, by somebody who does not have it open."""
        with rbd.Image(self.context, image) as opened:
            opened.lock_exclusive("maintenance")
            yield
            opened.unlock("maintenance")


@pytest.fixture
def images(private_ceph: Any) -> Iterator[Images]:
    with (
        rados.Rados(conffile=str(private_ceph.conf), name="client.admin") as cluster,
        cluster.open_ioctx("vms") as context,
    ):
        yield Images(context)
        for name in rbd.RBD().list(context):
            with contextlib.suppress(rbd.Error):
                rbd.RBD().remove(context, name)


@pytest.fixture
def ceph_node(node: Any, private_ceph: Any) -> Any:
    node.start()
    node.write("ceph.yaml", POOL.format(conf=private_ceph.conf))
    return node


def found(node: Any, name: str) -> list[int]:
    """The counters that the boots of a guest found on its disk."""
    lines = node.console(name).splitlines()
    return [int(line.rpartition(" ")[2]) for line in lines if "vcl-guest: disk found" in line]


def clients(node: Any, name: str) -> list[str]:
    """The network clients of its claim."""
    return [client for client in node.claim(name)["clients"] if not client.startswith("pid:")]


def test_a_guest_lives_on_its_rbd_disk(images: Images, ceph_node: Any, private_ceph: Any) -> None:
    node = ceph_node
    node.boot("web", disks=[{"name": "data", "pool": "ceph", "size": "1Mi"}])
    assert images.names("web") == ["web.data"]
    assert clients(node, "web") == images.watchers("web.data")
    assert any(disk.endswith(node_id(images, "web.data")) for disk in node.claim("web")["disks"])
    node.until_printed("web", "tick 3")
    told = node.vcl("describe", "vm", "web").stdout
    assert "exclusive-lock" in told
    doctor = node.vcl("doctor", "ceph-guests", "ceph-images")
    assert (doctor.returncode, doctor.stdout.splitlines()[-1]) == (0, "0 failed, 0 warnings, 3 fine"), doctor
    with node.libvirt() as connection:
        (secret,) = connection.listAllSecrets()
        assert "ephemeral='yes' private='yes'" in secret.XMLDesc()
        document = connection.lookupByName("web").XMLDesc()
    assert "<auth username='qemu'>" in document
    assert "key" not in Path(next((node.state / "ceph").glob("*.conf"))).read_text().replace("keyring", "")

    # A libvirtd that restarts has forgotten the key; it gets it again.
    node.libvirtd.restart()
    node.until(lambda: secrets(node) == 1, what="libvirt has the key again")

    # Stopped in order: nobody is left, and the counter goes on after the next start.
    assert node.vcl("stop", "web", "--wait").returncode == 0
    assert images.watchers("web.data") == []
    assert node.vcl("start", "web", "--wait").returncode == 0
    node.until(lambda: len(found(node, "web")) == 2, what="it boots again")
    assert found(node, "web")[0] == 0
    assert found(node, "web")[1] >= 3

    # A QEMU that is killed leaves a lock behind; its client is shut out before another one starts.
    (killed,) = clients(node, "web")
    (pid,) = node.qemus("web")
    node.until(lambda: node.console("web").count("tick") > 8, what="it goes on writing")
    os.kill(pid, signal.SIGKILL)
    node.until(lambda: len(found(node, "web")) == 3, what="it boots after the crash")
    assert found(node, "web")[2] > found(node, "web")[1]
    assert killed in private_ceph.command("osd", "blocklist", "ls")
    node.until_phase("web", "Running")
    assert clients(node, "web") == images.watchers("web.data")
    assert killed not in clients(node, "web")
    assert "CuttingOff" in node.events("web")
    assert node.vcl("stop", "web", "--force", "--wait").returncode == 0
    assert images.watchers("web.data") == []


def secrets(node: Any) -> int:
    with node.libvirt() as connection:
        return len(connection.listAllSecrets())


def node_id(images: Images, image: str) -> str:
    with rbd.Image(images.context, image, read_only=True) as opened:
        return f"/vms//{opened.id()}"


def test_an_image_that_somebody_holds_is_refused_by_name_and_address(
    images: Images, ceph_node: Any, private_ceph: Any
) -> None:
    node = ceph_node
    rbd.RBD().create(images.context, "shared", 1 << 20)
    disks = [{"name": "data", "pool": "ceph", "image": "shared"}]
    child = Path(__file__).parents[1] / "adapters/rbd/rbd_child.py"
    command = [sys.executable, str(child), str(private_ceph.conf), "qemu", "vms", "", "shared"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as backup:
        assert backup.stdout is not None
        address = backup.stdout.readline().strip()
        node.save("web", disks=disks)
        node.until(lambda: node.condition("web", "ImageInUse").get("status") == "True", what="it is refused")
        told = node.condition("web", "ImageInUse")["message"]
        assert address in told
        assert "not a client that vcl knows" in told
        assert node.qemus("web") == []
        backup.communicate()
    node.until_phase("web", "Running")
    assert node.condition("web", "ImageInUse").get("status") != "True"
    assert node.vcl("stop", "web", "--force", "--wait").returncode == 0
    with images.locked_by_a_person("shared"):
        assert node.vcl("start", "web").returncode == 0
        node.until(
            lambda: "maintenance" in node.condition("web", "ImageInUse").get("message", ""), what="refused"
        )
        assert node.qemus("web") == []
    node.until_phase("web", "Running")
    assert node.vcl("stop", "web", "--force", "--wait").returncode == 0


def test_uefi_variables_are_kept_in_the_pool(images: Images, ceph_node: Any) -> None:
    node = ceph_node
    # With 128 MiB the firmware itself runs out of memory.
    node.save("efi", firmware="uefi", memory="256Mi", disks=[{"name": "data", "pool": "ceph", "size": "1Mi"}])
    node.until_phase("efi", "Running")
    assert images.names("efi") == ["efi.data", "efi.nvram"]
    watching = {*images.watchers("efi.nvram"), *images.watchers("efi.data")}
    assert watching == set(clients(node, "efi")), "QEMU has a client for each image"
    assert any(disk.endswith(node_id(images, "efi.nvram")) for disk in node.claim("efi")["disks"])
    assert list(node.state.rglob("nvram/*")) == []
    node.until_printed("efi", "vcl-guest: booted efi")
    before = node_id(images, "efi.nvram")
    assert node.vcl("stop", "efi", "--force", "--wait").returncode == 0
    assert node.vcl("start", "efi", "--wait").returncode == 0
    node.until(lambda: node.console("efi").count("vcl-guest: booted efi") == 2, what="it boots again")
    assert node_id(images, "efi.nvram") == before
    assert node.vcl("stop", "efi", "--force", "--wait").returncode == 0


def test_a_lock_that_a_person_left_is_shown_and_broken_when_a_person_says_so(
    images: Images, ceph_node: Any, private_ceph: Any
) -> None:
    node = ceph_node
    rbd.RBD().create(images.context, "shared", 1 << 20)
    address = abandoned_lock(private_ceph, "shared")
    node.save("web", disks=[{"name": "data", "pool": "ceph", "image": "shared"}])
    node.until(lambda: node.condition("web", "ImageInUse").get("status") == "True", what="it is refused")
    shown = node.vcl("disk", "show", "web").stdout
    assert address in shown
    assert "only lock 'maintenance'" in shown
    assert "no terminal" in node.vcl("disk", "unlock", "web", "data").stderr
    assert address not in private_ceph.command("osd", "blocklist", "ls")
    assert node.qemus("web") == []

    done = node.vcl("disk", "unlock", "web", "data", "--yes")
    assert done.returncode == 0, done.stderr
    assert address in private_ceph.command("osd", "blocklist", "ls")
    node.until(lambda: "DiskUnlocked" in node.events("web"), what="the event is written")
    node.until_phase("web", "Running")
    refused = node.vcl("disk", "unlock", "web", "data", "--yes")
    assert refused.returncode == 1
    assert "vcl stop web" in refused.stderr
    assert clients(node, "web") == images.watchers("shared")
    assert node.vcl("stop", "web", "--force", "--wait").returncode == 0


def abandoned_lock(ceph: Any, image: str) -> str:
    """`rbd lock add` and gone; the address of who did it."""
    with (
        rados.Rados(conffile=str(ceph.conf), name="client.admin") as cluster,
        cluster.open_ioctx("vms") as context,
        rbd.Image(context, image) as opened,
    ):
        opened.lock_exclusive("maintenance")
        ((_, _, address),) = opened.list_lockers()["lockers"]
    return str(address)
