"""The lab of whole machines: each is what it pretends to be, and each fault does what it says, no less and no
more."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

cluster = sys.modules["vcl_lab_cluster"]
ECHO = """
import socket, threading
def serve(one):
    while data := one.recv(65536):
        one.sendall(data)
with socket.create_server(("", 7001)) as server:
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""
ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], 7001), timeout=0.7) as one:
        one.sendall(b"hello")
        print("answers" if one.recv(9) == b"hello" else "closed")
except ConnectionRefusedError:
    print("refused")
except OSError:
    print("silent")
"""
HOLD = """
import socket, sys
with socket.create_connection((sys.argv[1], 7001), timeout=1) as one:
    one.sendall(b"hello")
    one.recv(9)
    print("connected", flush=True)
    sys.stdin.read(1)
    try:
        print("closed" if one.recv(9) == b"" else "answers")
    except TimeoutError:
        print("silent")
    except OSError as error:
        print(error)
"""
SEND = """
import hashlib, os, socket, sys, threading
data = os.urandom(1_000_000)
with socket.create_connection((sys.argv[1], 7001), timeout=20) as one:
    threading.Thread(target=one.sendall, args=(data,)).start()
    back = b""
    while len(back) < len(data):
        back += one.recv(1 << 20)
print("same" if back == data else "broken")
"""
HEAR = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.bind(("", 7002))
    while True:
        print(one.recv(99).decode())
"""
TELL = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.sendto(f"from {socket.gethostname()}".encode(), (sys.argv[1], 7002))
"""
DOMAIN = """\
<domain type='qemu'><name>tick</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
<cmdline>console=ttyS0 quiet no_timer_check vcl.name=tick</cmdline></os><features><acpi/></features>
<devices><serial type='file'><source path='/var/lib/libvirt/tick.log'/></serial></devices></domain>
"""


@pytest.fixture
def lab(bare_lab: Any) -> Iterator[Any]:
    """All is well, and each machine answers on port 7001."""
    bare_lab.fault.heal()
    for node in bare_lab.nodes.values():
        node.host.spawn("echo", sys.executable, "-c", ECHO)
        for name in (*bare_lab.nodes, "ceph"):
            assert ping(bare_lab, node.name, name)
        cluster.until(lambda name=node.name: ask(bare_lab, name, name) == "answers", 10, "the echo runs")
    return bare_lab


def ping(lab: Any, name: str, peer: str, seconds: int = 1) -> bool:
    return run(lab, name, "busybox", "ping", "-c", "1", "-W", str(seconds), peer).returncode == 0


def round_trip(lab: Any, name: str, peer: str) -> float:
    """Milliseconds of the second ping: the first has to find the address."""
    said = lab.host(name).run("busybox", "ping", "-c", "2", "-W", "3", peer).stdout
    return float(re.findall(r"time=([\d.]+) ms", said)[-1])


def ask(lab: Any, name: str, peer: str) -> str:
    return str(run(lab, name, sys.executable, "-c", ASK, peer).stdout.strip())


def run(lab: Any, name: str, *command: str) -> Any:
    return lab.host(name).run(*command, check=False)


def reads_ceph(lab: Any, name: str, seconds: int = 3) -> bool:
    limits = ("--rados-osd-op-timeout", "2", "--rados-mon-op-timeout", "2", "--client-mount-timeout", "2")
    words = (
        "timeout",
        str(seconds),
        "rados",
        "-n",
        "client.vcl",
        *limits,
        "-p",
        "vms",
        "put",
        "x",
        "/etc/hosts",
    )
    return bool(run(lab, name, *words).returncode == 0)


@contextlib.contextmanager
def connection(lab: Any, name: str, peer: str) -> Iterator[Any]:
    """An open connection; `communicate("\\n")` tells what became of it."""
    command = lab.host(name).command(sys.executable, "-c", HOLD, peer)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "connected\n"
        yield held
        held.kill()


def test_each_machine_is_one_of_its_own(lab: Any) -> None:
    names = list(lab.nodes)
    assert [node.host.run("hostname").stdout.strip() for node in lab.nodes.values()] == names
    assert [node.virsh("hostname").strip() for node in lab.nodes.values()] == names
    remote = lab.nodes["r1"].virsh("-c", "qemu+tcp://r3/system", "hostname")
    assert remote.strip() == "r3"
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        found = {node.host.run("cat", path).stdout for node in lab.nodes.values()}
        assert len(found - {Path(path).read_text()}) == 3
    assert lab.nodes["r1"].host.run("pgrep", "-c", "libvirtd").stdout.strip() == "1"
    lab.nodes["r1"].host.run("touch", "/etc/only-here")
    assert not Path("/etc/only-here").exists()
    assert "10.77.0." not in subprocess.run(["ip", "address"], capture_output=True, text=True).stdout


def test_each_machine_reaches_ceph_with_the_least_rights(lab: Any) -> None:
    for node in lab.nodes.values():
        for user in ("vcl", "qemu"):
            assert node.host.run("rados", "-n", f"client.{user}", "-p", "vms", "ls").returncode == 0
        assert node.host.run("rados", "-n", "client.qemu", "-p", "vcl", "ls", check=False).returncode == 1
        node.host.run("ceph", "-n", "client.vcl", "osd", "blocklist", "ls")
        assert node.host.run("ceph", "fsid", check=False).returncode == 1  # as client.admin
    assert "mgr: x(active" in lab.storage.command("status")


def test_a_guest_counts_and_moves_live_to_another_machine(lab: Any, guest_image: Any) -> None:
    for node in lab.nodes.values():
        (node.host.files / "etc/libvirt/tick.xml").write_text(
            DOMAIN.format(kernel=guest_image.kernel, initrd=guest_image.initrd)
        )
    r1, r2 = lab.nodes["r1"], lab.nodes["r2"]
    r1.virsh("create", "/etc/libvirt/tick.xml")
    until_ticks(r1, 2)
    r1.virsh("migrate", "--live", "--p2p", "tick", "qemu+tcp://r2/system", f"tcp://{r2.host.address.ip}")
    assert (r1.qemus("tick"), len(r2.qemus("tick"))) == ([], 1)
    assert until_ticks(r2, 1)[0] > 2
    lab.fault.power_cut("r2")
    assert r2.qemus("tick") == []


def until_ticks(node: Any, count: int) -> list[int]:
    """The numbers on the guest's console, when there are so many."""
    console = node.host.files / "var/lib/libvirt/tick.log"

    def ticks() -> list[int]:
        text = console.read_text(errors="replace") if console.exists() else ""
        return [int(number) for number in re.findall(r"vcl-guest: tick (\d+)", text)]

    cluster.until(lambda: len(ticks()) >= count, 60, "the guest ticks")
    return ticks()


