"""Whether KVM works here, by proof: a boot sector that runs and says so.

/dev/kvm may exist, open and accept every request, and still never execute an instruction (nested
virtualisation without hardware behind it). So QEMU itself is started with 512 bytes of code that write a word
to the serial port. The port, unlike QEMU's debug-exit device, is in every distribution's build.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import select
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

log = logging.getLogger(__name__)

DEADLINE = 5.0
"""Seconds; under TCG, which is slower than any KVM, the word comes in less than one."""
WORD = b"vcl-proof"
_DISK_BYTES = 2 << 20
"""The BIOS does not boot from disks of less than a few cylinders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """`works`, and why one should believe it, as a sentence."""

    works: bool
    why: str


def boot_sector() -> bytes:
    """x86 real mode: each byte of WORD to port 0x3f8, then halt. 512 bytes with the boot signature."""
    code = bytes((0xBA, 0xF8, 0x03))  # mov dx, 0x3f8
    for letter in WORD:
        code += bytes((0xB0, letter, 0xEE))  # mov al, letter; out dx, al
    code += bytes((0xF4, 0xEB, 0xFD))  # hlt; jmp to hlt
    return code.ljust(510, b"\0") + b"\x55\xaa"


def kvm(emulator: str, cache: Path, *, device: Path = Path("/dev/kvm")) -> Proof:
    """The cached proof, or a new one: blocks for at most `DEADLINE` seconds and a bit.

    It is kept until the next boot, kernel or QEMU. A machine that is not x86 is believed when the device can
    be opened: there is no boot sector for it.
    """
    if not os.access(device, os.R_OK | os.W_OK):
        return Proof(works=False, why=f"{device} is missing or cannot be opened")
    if platform.machine() != "x86_64":
        return Proof(works=True, why=f"{device} can be opened; it is not tried out on {platform.machine()}")
    key = _key(emulator)
    if (cached := _cached(cache, key)) is not None:
        return cached
    proof = attempt(emulator, "kvm")
    _store(cache, key, proof)
    log.info("libvirt: virtualization %s: %s", "kvm" if proof.works else "qemu", proof.why)
    return proof


def attempt(emulator: str, accelerator: str, *, deadline: float = DEADLINE) -> Proof:
    """Boot the sector with an accelerator ('kvm' or 'tcg'). The QEMU is gone when this returns."""
    with tempfile.TemporaryDirectory(prefix="vcl-proof-") as scratch:
        disk = Path(scratch, "disk")
        disk.write_bytes(boot_sector())
        os.truncate(disk, _DISK_BYTES)
        command = [emulator, "-accel", accelerator, "-machine", "q35", "-m", "32", "-no-user-config"]
        command += [
            "-nodefaults",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-drive",
            f"file={disk},format=raw",
        ]
        try:
            qemu = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            return Proof(works=False, why=f"{emulator} cannot be run: {error.strerror}")
        try:
            return _watch(qemu, accelerator, deadline)
        finally:
            _end(qemu)


def _end(qemu: subprocess.Popen[bytes]) -> None:
    qemu.kill()
    for pipe in (qemu.stdout, qemu.stderr):
        if pipe is not None:
            pipe.close()
    try:
        qemu.wait(DEADLINE)
    except subprocess.TimeoutExpired:
        log.warning("libvirt: the kernel does not let go of test guest %d; KVM is broken here", qemu.pid)


def _watch(qemu: subprocess.Popen[bytes], accelerator: str, deadline: float) -> Proof:
    assert qemu.stdout is not None
    assert qemu.stderr is not None
    said = b""
    end = time.monotonic() + deadline
    while (left := end - time.monotonic()) > 0:
        if not select.select([qemu.stdout], [], [], left)[0]:
            break
        data = os.read(qemu.stdout.fileno(), 4096)
        if not data:
            words = qemu.stderr.read().decode(errors="replace").strip().splitlines()
            return Proof(works=False, why=f"QEMU refused {accelerator}: {words[-1] if words else 'it ended'}")
        said += data
        if WORD in said:
            return Proof(works=True, why=f"a test guest ran with {accelerator}")
    return Proof(works=False, why=f"a test guest with {accelerator} did nothing for {deadline:g} s")


def _key(emulator: str) -> str:
    """Kernel, boot and QEMU: what may make the answer another one."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        done = subprocess.run(
            [emulator, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
        version = (done.stdout.splitlines() or [""])[0]
    except (OSError, subprocess.TimeoutExpired):
        version = "unknown"
    return f"{platform.release()} {boot} {emulator} {version}"


def _cached(cache: Path, key: str) -> Proof | None:
    try:
        stored = json.loads(cache.read_text())
        if stored["key"] == key:
            return Proof(works=bool(stored["works"]), why=str(stored["why"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _store(cache: Path, key: str, proof: Proof) -> None:
    temporary = cache.with_name(f".{cache.name}.tmp")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"key": key} | asdict(proof)) + "\n")
        temporary.replace(cache)
    except OSError as error:
        log.warning("libvirt: the proof of KVM is not kept: %s: %s", error.filename, error.strerror)
