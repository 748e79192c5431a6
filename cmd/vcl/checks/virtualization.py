"""Checks of what makes guests run: QEMU, KVM, libvirt, firmware, and what else may start or stop domains."""

from __future__ import annotations

import os
from collections.abc import Iterator

from vcl.checks.machine import Daemon, Finding, Level, Machine

LIBVIRT_URI = "qemu:///system"
FIRMWARE_FOLDERS = (
    "/usr/share/qemu/firmware",
    "/etc/qemu/firmware",
    "/usr/share/OVMF",
    "/usr/share/edk2",
    "/usr/share/edk2-ovmf",
    "/usr/share/AAVMF",
)
AUTOSTART = "/etc/libvirt/qemu/autostart"
GUESTS_SETTINGS = (
    "/etc/default/libvirt-guests",
    "/etc/sysconfig/libvirt-guests",
    "/etc/conf.d/libvirt-guests",
)


def qemu(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """The emulator and qemu-img are installed."""
    emulators = (f"qemu-system-{machine.architecture}", "/usr/libexec/qemu-kvm", "qemu-kvm", "kvm")
    for check, names, package in (
        ("qemu", emulators, "qemu-system-x86 (Debian), qemu-kvm (Fedora), app-emulation/qemu (Gentoo)"),
        ("qemu-img", ("qemu-img",), "qemu-utils (Debian), qemu-img (Fedora), qemu-img (Arch)"),
    ):
        found = machine.first(*names)
        if found is None:
            yield Finding(
                check=check,
                level=Level.FAIL,
                message=f"{names[0]} is not installed",
                cure=f"install {package}",
            )
            continue
        told = machine.run([found, "--version"])
        version = told.text.splitlines()[0] if told and told.text.strip() else found
        yield Finding(check=check, level=Level.OK, message=version)


def kvm(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """KVM is there, usable, and - where the daemon has proved it - works."""
    proved = str((vcld.node.get("status") or {}).get("virtualization") or "")
    slow = "guests run 10 to 50 times slower without it"
    if not machine.exists("/dev/kvm"):
        yield Finding(
            check="kvm",
            level=Level.WARN,
            message=f"/dev/kvm does not exist; {slow}",
            cure="switch on virtualisation in the firmware (or nesting in the outer host), 'modprobe kvm'",
        )
    elif not machine.access("/dev/kvm", os.R_OK | os.W_OK):
        yield Finding(
            check="kvm",
            level=Level.WARN,
            message=f"you may not use /dev/kvm; {slow}",
            cure="add the user that runs QEMU to the group kvm",
        )
    elif proved == "qemu":
        yield Finding(
            check="kvm",
            level=Level.WARN,
            message=f"/dev/kvm opens, but no guest has run with it: vcld uses emulation; {slow}",
            cure="if KVM should work here, see vcld's log; else pin virtualization: qemu and forget this",
        )
    else:
        state = "a guest has run with it" if proved == "kvm" else "whether it works shows when vcld tries it"
        yield Finding(check="kvm", level=Level.OK, message=f"/dev/kvm can be used; {state}")


def libvirt(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """libvirtd answers: the one that vcld uses, and before vcld runs, the system's."""
    status = vcld.node.get("status") or {}
    if (status.get("controllers") or {}).get("libvirt") == "Ready":
        message = f"libvirt answers vcld ({status.get('hypervisor') or 'QEMU'})"
        yield Finding(check="libvirt", level=Level.OK, message=message)
        return
    if machine.which("virsh") is None:
        yield Finding(
            check="libvirt",
            level=Level.WARN if vcld.version.get("libvirt") else Level.FAIL,
            message="virsh is not installed, so libvirt cannot be asked",
            cure="install libvirt-daemon-system and libvirt-clients (Debian), libvirt (elsewhere)",
        )
        return
    told = machine.run(["virsh", "-c", LIBVIRT_URI, "version", "--daemon"])
    if told is None or told.code != 0:
        why = told.text.strip().splitlines()[-1] if told and told.text.strip() else "it does not answer"
        yield Finding(
            check="libvirt",
            level=Level.FAIL,
            message=f"libvirt at {LIBVIRT_URI} cannot be used: {why}",
            cure="start libvirtd ('systemctl enable --now libvirtd'), and be root or in the group libvirt",
        )
        return
    lines = [line for line in told.text.splitlines() if "daemon" in line.lower()]
    yield Finding(check="libvirt", level=Level.OK, message=lines[0].strip() if lines else "libvirt answers")


def firmware(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """UEFI firmware for VMs that ask for it."""
    for folder in FIRMWARE_FOLDERS:
        if any(machine.path(folder).glob("**/*")):
            yield Finding(check="uefi", level=Level.OK, message=f"UEFI firmware in {folder}")
            return
    yield Finding(
        check="uefi",
        level=Level.WARN,
        message="there is no UEFI firmware; VMs with firmware: uefi will not start",
        cure="install ovmf (Debian), edk2-ovmf (Fedora, Arch), sys-firmware/edk2-bin (Gentoo)",
    )


def seed_maker(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """A program that makes the cloud-init disk."""
    found = machine.first("xorriso", "genisoimage", "mkisofs")
    if found:
        yield Finding(check="cloud-init", level=Level.OK, message=f"{found} makes cloud-init disks")
        return
    yield Finding(
        check="cloud-init",
        level=Level.WARN,
        message="neither xorriso nor genisoimage is installed; VMs with cloudInit will not start",
        cure="install xorriso",
    )


def autostart(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """Nothing but vcl starts vcl's VMs after a reboot: a second copy would start there."""
    names = sorted(entry.stem for entry in machine.path(AUTOSTART).glob("*.xml"))
    if names:
        yield Finding(
            check="autostart",
            level=Level.FAIL,
            message=f"libvirt starts these domains at boot, wherever vcl runs them: {', '.join(names)}",
            cure="for each that vcl is to run: 'virsh autostart --disable NAME'",
        )
    else:
        yield Finding(check="autostart", level=Level.OK, message="libvirt starts no domains by itself")


def libvirt_guests(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """libvirt-guests suspends or stops domains at shutdown, and resumes them at boot, behind vcl's back."""
    told = machine.run(["systemctl", "is-enabled", "libvirt-guests.service"])
    enabled = told is not None and told.code == 0 and told.text.strip() == "enabled"
    enabled = enabled or any(machine.path("/etc/runlevels").glob("*/libvirt-guests"))
    if not enabled:
        yield Finding(check="libvirt-guests", level=Level.OK, message="libvirt-guests is not enabled")
        return
    settings = "\n".join(machine.text(name) or "" for name in GUESTS_SETTINGS)
    said = {line.strip().replace('"', "").replace("'", "") for line in settings.splitlines()}
    if {"ON_BOOT=ignore", "ON_SHUTDOWN=shutdown"} <= said:
        message = "libvirt-guests shuts guests down with the host, and starts none"
        yield Finding(check="libvirt-guests", level=Level.OK, message=message)
        return
    starts = "ON_BOOT=start" in said
    yield Finding(
        check="libvirt-guests",
        level=Level.FAIL if starts else Level.WARN,
        message="libvirt-guests is enabled: it suspends or stops guests when the host shuts down"
        + (", and starts them at boot, though vcl may run them elsewhere by then" if starts else ""),
        cure="systemctl disable --now libvirt-guests (OpenRC: rc-update del libvirt-guests), or set "
        "ON_BOOT=ignore and ON_SHUTDOWN=shutdown for it",
    )
