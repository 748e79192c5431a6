"""Who has a file open for writing, on this host and - where the file system carries locks - on others.

Two ways are asked, since each is blind somewhere: /proc shows every process, but of this host only (and
without root only one's own); QEMU's own locks on the image reach as far as the file system's locks do.
Invariant: a running QEMU that may write is always found by at least one of them when vcld is root.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

from reconciler.resources.images import Holder

_WRITER_BYTE = 101  # QEMU locks byte 100 + permission; permission 1 is "write" (block/file-posix.c)
_OFD_GETLK = 36
_FLOCK = struct.Struct("hhqqi4x")
_WRITABLE = os.O_WRONLY | os.O_RDWR
_VANISHED = (FileNotFoundError, ProcessLookupError, PermissionError)
"""The process or its file went away meanwhile, or it is not ours to look into."""


def holders(descriptor: int) -> tuple[Holder, ...]:
    """Everybody but this process who can write to an open file, sorted. Raises OSError."""
    wanted = os.fstat(descriptor)
    found = tuple(_processes(wanted))
    if not found and _locked(descriptor):
        found = (Holder(client="lock", description="a QEMU that this host does not see holds its lock"),)
    return found


def _processes(wanted: os.stat_result) -> list[Holder]:
    block = stat.S_ISBLK(wanted.st_mode)
    found: list[Holder] = []
    for process in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if process != os.getpid() and _has_open(process, wanted, block):
            found.append(_describe(process))
    return found


def _has_open(process: int, wanted: os.stat_result, block: bool) -> bool:
    directory = f"/proc/{process}/fd"
    with contextlib.suppress(*_VANISHED):
        for number in os.listdir(directory):
            with contextlib.suppress(*_VANISHED):
                seen = os.stat(f"{directory}/{number}")
                if block:
                    same = stat.S_ISBLK(seen.st_mode) and seen.st_rdev == wanted.st_rdev
                else:
                    same = (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino)
                if same and _flags(process, number) & _WRITABLE:
                    return True
    return False


def _flags(process: int, number: str) -> int:
    for line in Path(f"/proc/{process}/fdinfo/{number}").read_text(encoding="ascii").splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8)
    return 0


def _describe(process: int) -> Holder:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        start = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Holder(client=f"pid:{process}", description=f"a process that just ended (pid {process})")
    program = os.path.basename(words[0]) or "a process"
    guest = ""
    if "-name" in words[:-1]:
        name = words[words.index("-name") + 1].split(",")[0].removeprefix("guest=")
        guest = f" of '{name}'"
    started = start.rpartition(")")[2].split()[19]
    return Holder(client=f"pid:{process}:{started}", description=f"{program}{guest} (pid {process})")


def _locked(descriptor: int) -> bool:
    """Whether some QEMU holds the image for writing. File systems without locks say no."""
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _WRITER_BYTE, 1, 0)
    try:
        answer = fcntl.fcntl(descriptor, _OFD_GETLK, wanted)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            return False
        raise
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
