"""Metrics as values: the loops say what there is to measure, an adapter prints it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable


class MetricType(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value of one metric. `name` in snake_case with its unit, as Prometheus wants it; a counter's ends
    in `_total`. Samples of one name have the same `help` and `type`."""

    name: str
    help: str
    value: float
    type: MetricType = MetricType.GAUGE
    labels: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Measured(Protocol):
    """Something that counts what it does."""

    def samples(self) -> Iterable[Sample]:
        """Its values now; quick, and never blocks."""
        ...


MetricsSource = Callable[[], Iterable[Sample]]
"""Asked at every scrape; must be quick and never block."""
