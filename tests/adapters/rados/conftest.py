"""Stores on the run's private Ceph cluster, an object for each test, and programs that use them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rados

from reconciler.adapters.rados import Place

CHILD = str(Path(__file__).with_name("rados_child.py"))
HANG = 60.0


@pytest.fixture
def ceph(private_ceph: Any) -> Iterator[Any]:
    """The run's cluster, with all OSDs going before and after each test."""
    yield private_ceph
    private_ceph.thaw(0, 1, 2)


@pytest.fixture
def place_in(ceph: Any) -> Callable[[Path], Place]:
    """The store that belongs to a directory."""

    def place(directory: Path) -> Place:
        name = hashlib.sha256(str(directory).encode()).hexdigest()[:12]
        return Place(conf=str(ceph.conf), user="vcl", pool="vcl", namespace="vcl", object=f"state-{name}")

    return place


@pytest.fixture
def place(place_in: Callable[[Path], Place], tmp_path: Path) -> Place:
    """This test's store."""
    return place_in(tmp_path)


@pytest.fixture
def osds(place: Place) -> tuple[int, ...]:
    """The OSDs that hold this test's store, the primary first."""
    question = {"prefix": "osd map", "pool": place.pool, "object": place.object, "nspace": place.namespace}
    with rados.Rados(conffile=place.conf, name="client.admin") as cluster:
        code, answer, complaint = cluster.mon_command(json.dumps({**question, "format": "json"}), b"")
    assert code == 0, complaint
    return tuple(json.loads(answer)["acting"])


class Program:
    """rados_child.py in one of its roles."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []

    def signal(self, number: signal.Signals) -> None:
        """Sends it, unless the program has ended."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def heard(self) -> str:
        """Its next line; empty at the end."""
        assert self._process.stdout is not None
        async with asyncio.timeout(HANG):
            line = (await self._process.stdout.readline()).decode()
        if line.endswith("\n"):
            self.lines.append(line[:-1])
        return line.strip()

    async def end(self) -> int:
        """Close its input, hear it out, and return its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        while await self.heard():
            pass
        async with asyncio.timeout(HANG):
            return await self._process.wait()


@pytest.fixture
async def program(place: Place) -> AsyncIterator[Callable[..., Awaitable[Program]]]:
    """Starts programs on this test's store; none is left at the end."""
    started: list[Program] = []

    async def start(role: str, argument: str = "") -> Program:
        where = ",".join([place.conf, place.user, place.pool, place.namespace, place.object])
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, CHILD, role, where, argument),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=2**20,
        )
        started.append(Program(process))
        return started[-1]

    yield start
    for each in started:
        each.signal(signal.SIGKILL)
        await each.end()
