"""KVM is chosen by proof: the check can succeed, and it can fail."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from reconciler.adapters.libvirt import prove

QEMU = "/usr/bin/qemu-system-x86_64"


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "kvm"
    path.write_text("")
    return path


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_the_test_guest_runs_where_guests_run() -> None:
    assert prove.attempt(QEMU, "tcg", deadline=60.0) == prove.Proof(
        works=True, why="a test guest ran with tcg"
    )


def test_a_guest_that_hangs_proves_the_contrary_and_is_gone(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    qemu = script(tmp_path / "qemu", f"echo $$ > {pid}; exec sleep 60")
    started = time.monotonic()
    proof = prove.attempt(qemu, "kvm", deadline=1.0)
    assert not proof.works
    assert "did nothing for 1 s" in proof.why
    assert time.monotonic() - started < 10
    assert not Path("/proc", pid.read_text().strip()).exists()


def test_a_refusal_is_passed_on(tmp_path: Path) -> None:
    qemu = script(tmp_path / "qemu", "echo 'failed to initialize kvm: Permission denied' >&2; exit 1")
    assert prove.attempt(qemu, "kvm").why.endswith("failed to initialize kvm: Permission denied")
    assert "cannot be run" in prove.attempt(str(tmp_path / "absent"), "kvm").why


def test_a_proof_is_kept_for_the_same_qemu(tmp_path: Path, device: Path) -> None:
    runs, cache = tmp_path / "runs", tmp_path / "cache/kvm-proof.json"
    run = f"echo x >> {runs}; printf vcl-proof"
    text = f"case $1 in --version) echo QEMU $(cat {tmp_path}/v);; *) {run};; esac"
    qemu = script(tmp_path / "qemu", text)
    (tmp_path / "v").write_text("1")
    for _ in range(2):
        assert prove.kvm(qemu, cache, device=device).works
    assert runs.read_text() == "x\n"
    (tmp_path / "v").write_text("2")
    assert prove.kvm(qemu, cache, device=device).works
    assert runs.read_text() == "x\nx\n", "another QEMU is another question"
    cache.write_text("{broken")
    assert prove.kvm(qemu, cache, device=device).works


def test_without_the_device_nothing_is_started(tmp_path: Path) -> None:
    proof = prove.kvm(str(tmp_path / "absent"), tmp_path / "cache", device=tmp_path / "absent")
    assert not proof.works
    assert "missing" in proof.why


def test_the_boot_sector_is_one() -> None:
    sector = prove.boot_sector()
    assert len(sector) == 512
    assert sector.endswith(b"\x55\xaa")
