"""Every refusal is counted; of many alike one line in ten seconds says so, and how many were withheld."""

from __future__ import annotations

import logging

import pytest

from reconciler.adapters.mesh.counts import Counts
from reconciler.ports.metrics import MetricType
from reconciler.sim.clock import VirtualClock


def test_one_line_in_ten_seconds_for_each_reason(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    counts = Counts(clock.monotonic)
    with caplog.at_level(logging.INFO):
        for number in range(5):
            counts.refuse("refused_frames", "replayed", f"frame {number}")
        counts.refuse("refused_frames", "tampered", "another reason")
        clock.advance(10.0)
        counts.refuse("refused_frames", "replayed", "later")
    assert [record.getMessage() for record in caplog.records] == [
        "mesh: refused: frame 0",
        "mesh: refused: another reason",
        "mesh: refused: later (4 more since the last line)",
    ]
    assert counts.mapping() == {"refused_frames.replayed": 6, "refused_frames.tampered": 1}


def test_counts_are_samples_with_a_label() -> None:
    counts = Counts(VirtualClock().monotonic)
    counts.add("messages", "in", 3)
    counts.add("refused_frames", "replayed")
    samples = {sample.name: sample for sample in counts.samples()}
    assert samples["vcl_mesh_messages_total"].labels == {"direction": "in"}
    assert samples["vcl_mesh_messages_total"].value == 3
    assert samples["vcl_mesh_refused_frames_total"].labels == {"reason": "replayed"}
    assert all(sample.type is MetricType.COUNTER and sample.help for sample in samples.values())
