"""The main job on real libvirt and QEMU: a YAML file in a directory becomes a booted guest, and stays one."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

FIRST = """\
# My first VM. Comments stay.
apiVersion: vcl/v1
kind: VirtualMachine
metadata:
  name: first
spec:
  cpu: {{cores: 1}}
  memory: 128Mi
  disks:
    - name: data
      size: 1Mi
  interfaces:
    - name: net
  boot:
    kernel: {kernel}
    initrd: {initrd}
    cmdline: console=ttyS0 quiet no_timer_check vcl.name=first
"""


def test_a_yaml_file_becomes_a_booted_guest_that_outlives_restarts(node: Any) -> None:
    node.start()
    path = node.write("first.yaml", FIRST.format(kernel=node.guest.kernel, initrd=node.guest.initrd))
    node.until_printed("first", "vcl-guest: booted first")
    status = node.until_phase("first", "Running")
    assert status["ready"]
    assert status["claim"]["phase"] == "Running"
    (pid,) = node.qemus("first")
    assert [client.split(":")[1] for client in status["claim"]["clients"]] == [str(pid)]
    node.until_printed("first", "vcl-guest: address ")
    address = re.findall(r"vcl-guest: address ([\d.]+)/", node.console("first"))[0]
    node.until(lambda: address in node.vcl("get", "vms", "-o", "wide").stdout, what="the address is shown")
    assert node.condition("first", "AgentConnected")["status"] == "True"
    assert (node.images / "first.data.qcow2").exists()

    # A restart stops the guest through its agent and starts it again, on the same disk.
    node.until_printed("first", "vcl-guest: tick 3")
    assert node.vcl("restart", "first", "--wait").returncode == 0
    node.until_printed("first", "vcl-guest: booted first", times=2)
    node.until_printed("first", "vcl-guest: disk found", times=2)
    before, after = node.console("first").split("vcl-guest: bye")
    last = int(re.findall(r"tick (\d+)", before)[-1])
    assert int(re.findall(r"disk found (\d+)", after)[0]) >= last >= 3
    assert node.qemus("first") != [pid]

    # Deleting the file ends the guest; the image stays.
    path.unlink()
    node.until(lambda: node.get("vm", "first") == {}, what="first is gone")
    assert node.qemus("first") == []
    assert (node.images / "first.data.qcow2").exists()


def test_a_stop_is_graceful_and_a_forced_one_is_not(node: Any) -> None:
    node.start()
    node.boot("web")
    assert node.vcl("stop", "web", "--wait").returncode == 0
    assert node.qemus("web") == []
    assert "vcl-guest: bye" in node.console("web")
    assert node.claim("web") == {}
    assert node.phase("web") == "Stopped"
    assert node.vcl("start", "web", "--wait").returncode == 0
    node.until_printed("web", "vcl-guest: booted", times=2)
    assert node.vcl("stop", "web", "--force", "--wait").returncode == 0
    assert node.qemus("web") == []
    assert node.console("web").count("vcl-guest: bye") == 1
