"""A node's own health is measured from the kernel."""

from __future__ import annotations

from pathlib import Path

from reconciler.adapters.health import HealthProbe


async def test_the_room_in_the_state_directory_is_told(tmp_path: Path) -> None:
    probe = HealthProbe(tmp_path)
    await probe.step()
    assert probe.health.disk_free > 0
    assert probe.health.load >= 0


async def test_a_directory_that_is_gone_is_a_problem(tmp_path: Path) -> None:
    probe = HealthProbe(tmp_path / "gone")
    await probe.step()
    assert probe.health.problems[-1].endswith("gone cannot be looked at: No such file or directory")
