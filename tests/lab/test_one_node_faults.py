"""What goes wrong around a VM: libvirtd dies or hangs, names and images are taken, missing or broken.

Each ends with a message that names the cause and the cure, with one copy at most, and heals by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

FOREIGN = (
    "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>"
    "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
)


def wait_for_qemu(node: Any, name: str) -> None:
    """Return at the moment at which its process appears: libvirtd is then in the middle of the start."""
    deadline = time.monotonic() + 20
    while not node.qemus(name):
        assert time.monotonic() < deadline


def test_a_libvirtd_that_is_killed_costs_the_guest_nothing(node: Any) -> None:
    node.start()
    pid = node.boot("web")
    node.libvirtd.kill()
    node.until_phase("web", "Unknown")
    node.libvirtd.start()
    node.until_phase("web", "Running")
    assert node.qemus("web") == [pid]
    assert node.console("web").count("vcl-guest: booted") == 1
    # The new connection hears of what happens.
    os.kill(pid, signal.SIGKILL)
    node.until(lambda: node.qemus("web") not in ([], [pid]), what="another QEMU runs")
    node.until_phase("web", "Running")


def test_a_libvirtd_that_freezes_in_a_start_ends_in_one_running_copy(node: Any) -> None:
    node.start()
    node.save("web")
    wait_for_qemu(node, "web")
    node.libvirtd.freeze()
    node.until(lambda: node.phase("web") in ("Unknown", "Starting"), what="nothing is known")
    time.sleep(6)  # longer than the connection lives
    assert len(node.qemus("web")) <= 1
    node.libvirtd.thaw()
    node.until_phase("web", "Running", 60)
    node.until_printed("web", "vcl-guest: booted web")
    (pid,) = node.qemus("web")
    assert node.claim("web")["clients"][0].split(":")[1] == str(pid)


@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_a_libvirtd_that_is_killed_in_a_start_ends_in_one_running_copy(node: Any, delay: float) -> None:
    node.start()
    node.save("web")
    wait_for_qemu(node, "web")
    time.sleep(delay)
    node.libvirtd.kill()
    assert len(node.qemus("web")) <= 1
    node.libvirtd.start()
    node.until_phase("web", "Running", 60)
    node.until_printed("web", "vcl-guest: booted web")
    (pid,) = node.qemus("web")
    assert node.claim("web")["clients"][0].split(":")[1] == str(pid)


def test_a_domain_that_vcl_did_not_make_keeps_its_name_as_long_as_it_lives(node: Any) -> None:
    node.start()
    with node.libvirt() as connection:
        foreign = connection.createXML(FOREIGN.format(name="web"))
        node.save("web")
        node.until_said("web", "a domain named 'web' that vcl did not make", "left alone")
        (pid,) = node.qemus("web")
        assert node.vcl("stop", "web").returncode == 0
        assert node.vcl("start", "web").returncode == 0
        assert node.vcl("delete", "vm", "web").returncode == 0
        node.until(lambda: node.get("vm", "web") == {}, what="the VM is forgotten")
        assert node.qemus("web") == [pid]
        node.save("web")
        node.until_said("web", "left alone")
        assert foreign.isActive()
        foreign.destroy()
    node.until_phase("web", "Running")
    assert node.qemus("web") != [pid]


def test_a_domain_that_somebody_only_defined_keeps_its_name_and_is_reported(node: Any) -> None:
    node.start()
    with node.libvirt() as connection:
        defined = connection.defineXML(FOREIGN.format(name="web"))
        node.save("web")
        node.until_said("web", "another domain called web", "virsh undefine web")
        assert node.qemus("web") == []
        assert connection.lookupByName("web").UUIDString() == defined.UUIDString()
        defined.undefine()
    node.until_phase("web", "Running")


def test_a_domain_that_vcl_did_not_make_is_listed_and_left_alone(node: Any) -> None:
    with node.libvirt() as connection:
        stranger = connection.createXML(FOREIGN.format(name="stranger"))
        node.start()
        node.until(lambda: "stranger" in str(node.get("node", "r1")), what="it is reported")
        assert stranger.isActive()
        assert node.get("vm", "stranger") == {}


def test_an_image_that_is_missing_is_never_made_again(node: Any) -> None:
    node.start()
    node.save("web", disks=[{"name": "data", "size": "1Mi"}])
    node.until_phase("web", "Running")
    assert node.vcl("stop", "web", "--force", "--wait").returncode == 0
    image = node.images / "web.data.qcow2"
    aside = image.rename(node.root / "aside.qcow2")
    assert node.vcl("start", "web").returncode == 0
    node.until_said("web", "web.data", "is missing now", "bring it back")
    assert node.condition("web", "FailedOnNode")["reason"] == "ImageMissing"
    time.sleep(1.5)  # past the first retry
    assert not image.exists()
    aside.rename(image)
    node.until_phase("web", "Running")


def test_broken_and_forbidden_images_are_named_and_left_as_they_are(node: Any) -> None:
    # Root without the right to ignore file modes, as in many containers.
    node.prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    node.start()
    garbage = node.images / "broken.data.qcow2"
    garbage.write_bytes(b"this is no image" * 64)
    node.save("broken", disks=[{"name": "data"}])
    said = node.until_said("broken", "broken.data.qcow2")
    assert node.condition("broken", "FailedOnNode")["reason"] == "ImageInvalid", said
    assert garbage.read_bytes() == b"this is no image" * 64
    forbidden = node.images / "forbidden.data.raw"
    forbidden.write_bytes(bytes(1 << 20))
    forbidden.chmod(0)
    node.save("forbidden", disks=[{"name": "data"}])
    node.until_said("forbidden", "forbidden.data.raw", "permission denied", "readable")
    forbidden.chmod(0o600)
    node.until_phase("forbidden", "Running")


def test_an_image_that_another_qemu_holds_is_refused_with_its_name(node: Any) -> None:
    node.start()
    image = node.images / "web.data.raw"
    image.write_bytes(bytes(1 << 20))
    holder = node.hold("qemu-io", "-f", "raw", image)
    node.until(lambda: holds(holder.pid, image), what="qemu-io has opened the image")
    node.save("web", disks=[{"name": "data"}])
    said = node.until_said("web", "web.data", "qemu-io", str(holder.pid))
    assert node.condition("web", "ImageInUse")["status"] == "True", said
    assert node.qemus("web") == []
    holder.kill()
    node.until_phase("web", "Running")
    assert node.condition("web", "ImageInUse").get("status") != "True"


def test_one_image_by_two_names_runs_in_one_qemu(node: Any) -> None:
    node.start()
    image = node.images / "shared.raw"
    image.write_bytes(bytes(1 << 20))
    (node.images / "link.raw").hardlink_to(image)
    node.save("web", disks=[{"name": "data", "image": "shared"}])
    node.until_phase("web", "Running")
    node.save("second", disks=[{"name": "data", "image": "link"}])
    node.until_said("second", "by VM web on r1")
    assert node.condition("second", "ImageInUse")["status"] == "True"
    assert node.qemus("second") == []
    assert node.vcl("stop", "web", "--force", "--wait").returncode == 0
    assert node.vcl("retry", "second").returncode == 0
    node.until_phase("second", "Running")
    assert node.qemus("web") == []


def holds(pid: int, image: Path) -> bool:
    links = (os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    return str(image) in links


def test_what_a_node_does_not_have_is_said_in_words(node: Any) -> None:
    node.start()
    node.save("nokernel", boot={"kernel": "/absent/vmlinuz"})
    node.save("nobridge", interfaces=[{"name": "net", "bridge": "vclabsent0"}])
    node.save("huge", memory="900Gi")
    node.save("good")
    node.until_said("nokernel", "/absent/vmlinuz", "spec.boot")
    assert node.condition("nokernel", "FailedOnNode")["reason"] == "BootFileMissing"
    node.until_said("nobridge", "has no bridge 'vclabsent0'")
    assert node.phase("nobridge") == "Unschedulable"
    node.until_said("huge", "r1: memory", "short")
    assert node.phase("huge") == "Unschedulable"
    node.until_phase("good", "Running")
    for name in ("nokernel", "nobridge", "huge"):
        # An attempt that fails is a QEMU that comes and goes: none stays.
        node.until(lambda name=name: node.qemus(name) == [], what=f"no process of {name}")
    # Correcting the manifest is enough; nobody waits for the end of a back-off.
    node.save("nokernel")
    node.until_phase("nokernel", "Running", 10)


def test_a_full_pool_makes_no_half_image_and_heals(node: Any, tmp_path: Path) -> None:
    pool = node.tmpfs(tmp_path / "pool", "8m")
    source = tmp_path / "source.raw"
    source.write_bytes(os.urandom(12 << 20))
    node.start()
    node.write(
        "pool.yaml",
        "apiVersion: vcl/v1\nkind: StoragePool\nmetadata: {name: small}\n"
        f"spec: {{type: directory, directory: {{path: {pool}}}}}\n",
    )
    node.until(lambda: node.get("pool", "small").get("status", {}).get("ready"), what="the pool is ready")
    node.save("web", disks=[{"name": "data", "pool": "small", "source": {"import": str(source)}}])
    node.until_said("web", str(pool), "free some space")
    assert node.condition("web", "FailedOnNode")["reason"] == "NoSpace"
    assert [path.name for path in pool.iterdir() if "web" in path.name] == []
    subprocess.run(["mount", "-o", "remount,size=32m", pool], check=True)
    assert node.vcl("retry", "web").returncode == 0
    node.until_phase("web", "Running", 10)
    assert len(node.qemus("web")) == 1
