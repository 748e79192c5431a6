"""Prometheus' text format."""

from __future__ import annotations

from reconciler.adapters.metrics import process_samples, render
from reconciler.ports.metrics import MetricType, Sample


def test_samples_of_one_metric_come_together_with_its_help_and_type() -> None:
    text = render(
        [
            Sample(name="b_total", help="Bs.", value=2, type=MetricType.COUNTER, labels={"x": "2"}),
            Sample(name="a", help="As.", value=0.5),
            Sample(name="b_total", help="Bs.", value=1, type=MetricType.COUNTER, labels={"x": "1"}),
        ]
    )
    assert text == (
        "# HELP a As.\n# TYPE a gauge\na 0.5\n"
        '# HELP b_total Bs.\n# TYPE b_total counter\nb_total{x="1"} 1\nb_total{x="2"} 2\n'
    )


def test_what_a_user_wrote_cannot_break_the_format() -> None:
    text = render([Sample(name="a", help="A\nB", value=1, labels={"x": 'q"\\\n'})])
    assert text == '# HELP a A\\nB\n# TYPE a gauge\na{x="q\\"\\\\\\n"} 1\n'


def test_the_process_has_memory_and_cpu_time() -> None:
    found = {sample.name: sample.value for sample in process_samples()}
    assert found["process_resident_memory_bytes"] > 2**20
    assert found["process_cpu_seconds_total"] > 0
