"""Nodes and VMs as CSV, for simulations: one line each, columns by their names in the first line.

Columns of nodes: name, cpu, memory; optional labels, reserved_cpu, reserved_memory, overcommit_cpu (4),
overcommit_memory (1). Of VMs: name, cpu, memory; optional labels, node_selector, priority, count (that many
of it, called NAME-1 and so on). `cpu` and `memory` are quantities as in manifests; cpu_milli and memory_mib
are plain numbers of these units. Labels are `key=value` with semicolons between. Other columns are ignored.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import TypeVar

from reconciler.planning.node_capacity import node_view
from reconciler.planning.placement import NodeView, VmDemand
from reconciler.resources.errors import InvalidInput
from reconciler.resources.infrastructure import NodeSpec, Overcommit, Resources
from reconciler.resources.quantity import parse_bytes, parse_cpu
from reconciler.resources.status import NodeStatus

T = TypeVar("T")
NAMES = ("name", "sn")
"""What the column of names may be called."""


def nodes_of_csv(file: str, text: str) -> tuple[NodeView, ...]:
    """Every line as a node. InvalidInput names the line and the column of what is wrong."""
    return tuple(_node(row) for row in _rows(file, text))


def vms_of_csv(file: str, text: str) -> tuple[VmDemand, ...]:
    """Every line as a VM, or as many as its `count` says. A fraction of a CPU counts as a whole one."""
    return tuple(vm for row in _rows(file, text) for vm in _vms(row))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    file: str
    line: int
    cells: Mapping[str, str]

    def read(self, column: str, parse: Callable[[str], T], default: T | None = None) -> T:
        """A cell as a value; one that is empty or missing needs a default."""
        text = self.cells.get(column, "")
        if not text and default is not None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise self.wrong(column, f"{error}" if text else "is missing") from error

    def name(self) -> str:
        found = next((self.cells[column] for column in NAMES if self.cells.get(column)), "")
        if not found:
            raise self.wrong("name", "is missing")
        return found

    def cpu(self) -> float:
        if self.cells.get("cpu_milli"):
            return self.read("cpu_milli", float) / 1000
        return self.read("cpu", parse_cpu)

    def memory(self) -> int:
        if self.cells.get("memory_mib"):
            return int(self.read("memory_mib", float) * 2**20)
        return self.read("memory", parse_bytes)

    def labels(self, column: str) -> dict[str, str]:
        pairs = [pair.partition("=") for pair in self.cells.get(column, "").split(";") if pair.strip()]
        if any(not equals for _, equals, _ in pairs):
            raise self.wrong(column, "must be key=value, with semicolons between several")
        return {key.strip(): value.strip() for key, _, value in pairs}

    def wrong(self, column: str, why: str) -> InvalidInput:
        return InvalidInput(f"{self.file}:{self.line}: {column}: {why}")


def _rows(file: str, text: str) -> Iterator[_Row]:
    reader = csv.reader(text.splitlines())
    try:
        header = [cell.strip() for cell in next(reader, [])]
        if not {*NAMES} & {*header}:
            raise InvalidInput(
                f"{file}:1: the first line must name the columns, with 'name' among them",
                cure="write for example 'name,cpu,memory'",
            )
        for cells in reader:
            if any(cell.strip() for cell in cells):
                named = zip(header, (cell.strip() for cell in cells), strict=False)
                yield _Row(file=file, line=reader.line_num, cells=dict(named))
    except csv.Error as error:
        raise InvalidInput(f"{file}:{reader.line_num}: is not CSV: {error}") from error


def _node(row: _Row) -> NodeView:
    spec = NodeSpec(
        capacity=Resources(cpu=row.cpu(), memory=row.memory()),
        reserved=Resources(
            cpu=row.read("reserved_cpu", parse_cpu, 0.0), memory=row.read("reserved_memory", parse_bytes, 0)
        ),
        overcommit=Overcommit(
            cpu=row.read("overcommit_cpu", float, 4.0), memory=row.read("overcommit_memory", float, 1.0)
        ),
    )
    status = NodeStatus(uid="", ready=True)
    return node_view(row.name(), spec, status, row.labels("labels"), absent="")


def _vms(row: _Row) -> Iterator[VmDemand]:
    count = row.read("count", int, 1)
    for number in range(1, count + 1):
        yield VmDemand(
            name=row.name() if count == 1 else f"{row.name()}-{number}",
            cpu=ceil(row.cpu()),
            memory=row.memory(),
            priority=row.read("priority", int, 0),
            labels=row.labels("labels"),
            node_selector=row.labels("node_selector"),
        )
