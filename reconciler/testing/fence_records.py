"""The record that tests of a fencing begin with."""

from __future__ import annotations

from reconciler.resources.fencing import FenceCause, FenceRecord

SILENT_R3 = FenceRecord(
    id="id-1",
    node="r3",
    incident="r3-12",
    cause=FenceCause.SILENT,
    reason="silent",
    epoch=1,
    session=12,
    boot_id="boot-a",
    machine_id="m",
    began="2026-01-31T12:00:04Z",
)
"""r3 fell silent in its session 12; nothing is done yet."""