def test_a_power_cut_is_silent_and_a_boot_begins_anew(lab: Any) -> None:
    host = lab.host("r1")
    identity, boot = host.run("cat", "/etc/machine-id").stdout, host.boot_id()
    (host.files / "var/lib/vcl/kept").write_text("kept")
    host.run("touch", "/run/forgotten")
    with connection(lab, "r2", "r1") as held:
        lab.fault.power_cut("r1")
        assert held.communicate("\n", timeout=10)[0] == "silent\n"
    assert not host.on()
    assert not ping(lab, "r2", "r1")
    assert ask(lab, "r2", "r1") == "silent"
    assert ping(lab, "r2", "r3")

    lab.fault.power_on("r1")
    assert ping(lab, "r2", "r1")
    assert host.boot_id() != boot
    assert host.run("cat", "/etc/machine-id").stdout == identity
    assert host.run("cat", "/var/lib/vcl/kept").stdout == "kept"
    assert host.run("ls", "/run/forgotten", check=False).returncode != 0
    assert lab.nodes["r1"].virsh("hostname").strip() == "r1"


def test_a_killed_daemon_refuses_and_its_host_lives(lab: Any) -> None:
    lab.fault.kill("r1", "echo")
    assert ask(lab, "r2", "r1") == "refused"
    assert ping(lab, "r2", "r1")
    lab.fault.kill("r1", "libvirtd")
    assert lab.host("r1").daemon("libvirtd") is None
    lab.fault.start("r1", "libvirtd")
    assert lab.nodes["r1"].virsh("hostname").strip() == "r1"


def test_a_frozen_machine_pings_and_says_nothing(lab: Any) -> None:
    lab.fault.freeze("r1")
    assert ping(lab, "r2", "r1")
    assert ask(lab, "r2", "r1") == "silent"
    lab.fault.thaw("r1")
    assert ask(lab, "r2", "r1") == "answers"
    lab.fault.freeze("r1", "echo")
    assert ask(lab, "r2", "r1") == "silent"
    assert lab.nodes["r1"].virsh("hostname").strip() == "r1"
    lab.fault.thaw("r1", "echo")
    assert ask(lab, "r2", "r1") == "answers"


def test_a_cut_link_is_silent_to_those_it_names(lab: Any) -> None:
    with connection(lab, "r1", "r2") as held:
        lab.fault.cut("r1", "r2")
        assert held.communicate("\n", timeout=10)[0] == "silent\n"
    assert ask(lab, "r2", "r1") == "silent"
    assert ask(lab, "r1", "r3") == ask(lab, "r2", "r3") == "answers"
    lab.fault.cut("r3")
    assert not any(ping(lab, "r3", peer) for peer in ("r1", "r2", "ceph"))
    lab.fault.mend("r3")
    assert ask(lab, "r3", "r2") == "answers"
    assert ask(lab, "r1", "r2") == "silent"
    lab.fault.mend("r1", "r2")
    assert ask(lab, "r1", "r2") == "answers"


