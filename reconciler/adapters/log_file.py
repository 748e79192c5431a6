"""One node's log on disk: JSON lines in a file that is turned over when it is full.

Invariants: what is on disk is bounded in size and number of files; nobody waits for the disk; a full or
broken disk costs records, which are counted and named in the log when it takes them again, and never leaves
half a line between whole ones. Records are not synced: the last moments before a power cut may be missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
from collections import deque
from pathlib import Path

from reconciler.adapters.event_loop import in_thread
from reconciler.resources.errors import InvalidInput, VclError
from reconciler.resources.logrecords import LogRecord, record_from_json, record_to_json

log = logging.getLogger(__name__)

SIZE = 16 * 2**20
FILES = 5
WAITING = 10_000
WAITING_BYTES = 8 * 2**20
"""Records, and bytes of their messages, that wait for the disk at most."""

BATCH = 500
RETRY_SECONDS = 5.0


class LogFile:
    """A LogArchive in `directory`: vcld.jsonl, and vcld.1.jsonl (the newest that is full) to vcld.N.jsonl.

    `size` in bytes of each of at most `files` files. The writing thread starts with the first record.
    """

    def __init__(
        self,
        directory: Path,
        *,
        size: int = SIZE,
        files: int = FILES,
        waiting: int = WAITING,
        waiting_bytes: int = WAITING_BYTES,
        retry: float = RETRY_SECONDS,
    ) -> None:
        self._directory = directory
        self._size = size
        self._files = files
        self._retry = retry
        self._most = waiting
        self._most_bytes = waiting_bytes
        self._bytes = 0
        self._waiting: deque[LogRecord] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._dropped = 0
        self._failing = ""

    async def load(self, most: int) -> tuple[LogRecord, ...]:
        """The last records of earlier runs, oldest first. VclError when they cannot be read."""
        try:
            return await in_thread(lambda: self._load(most), name="log-load")
        except OSError as error:
            raise VclError(
                f"cannot read the log in {self._directory}: {error.strerror}", cure="look at its disk"
            ) from error

    def write(self, record: LogRecord) -> None:
        """Keep it soon; when the disk is too slow or full, it is dropped and counted."""
        with self._changed:
            if len(self._waiting) >= self._most or self._bytes >= self._most_bytes:
                self._dropped += 1
                return
            self._waiting.append(record)
            self._bytes += len(record.message)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="log-file", daemon=True)
                self._thread.start()
            self._changed.notify()

    async def close(self, *, timeout: float = 3.0) -> None:
        """Write what is waiting, for at most `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            await asyncio.to_thread(thread.join, timeout)

    @property
    def waiting(self) -> int:
        """Records that are not written yet."""
        return len(self._waiting)

    @property
    def dropped(self) -> int:
        """Records that the disk did not take and that the log does not know of yet."""
        return self._dropped

    @property
    def _path(self) -> Path:
        return self._directory / "vcld.jsonl"

    def _older(self, number: int) -> Path:
        return self._directory / f"vcld.{number}.jsonl"

    def _work(self) -> None:
        """The thread: write what is waiting, until closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                self._bytes -= sum(len(record.message) for record in batch)
                closing = self._closing
            if not batch:
                return
            try:
                self._append(b"".join(map(_line, batch)))
            except OSError as error:
                self._failed(batch, error)
                if closing:
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, self._retry)
            else:
                self._worked()

    def _append(self, data: bytes) -> None:
        """Add whole lines, or nothing. Raises OSError."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        handle = self._open()
        try:
            before = os.fstat(handle).st_size
            if before and before + len(data) > self._size:
                os.close(handle)
                self._turn_over()
                handle = self._open()
                before = 0
            if before and os.pread(handle, 1, before - 1) != b"\n":
                data = b"\n" + data  # a run that was killed left half a line
            try:
                _write_all(handle, data)
            except OSError:
                with contextlib.suppress(OSError):  # then the next run finds half a line, as above
                    os.ftruncate(handle, before)
                raise
        finally:
            os.close(handle)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o600)

    def _turn_over(self) -> None:
        for number in range(self._files - 1, 0, -1):
            newer = self._path if number == 1 else self._older(number - 1)
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, self._older(number))
        if self._files == 1:
            self._path.unlink()

    def _failed(self, batch: list[LogRecord], error: OSError) -> None:
        with self._changed:
            self._dropped += len(batch)
        why = error.strerror or str(error)
        if why != self._failing:
            self._failing = why
            log.warning("log: %s cannot be written: %s; records are dropped meanwhile", self._path, why)

    def _worked(self) -> None:
        with self._changed:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            why, self._failing = self._failing or "the disk is too slow", ""
            log.warning("log: %d records are missing in %s: %s", dropped, self._path, why)

    def _load(self, most: int) -> tuple[LogRecord, ...]:
        found: deque[LogRecord] = deque()
        for path in [self._path, *map(self._older, range(1, self._files))]:
            try:
                records = _read(path, most - len(found))
            except FileNotFoundError:
                continue  # as when a run was killed while it turned the file over
            found.extendleft(reversed(records))
            if len(found) >= most:
                break
        return tuple(found)


def _line(record: LogRecord) -> bytes:
    return json.dumps(record_to_json(record), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _read(path: Path, most: int) -> list[LogRecord]:
    """The last records of a file; lines that are none are left out."""
    with path.open("rb") as file:
        lines = deque(file, maxlen=most)
    records = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError, InvalidInput):
            records.append(record_from_json(json.loads(line)))
    return records
