"""Where the dummy controller's guests are kept, so that they outlive the daemon.

Invariant: a record is replaced whole. Files are not fsynced: a power cut ends the guests too, so each boot of
the host has its own directory and the others are thrown away.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from reconciler.resources.errors import ControllerUnavailable, InvalidInput
from reconciler.resources.records import dump, load
from reconciler.sim.dummy_guests import Guest


class Shelf(Protocol):
    """Where guests are kept; survives the daemon."""

    def load(self) -> tuple[Guest, ...]: ...

    def save(self, guest: Guest) -> None: ...


class MemoryShelf:
    """For simulations: as long-lived as the object."""

    def __init__(self) -> None:
        self._guests: dict[str, Guest] = {}
        self._changed: set[str] = set()

    def load(self) -> tuple[Guest, ...]:
        return tuple(self._guests.values())

    def save(self, guest: Guest) -> None:
        self._guests[guest.name] = guest

    def change(self, guest: Guest) -> None:
        """Something besides the hypervisor's own calls has happened to the guest."""
        self.save(guest)
        self._changed.add(guest.name)

    def news(self) -> tuple[Guest, ...]:
        """Those that were changed since this was last asked."""
        found = tuple(self._guests[name] for name in sorted(self._changed))
        self._changed.clear()
        return found


class DirectoryShelf:
    """One file per guest in `path`, in a directory of its own for each boot of the host."""

    def __init__(self, path: Path, *, boot_id: str) -> None:
        self._path = path / boot_id

    def load(self) -> tuple[Guest, ...]:
        """Raises ControllerUnavailable when the directory or a file in it is unreadable."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            for other in self._path.parent.iterdir():
                if other != self._path:
                    shutil.rmtree(other)
            files = sorted(p for p in self._path.iterdir() if p.suffix == ".json")
            return tuple(load(Guest, file.read_bytes()) for file in files)
        except (OSError, ValueError, InvalidInput) as error:
            raise ControllerUnavailable(
                f"the dummy guests in {self._path} are unreadable: {error}"
            ) from error

    def save(self, guest: Guest) -> None:
        """Raises ControllerUnavailable when it cannot be written; then nothing changed."""
        final = self._path / f"{quote(guest.name, safe='')}.json"
        partial = final.with_suffix(".tmp")
        try:
            partial.write_bytes(dump(guest))
            partial.rename(final)
        except OSError as error:
            raise ControllerUnavailable(f"cannot write {final}: {error}", cure="make room for it") from error


def boot_id() -> str:
    """The kernel's id of this boot: guests of another one are dead."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
