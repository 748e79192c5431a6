"""One node's log on disk."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.adapters.log_file import LogFile
from reconciler.resources.errors import VclError
from reconciler.resources.logrecords import LogLevel, LogRecord


def record(sequence: int, message: str = "", *, session: int = 1) -> LogRecord:
    return LogRecord(
        node="r1",
        session=session,
        sequence=sequence,
        time="2026-01-31T12:00:00.000000Z",
        level=LogLevel.INFO,
        logger="test",
        message=message or f"message {sequence}",
    )


async def written(directory: Path, *records: LogRecord, **limits: int) -> None:
    """One run of a daemon."""
    file = LogFile(directory, **limits)  # type: ignore[arg-type]
    for item in records:
        file.write(item)
    await file.close()


def lines(path: Path) -> list[str]:
    return [json.loads(line)["message"] for line in path.read_text().splitlines()]


async def test_a_later_run_reads_what_earlier_ones_wrote(tmp_path: Path) -> None:
    first = [record(1), record(2, "zwei ü\n\x1b[31m")]
    await written(tmp_path / "log", *first)
    await written(tmp_path / "log", record(1, session=2))
    assert await LogFile(tmp_path / "log").load(10) == (*first, record(1, session=2))
    assert await LogFile(tmp_path / "log").load(2) == (first[1], record(1, session=2))


async def test_a_record_is_a_line_of_json_that_only_its_owner_reads(tmp_path: Path) -> None:
    await written(tmp_path, record(1, "two\nlines"))
    path = tmp_path / "vcld.jsonl"
    assert lines(path) == ["two\nlines"]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_there_is_nothing_to_read_at_the_first_start(tmp_path: Path) -> None:
    assert await LogFile(tmp_path / "log").load(10) == ()


async def test_full_files_are_turned_over_and_the_oldest_goes(tmp_path: Path) -> None:
    for number in range(1, 41):
        await written(tmp_path, record(number, "x" * 300), size=2000, files=3)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["vcld.1.jsonl", "vcld.2.jsonl", "vcld.jsonl"]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
    kept = await LogFile(tmp_path, files=3).load(100)
    assert [item.sequence for item in kept] == list(range(40 - len(kept) + 1, 41))
    assert len(kept) >= 8


async def test_one_file_is_enough(tmp_path: Path) -> None:
    for number in range(1, 20):
        await written(tmp_path, record(number, "x" * 300), size=2000, files=1)
    assert [path.name for path in tmp_path.iterdir()] == ["vcld.jsonl"]
    assert (await LogFile(tmp_path, files=1).load(100))[-1].sequence == 19


async def test_a_run_that_was_killed_while_it_turned_a_file_over_loses_nothing(tmp_path: Path) -> None:
    await written(tmp_path, record(1))
    (tmp_path / "vcld.jsonl").rename(tmp_path / "vcld.1.jsonl")
    assert await LogFile(tmp_path).load(10) == (record(1),)


async def test_half_a_line_spoils_no_other(tmp_path: Path) -> None:
    await written(tmp_path, record(1))
    with (tmp_path / "vcld.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-01-')
    await written(tmp_path, record(2))
    assert await LogFile(tmp_path).load(10) == (record(1), record(2))


@pytest.mark.parametrize("junk", [b"\xff\xfe\n", b"[]\n", b"{}\n", b"\n", b"[" * 50_000 + b"\n"])
async def test_lines_that_are_no_records_are_left_out(tmp_path: Path, junk: bytes) -> None:
    await written(tmp_path, record(1))
    with (tmp_path / "vcld.jsonl").open("ab") as file:
        file.write(junk)
    await written(tmp_path, record(2))
    assert await LogFile(tmp_path).load(10) == (record(1), record(2))


async def test_a_log_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "vcld.jsonl").mkdir()
    with pytest.raises(VclError, match="cannot read the log in"):
        await LogFile(tmp_path).load(10)


class Disk:
    """The disk of a log's directory; `fail` puts a file in its place, so that no write can work."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._away = directory.with_name("away")
        directory.mkdir()

    def fail(self) -> None:
        self._directory.rename(self._away)
        self._directory.write_text("in the way")

    def recover(self) -> None:
        self._directory.unlink()
        self._away.rename(self._directory)


def said(caplog: pytest.LogCaptureFixture, word: str) -> Callable[[], bool]:
    return lambda: word in caplog.text


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_disk_that_fails_costs_records_and_the_log_says_so_when_it_works_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "log"
    disk = Disk(directory)
    file = LogFile(directory, retry=0.02)
    disk.fail()
    for number in (1, 2):
        file.write(record(number))
    await until(said(caplog, "cannot be written"))
    await until(lambda: file.dropped == 2)
    disk.recover()
    file.write(record(3))
    await until(said(caplog, "records are missing in"))
    file.write(record(4))
    await file.close()
    assert [item.sequence for item in await file.load(10)] == [3, 4]
    texts = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert [("cannot be written" in text, "2 records are missing" in text) for text in texts] == [
        (True, False),
        (False, True),
    ]


async def test_a_file_that_takes_only_part_of_a_batch_keeps_whole_lines(tmp_path: Path) -> None:
    """A limit on the file's size (as a quota) stops a write in its middle."""
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = LogFile(tmp_path, retry=0.01)
    try:
        file.write(record(1))
        await until(lambda: (tmp_path / "vcld.jsonl").exists() and not file.waiting)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
        for number in range(2, 20):
            file.write(record(number, "x" * 200))
        await until(lambda: not file.waiting and file.dropped > 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    file.write(record(20))
    await file.close()
    text = (tmp_path / "vcld.jsonl").read_text()
    assert [json.loads(line)["sequence"] for line in text.splitlines()][-1] == 20


@pytest.mark.parametrize("limits", [{"waiting": 50}, {"waiting_bytes": 50_000}])
async def test_a_disk_that_hangs_costs_records_and_nobody_waits(
    tmp_path: Path, limits: dict[str, int]
) -> None:
    """Opening a FIFO for reading and writing does not hang, but a full one does: the thread stays in it."""
    path = tmp_path / "vcld.jsonl"
    os.mkfifo(path)
    file = LogFile(tmp_path, **limits)  # type: ignore[arg-type]
    for number in range(1, 1000):
        file.write(record(number, "x" * 1000))
    assert file.waiting <= 50
    await file.close(timeout=0.1)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    stuck = [thread for thread in threading.enumerate() if thread.name == "log-file"]
    for _ in range(10_000):
        if not any(thread.is_alive() for thread in stuck):
            break
        try:
            os.read(reader, 2**16)
        except BlockingIOError:
            stuck[0].join(0.001)
    os.close(reader)
