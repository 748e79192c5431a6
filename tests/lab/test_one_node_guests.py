"""How runs end and begin: poweroffs, a killed QEMU, a daemon that comes back; kinds of guests."""

from __future__ import annotations

import os
import signal
from typing import Any

import libvirt
import pytest

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

MARK = "urn:vcl:starting:1"


def test_a_guest_that_powers_itself_off_follows_its_run_strategy(node: Any) -> None:
    node.start()
    strategies = {"always": "Always", "rerun": "RerunOnFailure", "manual": "Manual"}
    for name, strategy in strategies.items():
        node.save(name, runStrategy=strategy)
    node.until_said("manual", "vcl start manual")
    assert node.qemus("manual") == []
    assert node.vcl("start", "manual").returncode == 0
    for name in strategies:
        node.until_printed(name, "vcl-guest: tick 1")
    (first,) = node.qemus("always")
    with node.libvirt() as connection:
        for name in strategies:
            try:
                connection.lookupByName(name).shutdown()
            except libvirt.libvirtError as error:
                # The guest was off before its agent could answer: libvirt then tries ACPI, in vain.
                if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
                    raise
    node.until_said("rerun", "powered itself off", "vcl start rerun")
    node.until_said("manual", "its last run has ended (Shutdown)", "vcl start manual")
    node.until(lambda: node.qemus("always") not in ([], [first]), what="always runs again")
    assert node.until_phase("always", "Running")["restarts"] == 1
    assert (node.phase("rerun"), node.qemus("rerun")) == ("Stopped", [])
    assert (node.phase("manual"), node.qemus("manual")) == ("Stopped", [])
    assert node.vcl("start", "rerun", "--wait").returncode == 0
    assert len(node.qemus("rerun")) == 1


def test_a_killed_qemu_is_replaced_with_growing_patience_on_the_same_disk(node: Any) -> None:
    node.start()
    pid = node.boot("web", disks=[{"name": "data", "size": "1Mi"}])
    node.until_printed("web", "tick 2")
    for restarts in (1, 2):
        os.kill(pid, signal.SIGKILL)
        node.until(lambda pid=pid: node.qemus("web") not in ([], [pid]), what="another QEMU runs")
        status = node.until_phase("web", "Running")
        assert status["restarts"] == restarts
        assert status["lastExit"] == "Crashed"
        assert status["failures"]["count"] == restarts
        (pid,) = node.qemus("web")
        assert [client.split(":")[1] for client in status["claim"]["clients"]] == [str(pid)]
    node.until_printed("web", "vcl-guest: disk found", times=2)
    assert "disk found 0" not in node.console("web").partition("vcl-guest: disk found")[2][1:]
    assert node.condition("web", "FailedOnNode")["reason"] == "QemuCrashed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_guests_outlive_the_daemon_and_are_adopted_as_they_are(node: Any, number: int) -> None:
    node.start()
    pid = node.boot("web")
    before = node.status("web")
    node.end(number)
    ticks = node.console("web").count("tick")
    node.until(lambda: node.console("web").count("tick") > ticks, what="the guest goes on")
    node.start()
    after = node.until_phase("web", "Running")
    assert node.qemus("web") == [pid]
    assert after["claim"] == before["claim"]
    assert (after["startTime"], after["restarts"]) == (before["startTime"], 0)
    assert node.console("web").count("vcl-guest: booted") == 1


def test_a_guest_that_ends_while_nobody_watches_is_started_again(node: Any) -> None:
    node.start()
    pid = node.boot("web")
    node.end(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    node.start()
    node.until(lambda: node.qemus("web") not in ([], [pid]), what="another QEMU runs")
    status = node.until_phase("web", "Running")
    assert status["claim"]["clients"][0].split(":")[1] == str(node.qemus("web")[0])


def test_the_users_own_domain_xml_boots(node: Any) -> None:
    node.start()
    xml = f"""
      <domain type='qemu'>
        <name>old-name</name>
        <memory unit='MiB'>64</memory>
        <vcpu>1</vcpu>
        <os>
          <type arch='x86_64' machine='q35'>hvm</type>
          <kernel>{node.guest.kernel}</kernel>
          <initrd>{node.guest.initrd}</initrd>
          <cmdline>console=ttyS0 quiet no_timer_check vcl.name=own</cmdline>
        </os>
        <features><acpi/></features>
        <devices>
          <serial type='pty'><target port='0'/></serial>
        </devices>
      </domain>"""
    spec = {"cpu": {"cores": 1}, "memory": "128Mi", "domainXML": xml}
    node.save("own", spec)
    node.until_phase("own", "Running")
    with node.libvirt() as connection:
        domain = connection.lookupByName("own")
        assert domain.maxMemory() == 128 << 10
        assert not domain.isPersistent()
    node.until(lambda: "vcl-guest: booted own" in node.console("own"), 60, "it boots")


def test_a_uefi_guest_keeps_its_variables_over_a_restart(node: Any) -> None:
    node.start()
    # With 128 MiB the firmware itself runs out of memory.
    node.save("efi", firmware="uefi", memory="256Mi")
    node.until_phase("efi", "Running")
    (pid,) = node.qemus("efi")
    (variables,) = node.state.rglob("nvram/efi.fd")
    inode = variables.stat().st_ino
    assert any("nvram" in disk for disk in node.claim("efi")["disks"])
    node.until_printed("efi", "vcl-guest: booted efi")
    marked = variables.read_bytes()
    assert node.vcl("restart", "efi", "--wait").returncode == 0
    node.until(lambda: node.qemus("efi") not in ([], [pid]), what="another QEMU runs")
    assert variables.stat().st_ino == inode
    assert variables.read_bytes()[:64] == marked[:64]
    assert str(inode) in " ".join(node.claim("efi")["disks"])


def test_a_guest_sees_its_cloud_init_seed(node: Any) -> None:
    node.start()
    node.boot("cloudy", cloudInit={"userData": "#cloud-config\nhostname: cloudy\n"})
    node.until_printed("cloudy", "labelled cidata")


def test_a_guest_that_ignores_the_power_button_is_ended_after_its_grace_period(node: Any) -> None:
    node.start()
    # Nothing answers in a guest that has no system to boot.
    node.save("deaf", {"cpu": {"cores": 1}, "memory": "64Mi", "terminationGracePeriodSeconds": 3})
    node.until_phase("deaf", "Running")
    assert node.vcl("stop", "deaf", "--wait").returncode == 0
    assert node.qemus("deaf") == []
    assert "Killing" in node.events("deaf")


def test_a_guest_whose_resume_was_cut_short_is_paused_only_by_those_who_pause_it(node: Any) -> None:
    """The mark of a guest that was never resumed goes when it is seen running, else a pause by hand would
    be taken for a start that did not end, and the guest be started afresh."""
    node.start()
    pid = node.boot("web")
    node.end(signal.SIGKILL)
    with node.libvirt() as connection:
        domain = connection.lookupByName("web")
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "<mark/>", "vclstarting", MARK, 0)
        assert MARK in domain.XMLDesc()
        node.start()
        node.until(lambda: MARK not in domain.XMLDesc(), what="the mark is removed")
        domain.suspend()
        node.until_said("web", "paused outside vcl", "virsh resume web")
        assert node.phase("web") == "Paused"
        domain.resume()
    node.until_phase("web", "Running")
    assert node.qemus("web") == [pid]