def test_a_cut_can_be_of_one_way_or_of_one_service(lab: Any) -> None:
    for name in ("r1", "r2"):
        lab.host(name).spawn("hear", sys.executable, "-u", "-c", HEAR)
    lab.fault.cut("r1", "r2", way=cluster.Way.OUT)
    for name, peer in (("r1", "r2"), ("r2", "r1")):
        run(lab, name, sys.executable, "-c", TELL, peer)
    cluster.until(lambda: "from r2" in lab.host("r1").log("hear").read_text(), 10, "r1 hears r2")
    assert "from r1" not in lab.host("r2").log("hear").read_text()
    lab.fault.mend("r1")
    lab.fault.cut("r1", "r2", port=7001)
    assert ask(lab, "r1", "r2") == ask(lab, "r2", "r1") == "silent"
    assert ping(lab, "r1", "r2")


def test_a_node_can_lose_ceph_only_or_the_other_nodes_only(lab: Any) -> None:
    lab.fault.cut_from_ceph("r1")
    assert ask(lab, "r1", "r2") == ask(lab, "r3", "r1") == "answers"
    assert not reads_ceph(lab, "r1")
    assert reads_ceph(lab, "r2")
    lab.fault.mend("r1")
    lab.fault.cut_from_mesh("r1")
    assert ask(lab, "r1", "r2") == ask(lab, "r3", "r1") == "silent"
    assert ask(lab, "r2", "r3") == "answers"
    assert reads_ceph(lab, "r1")
    lab.fault.mend("r1")
    lab.fault.split(["r1"], ["r2", "r3", "ceph"])
    assert (ask(lab, "r1", "r2"), ask(lab, "r2", "r3")) == ("silent", "answers")
    assert not ping(lab, "r1", "ceph")


def test_a_slow_link_is_slow_and_breaks_nothing(lab: Any) -> None:
    lab.fault.slow("r1", delay=0.1)
    assert round_trip(lab, "r2", "r1") >= 200
    assert round_trip(lab, "r2", "r3") < 100
    assert run(lab, "r2", sys.executable, "-c", SEND, "r1").stdout == "same\n"
    lab.fault.slow("r1", "r2", delay=0.1, way=cluster.Way.IN)
    assert 100 <= round_trip(lab, "r1", "r2") < 200
    assert round_trip(lab, "r1", "r3") < 100
    lab.fault.slow("r1", "r2", loss=1.0)
    assert not ping(lab, "r1", "r2")
    assert ping(lab, "r1", "r3")
    lab.fault.cut("r1", "r3")
    assert not ping(lab, "r1", "r3")
    lab.fault.heal()
    assert round_trip(lab, "r1", "r2") < 100
    assert ping(lab, "r1", "r3")


def test_osds_and_the_monitor_stall_and_die_and_come_back(lab: Any) -> None:
    assert reads_ceph(lab, "r1")
    lab.fault.freeze("ceph", "osd.0")
    lab.fault.freeze("ceph", "osd.1")
    assert not reads_ceph(lab, "r1")
    lab.fault.thaw("ceph", "osd.0")
    lab.fault.thaw("ceph", "osd.1")
    assert reads_ceph(lab, "r1", 30)
    lab.fault.kill("ceph", "mon.a")
    assert not reads_ceph(lab, "r1")
    lab.fault.start("ceph", "mon.a")
    assert reads_ceph(lab, "r1", 30)
    lab.fault.kill("ceph", "osd.2")
    lab.fault.heal()
    assert "3 up" in lab.storage.command("osd", "stat")


def test_a_restart_of_everything_keeps_what_was_written(lab: Any) -> None:
    text = lab.host("r1").files / "var/lib/vcl/text"
    text.write_text("kept")
    lab.host("r1").run("rados", "-n", "client.vcl", "-p", "vms", "put", "kept", "/var/lib/vcl/text")
    boots = {node.host.boot_id() for node in lab.nodes.values()}
    lab.fault.restart_all()
    assert boots.isdisjoint(node.host.boot_id() for node in lab.nodes.values())
    lab.host("r2").run("rados", "-n", "client.vcl", "-p", "vms", "get", "kept", "/var/lib/vcl/back")
    assert (lab.host("r2").files / "var/lib/vcl/back").read_text() == "kept"
    assert [node.virsh("hostname").strip() for node in lab.nodes.values()] == list(lab.nodes)


def test_a_name_that_is_none_is_refused_with_those_that_are(lab: Any) -> None:
    with pytest.raises(cluster.LabFailed, match="no machine 'r9'; there are ceph, r1, r2, r3"):
        lab.fault.cut("r1", "r9")
    with pytest.raises(cluster.LabFailed, match="no web runs on r1"):
        lab.fault.freeze("r1", "web")
    with pytest.raises(cluster.LabFailed, match="freeze ceph instead"):
        lab.fault.power_cut("ceph")
    lab.fault.power_cut("r1")
    with pytest.raises(cluster.LabFailed, match="r1 is off"):
        lab.host("r1").run("true")
