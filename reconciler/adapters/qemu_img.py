"""qemu-img, as four verbs in our words; its messages become our errors here.

Invariant: every format is given, so qemu-img never probes, and every path is absolute, so that none is read
as a protocol (`nbd:...`, `json:{...}`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from reconciler.adapters.subprocesses import Finished, run
from reconciler.ports.disks import Progress
from reconciler.resources.errors import DiskError, ImageInUse, ImageInvalid, NoSpace, PoolUnavailable
from reconciler.resources.virtualmachine import DiskFormat

SHORT_SECONDS = 60.0
"""For what takes no longer with a larger image."""

_PERCENT = re.compile(rb"\((\d+\.\d+)/100%\)")


class QemuImg:
    """`program` is its name or path. All methods raise DiskError."""

    def __init__(self, program: str = "qemu-img") -> None:
        self._program = program

    async def create(self, path: str, format: DiskFormat, size: int) -> None:
        """A new, empty image of `size` bytes."""
        await self._run("create", "-q", "-f", format, path, str(size))

    async def create_clone(self, path: str, backing: str, backing_format: DiskFormat, size: int) -> None:
        """A new qcow2 image of `size` bytes on top of another one."""
        await self._run("create", "-q", "-f", "qcow2", "-b", backing, "-F", backing_format, path, str(size))

    async def copy(
        self, source: str, source_format: DiskFormat, path: str, format: DiskFormat, progress: Progress
    ) -> None:
        """A full copy, in another format where that is asked; long, no deadline: cancel it."""

        def report(piece: bytes) -> None:
            for percent in _PERCENT.findall(piece)[-1:]:
                progress(float(percent) / 100)

        command = ("convert", "-p", "-f", source_format, "-O", format, source, path)
        await self._run(*command, timeout=None, on_output=report)

    async def resize(self, path: str, format: DiskFormat, size: int, *, timeout: float) -> None:
        """Make it `size` bytes long; the caller has checked that this is more. ImageInUse when locked."""
        await self._run("resize", "-q", "-f", format, path, str(size), timeout=timeout)

    async def needed(self, source: str, source_format: DiskFormat) -> int:
        """About how many bytes a copy takes: what is allocated, not what the guest sees."""
        done = await self._run("measure", "--output=json", "-f", source_format, "-O", "qcow2", source)
        return int(json.loads(done.output)["required"])

    async def extents(self, source: str, source_format: DiskFormat) -> tuple[tuple[int, int], ...]:
        """Offset and length of what may hold other data than zeros."""
        done = await self._run("map", "--output=json", "-f", source_format, source)
        return tuple((part["start"], part["length"]) for part in _whole(done) if part["data"])

    async def _run(
        self,
        *words: str,
        timeout: float | None = SHORT_SECONDS,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Finished:
        command = [self._program, *words]
        try:
            done = await run(command, timeout=timeout, on_output=on_output)
        except FileNotFoundError as error:
            cure = "install it: Debian qemu-utils, Fedora qemu-img, Arch qemu-img, Gentoo app-emulation/qemu"
            raise DiskError(f"{self._program} is not installed", cure=cure) from error
        except OSError as error:
            raise DiskError(f"cannot run {self._program}: {error}") from error
        except TimeoutError as error:
            raise PoolUnavailable(f"{self._program} {words[0]} did not end within {timeout:g} s") from error
        if done.status != 0:
            raise translate(words[0], words[-1], done)
        return done


def _whole(done: Finished) -> list[dict[str, int]]:
    """The JSON that a program printed. Raises ImageInvalid when it was cut: it printed too much."""
    try:
        found: list[dict[str, int]] = json.loads(done.output)
    except ValueError as error:
        raise ImageInvalid(
            "qemu-img map: the image is too fragmented to be read",
            cure="make it whole: qemu-img convert -O qcow2 OLD NEW",
        ) from error
    return found


def translate(verb: str, path: str, done: Finished) -> DiskError:
    """What qemu-img's last words mean."""
    lines = [line.removeprefix("qemu-img: ") for line in done.errors.splitlines() if line.strip()]
    said = "; ".join(lines) or f"it ended with status {done.status}"
    text = said.lower()
    if "no space left" in text or "disk quota exceeded" in text or "file too large" in text:
        return NoSpace(f"no room left for {path}: {said}", cure="free some space, or use another pool")
    if 'failed to get "' in text or "failed to get shared" in text or "is another process using" in text:
        return ImageInUse(f"{said}", cure="stop what uses it, then try again")
    if "input/output error" in text or "stale file handle" in text:
        return PoolUnavailable(f"qemu-img {verb}: {said}", cure="look at the storage below the pool")
    return ImageInvalid(f"qemu-img {verb}: {said}")
