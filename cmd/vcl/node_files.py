"""The files that make a host a node of a cluster, and how they are put in their places.

Invariants: a file that is there with other content is never replaced unless asked for, and then kept beside
the new one; what is secret is made with mode 0600, not given it afterwards.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconciler.resources.errors import InvalidInput
from vcl.node_config import DIRECTORY, NAME

SECRET_MODE, OPEN_MODE = 0o600, 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFiles:
    """Where everything is, below one directory."""

    directory: Path = DIRECTORY

    @property
    def config(self) -> Path:
        return self.directory / NAME

    @property
    def secret(self) -> Path:
        return self.directory / "secret"

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self.directory / "node.crt"

    @property
    def key(self) -> Path:
        return self.directory / "node.key"

    def bundle(self, node: str) -> Path:
        """Where the bundle for another node is made."""
        return self.directory / "join" / f"{node}.vcl"

    def mesh(self, *, port: int, tls: bool) -> dict[str, Any]:
        """The section `mesh` of a configuration that uses these files."""
        paths = {"secretFile": self.secret}
        if tls:
            paths |= {"caFile": self.ca, "certFile": self.certificate, "keyFile": self.key}
        return {"port": port, "tls": "on" if tls else "off", **{k: str(v) for k, v in paths.items()}}


@dataclass(slots=True, kw_only=True)
class Hand:
    """Does things and says so; `dry`: only says so. `force`: replaces files and keeps the old ones beside."""

    dry: bool = False
    force: bool = False

    def did(self, what: str) -> None:
        """Say that something was made, or would be."""
        print(f"{'would make' if self.dry else 'made'}  {what}")

    def kept(self, what: str) -> None:
        """Say that something is there already."""
        print(f"{'     there' if self.dry else 'kept'}  {what}")

    def put(self, path: Path, data: bytes, mode: int, *, same: bool | None = None) -> None:
        """Make the file, or keep it when its content is the same (or `same` says so). Raises InvalidInput
        when it holds something else, OSError."""
        if not path.exists():
            self._write(path, data, mode)
            self.did(str(path))
            return
        if same if same is not None else path.read_bytes() == data:
            self.kept(str(path))
            return
        if not self.force:
            raise differs(path)
        saved = path.with_name(f"{path.name}.bak-{datetime.now(UTC):%Y%m%d-%H%M%S}")
        if not self.dry:
            os.link(path, saved)
            self._write(path, data, mode)
        self.did(f"{path} (the old one is {saved.name})")

    def _write(self, path: Path, data: bytes, mode: int) -> None:
        from reconciler.adapters.files import write_durably

        if not self.dry:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            write_durably(path, data, mode=mode)


def differs(path: Path) -> InvalidInput:
    """The error for a file that is there with another content."""
    return InvalidInput(
        f"{path} is there already, with another content",
        cure="move it away if it is of no use any more, or write --force, which keeps it beside the new one",
    )


def key_in(keyring: str, user: str) -> str:
    """The key of client.USER in the text of a keyring file; empty when it is not there."""
    section = re.search(rf"^\[client\.{re.escape(user)}\]$(.*?)(?=^\[|\Z)", keyring, re.MULTILINE | re.DOTALL)
    key = re.search(r"^\s*key\s*=\s*(\S+)", section[1], re.MULTILINE) if section else None
    return key[1] if key else ""


def keys_differ(path: Path, user: str, keyring: str) -> bool:
    """Whether there is a keyring file with another key for the user than `keyring` has."""
    try:
        return key_in(path.read_text(encoding="utf-8", errors="replace"), user) != key_in(keyring, user)
    except FileNotFoundError:
        return False
