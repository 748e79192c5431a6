"""The files that belong to one VM on this node: console log, cloud-init image, UEFI variables.

Invariant: a file is complete under its name, or it is not there (written aside, synced, renamed).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.domainxml.build import GuestPaths
from reconciler.domainxml.seed import SEED_LABEL
from reconciler.resources.domains import Definition
from reconciler.resources.errors import StartFailed

LOG_LIMIT = 4 << 20
"""Bytes of console log after which it is cut; the newest quarter stays."""
_BLOCK = 512
_ISO_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Below one directory. It is entered by QEMU's user, and lists nothing to it."""

    root: Path

    def paths(self, name: str) -> GuestPaths:
        """Where the VM's files are, or will be."""
        return GuestPaths(
            console_log=str(self.console_log(name)),
            seed_image=str(self.root / "seed" / f"{name}.iso"),
            nvram=str(self.root / "nvram" / f"{name}.fd"),
        )

    def console_log(self, name: str) -> Path:
        return self.root / "console" / f"{name}.log"

    def prepare(self, definition: Definition) -> None:
        """All that must be there before the domain starts. Raises StartFailed."""
        paths = self.paths(definition.name)
        try:
            self.make_directories(definition.document)
            self.trim_log(definition.name)
            if definition.seed:
                _make_seed(Path(paths.seed_image), definition.seed, definition.name)
        except OSError as error:
            raise StartFailed(
                f"cannot start {definition.name}: cannot write {error.filename}: {error.strerror}",
                reason="NoSpace" if error.errno in (28, 122) else "StateDirectory",
                cure=f"look at the space and the rights of {self.root}",
            ) from error

    def make_directories(self, document: str) -> None:
        """Those that the definition refers to, and that of the console logs. Raises OSError."""
        for directory in (self.root, *sorted({self.root / "console", *_parents(document, self.root)})):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)

    def trim_log(self, name: str) -> None:
        """Keep the log's newest part once it has grown too large. QEMU appends, so it goes on at the end."""
        with (
            contextlib.suppress(FileNotFoundError, PermissionError),
            self.console_log(name).open("r+b") as log,
        ):
            if os.fstat(log.fileno()).st_blocks * _BLOCK <= LOG_LIMIT:
                return
            log.seek(-LOG_LIMIT // 4, os.SEEK_END)
            newest = log.read(LOG_LIMIT // 4)
            log.truncate(0)
            log.seek(0)
            log.write(newest)

    def tail(self, name: str, limit: int) -> bytes:
        """The last `limit` bytes of the console log; empty when there is none. Raises OSError."""
        try:
            with self.console_log(name).open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - limit))
                return log.read(limit)
        except FileNotFoundError:
            return b""


def _parents(document: str, root: Path) -> set[Path]:
    """Directories below `root` that the definition refers to."""
    paths = [text for element in ET.fromstring(document).iter() for text in _texts(element)]
    return {Path(path).parent for path in paths if path.startswith(f"{root}/")}


def _texts(element: ET.Element) -> list[str]:
    return [*element.attrib.values(), (element.text or "").strip()]


def _make_seed(image: Path, files: Mapping[str, str], name: str) -> None:
    command = _iso_maker()
    if command is None:
        raise StartFailed(
            f"cannot start {name}: no program makes the cloud-init image",
            reason="SeedToolMissing",
            cure="install xorriso (Debian, Ubuntu, Fedora), libisoburn (Arch; Gentoo: dev-libs/libisoburn), "
            "genisoimage or mkisofs",
        )
    image.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".seed-", dir=image.parent) as scratch:
        content, made = Path(scratch, "content"), Path(scratch, "seed.iso")
        content.mkdir()
        for file, text in sorted(files.items()):
            (content / file).write_text(text)
        arguments = ["-quiet", "-output", str(made), "-volid", SEED_LABEL, "-joliet", "-rock", str(content)]
        if problem := _complaint([*command, *arguments]):
            raise StartFailed(
                f"cannot start {name}: {command[0]} cannot make {image}: {problem}",
                reason="SeedFailed",
                cure=f"look at the space and the rights of {image.parent}",
            )
        made.chmod(0o600)
        with made.open("rb") as written:
            os.fsync(written.fileno())
        made.replace(image)


def _complaint(command: list[str]) -> str:
    """What the program complained about; empty when it succeeded."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ISO_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no end after {_ISO_SECONDS:.0f} s"
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def _iso_maker() -> list[str] | None:
    for program in ("genisoimage", "mkisofs", "xorrisofs"):
        if shutil.which(program):
            return [program]
    return ["xorriso", "-as", "mkisofs"] if shutil.which("xorriso") else None
