"""Status as files: one readable YAML for each object, in a tree of its own, for people, grep and git diff.

It is a view: nothing reads it back, so it is written without fsync, only when the text changed, and each file
is replaced atomically, so that a reader never sees half of one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import yaml

from reconciler.resources.errors import ManifestDirectoryError
from reconciler.resources.kinds import KINDS, Kind, info_for

T = TypeVar("T")

_HEADER = "# Written by vcld; changes here are lost.{source}\n"
_SUFFIX = ".yaml"
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class StatusTree:
    """`ROOT/virtualmachines/NAME.yaml` and so on. Directories are made as needed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._written: dict[Path, bytes] = {}

    async def names(self) -> frozenset[tuple[str, str]]:
        """(kind, name) of every file that an earlier run left."""
        return await self._run(self._names)

    async def write(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        """Show the object. ManifestDirectoryError when it cannot be written."""
        await self._run(lambda: self._write(self._path(kind, name), document))

    async def remove(self, kind: str, name: str) -> None:
        """Stop showing it; no-op when it is not shown."""
        await self._run(lambda: self._remove(self._path(kind, name)))

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise ManifestDirectoryError(
                f"the status tree {self._root} cannot be written: {error.strerror}",
                cure="free space, or repair its rights; it catches up by itself",
            ) from error

    def _path(self, kind: str, name: str) -> Path:
        return self._root / info_for(Kind(kind)).plural / (name + _SUFFIX)

    def _names(self) -> frozenset[tuple[str, str]]:
        found = set()
        for info in KINDS:
            directory = self._root / info.plural
            if not directory.is_dir():
                continue
            for entry in directory.iterdir():
                if entry.name.startswith(".") and entry.name.endswith(".tmp"):
                    entry.unlink(missing_ok=True)  # left by a run that was killed
                elif entry.name.endswith(_SUFFIX):
                    found.add((info.kind.value, entry.name.removesuffix(_SUFFIX)))
        return frozenset(found)

    def _write(self, path: Path, document: Mapping[str, Any]) -> None:
        text = render(document).encode()
        digest = blake2b(text, digest_size=16).digest()
        if self._written.get(path) == digest and path.exists():
            return
        temporary = path.with_name(f".{path.name}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_private(temporary, text)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self._written[path] = digest

    def _remove(self, path: Path) -> None:
        self._written.pop(path, None)
        path.unlink(missing_ok=True)


def _write_private(path: Path, data: bytes) -> None:
    """Mode 0640: a spec may hold a guest's passwords (cloud-init)."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def render(document: Mapping[str, Any]) -> str:
    """The object as YAML, under a line that says what the file is."""
    source = (document.get("status") or {}).get("source") or {}
    path = source.get("path", "")
    shown = " ".join(str(path).split())
    header = _HEADER.format(source=f" Its manifest is {shown}." if shown else "")
    body: str = yaml.dump(
        dict(document),
        Dumper=_DUMPER,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=110,
    )
    return header + body
