"""Reading the manifest directory: what counts, what is left out, and whether everything was seen.

Nothing in the directory can block or mislead the daemon: FIFOs and devices are never opened for long, links
lead nowhere outside, files over the limit are not read, and a file that changes while it is read is not
taken. A file whose stat is unchanged is not read again.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.adapters.files import TEMPORARY, digest
from reconciler.planning.manifest_apply import MAX_DEPTH, counts, keeps_conflict
from reconciler.planning.manifest_marker import MARKER_FILE
from reconciler.resources import keys
from reconciler.resources.manifesttext import MAX_BYTES
from reconciler.resources.scans import ManifestFile, Scan
from reconciler.resources.transactions import MAX_KEY

RACY_NANOSECONDS = 2_000_000_000
"""A file changed so recently can change again without its times showing it: it is read once more."""

_ATTEMPTS = 3
_PAUSE_SECONDS = 0.01
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Known:
    stamp: Stamp
    file: ManifestFile
    settled: bool


@dataclass(slots=True)
class _Finding:
    """What one walk has found so far."""

    files: list[ManifestFile] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    git_busy: bool = False


class Scanner:
    """Walks a directory; remembers between walks what need not be read again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, _Known] = {}

    def scan(self) -> Scan:
        """Look at everything. Never raises OSError: what cannot be read makes the scan incomplete."""
        found = _Finding(git_busy=_git_busy_above(self._root))
        known: dict[str, _Known] = {}
        marker = ""
        if not os.path.isdir(self._root):
            found.problems.append(f"{self._root} is not there, or is no directory; create or mount it")
        else:
            marker = self._marker(found)
            self._walk(str(self._root), "", 0, found, known)
            self._known = known
        return Scan(
            files=tuple(sorted(found.files, key=lambda file: file.path)),
            complete=not found.problems,
            marker=marker,
            problem="; ".join(found.problems[:3]),
            ignored=dict(sorted(found.ignored.items())),
            git_busy=found.git_busy,
            conflicts=tuple(sorted(found.conflicts)),
        )

    def _marker(self, found: _Finding) -> str:
        try:
            handle = os.open(self._root / MARKER_FILE, _FLAGS)
        except FileNotFoundError:
            return ""
        except OSError as error:
            found.problems.append(f"{MARKER_FILE} cannot be read: {error.strerror}")
            return ""
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                found.problems.append(f"{MARKER_FILE} is not a regular file")
                return ""
            lines = file.read(512).decode(errors="replace").splitlines()
        return lines[0].strip() if lines else ""

    def _walk(
        self, directory: str, prefix: str, depth: int, found: _Finding, known: dict[str, _Known]
    ) -> None:
        try:
            with os.scandir(directory) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            if not prefix:
                found.problems.append(f"{directory} is not there; create or mount it")
            return
        except OSError as error:
            found.problems.append(f"{directory} cannot be read: {error.strerror}")
            return
        for entry in listed:
            path = prefix + entry.name
            if entry.name == ".git":
                found.git_busy |= _locked(Path(entry.path))
            elif entry.name.endswith(TEMPORARY):
                found.ignored[_shown(path)] = "left behind by an interrupted write; look at it and remove it"
            elif entry.name.startswith("."):
                continue
            elif entry.is_dir(follow_symlinks=False):
                if depth >= MAX_DEPTH:
                    found.ignored[_shown(path)] = f"is nested deeper than {MAX_DEPTH} directories"
                else:
                    self._walk(entry.path, f"{path}/", depth + 1, found, known)
            elif counts(entry.name) or (entry.is_symlink() and os.path.isdir(entry.path)):
                self._entry(entry, path, found, known)
            elif keeps_conflict(entry.name):
                found.conflicts.append(_shown(path))

    def _entry(self, entry: os.DirEntry[str], path: str, found: _Finding, known: dict[str, _Known]) -> None:
        why = _unusable_name(path)
        target = entry.path
        if not why and entry.is_symlink():
            target, why = self._follow(entry.path)
        if not why:
            why = self._read(target, path, found, known)
        if why:
            found.ignored[_shown(path)] = why

    def _follow(self, link: str) -> tuple[str, str]:
        """Where a link leads, or why it is not followed."""
        root = os.path.realpath(self._root)
        try:
            target = os.path.realpath(link, strict=True)
        except OSError as error:
            return "", f"is a link that cannot be followed: {error.strerror}"
        if os.path.commonpath([root, target]) != root:
            return "", f"is a link that leads out of the directory, to {target}"
        if os.path.isdir(target):
            return "", "is a link to a directory"
        inside = os.path.relpath(target, root)
        if counts(os.path.basename(target)) and not any(part.startswith(".") for part in inside.split("/")):
            return "", f"is a link to {inside}, which is taken itself"
        return target, ""

    def _read(self, target: str, path: str, found: _Finding, known: dict[str, _Known]) -> str:
        """Take a file into the finding; the answer is why it is no manifest, or nothing."""
        try:
            before = os.stat(target, follow_symlinks=False)
            if not stat.S_ISREG(before.st_mode):
                return f"is {_kind(before.st_mode)}, not a regular file"
            last = self._known.get(path)
            if last is None or not last.settled or last.stamp != _stamp(before):
                last = _load(target, path)
        except FileNotFoundError:
            return ""  # gone between the listing and now: as if it had not been listed
        except OSError as error:
            text = f"{_shown(path)} cannot be read: {error.strerror}; give vcld the right to read it"
            found.problems.append(text)
            found.files.append(ManifestFile(path=path, data=None, error=text))
            return ""
        if last is None:
            text = f"{_shown(path)} is being written; it is read again shortly"
            found.problems.append(text)
            found.files.append(ManifestFile(path=path, data=None, error=text))
            return ""
        known[path] = last
        found.files.append(last.file)
        return ""


def _load(target: str, path: str) -> _Known | None:
    """Read a regular file; None when it does not hold still."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        handle = os.open(target, _FLAGS)
        with os.fdopen(handle, "rb") as file:
            before = os.fstat(handle)
            if not stat.S_ISREG(before.st_mode):
                return None
            large = before.st_size > MAX_BYTES
            data = b"" if large else file.read(MAX_BYTES + 1)
            after = os.fstat(handle)
        if _stamp(before) != _stamp(after) or (not large and len(data) != after.st_size):
            continue
        age = time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns)
        settled = age > RACY_NANOSECONDS
        if large:
            text = f"{_shown(path)}: the file is {after.st_size / 2**20:.1f} MiB; a manifest is 1 MiB at most"
            return _Known(_stamp(after), ManifestFile(path=path, data=None, error=text), settled)
        return _Known(_stamp(after), ManifestFile(path=path, data=data, digest=digest(data)), settled)
    return None


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _unusable_name(path: str) -> str:
    try:
        key = keys.manifest(path)
    except UnicodeEncodeError:
        return "has a name that is not UTF-8; rename it"
    return "has a path that is too long; shorten it" if len(key) > MAX_KEY else ""


def _shown(path: str) -> str:
    return path.encode(errors="replace").decode()


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a directory" if stat.S_ISDIR(mode) else "a device"


def _git_busy_above(root: Path) -> bool:
    """Whether git is at work in a working tree that the directory is part of."""
    return any(_locked(parent / ".git") for parent in Path(os.path.realpath(root)).parents)


def _locked(git: Path) -> bool:
    try:
        if git.is_file():  # a worktree or submodule: a file that names the real place
            text = git.read_text(encoding="utf-8", errors="surrogateescape")
            git = git.parent / text.removeprefix("gitdir:").strip()
        return (git / "index.lock").exists()
    except OSError:
        return False
