"""The two texts that the hosts of a live migration hand each other: the source's offer, the target's door.

They are kept in the store's records and read by the other host's release of vcl: keys are only ever added.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from reconciler.domainxml.handover import Place
from reconciler.resources.errors import MigrationRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """`document`: the live XML without secrets; `host_cpu`: the source's own CPU, as libvirt describes it."""

    document: str
    host_cpu: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """`connect`: the target's libvirtd as the source's reaches it; `data`: where the guest's memory goes;
    `tls`: it goes encrypted; the rest is the target's `Place`."""

    connect: str
    data: str
    tls: bool
    node: str
    root: str

    @property
    def place(self) -> Place:
        return Place(node=self.node, root=self.root)


def text(thing: Offer | Door) -> str:
    """As it is handed over."""
    return json.dumps(asdict(thing), sort_keys=True)


def offer(given: str) -> Offer:
    """Raises MigrationRefused for a text that this release cannot read."""
    known = _read(given, "offer")
    return Offer(document=str(known.get("document", "")), host_cpu=str(known.get("host_cpu", "")))


def door(given: str) -> Door:
    """Raises MigrationRefused for a text that this release cannot read."""
    known = _read(given, "door")
    try:
        return Door(
            connect=str(known["connect"]),
            data=str(known["data"]),
            tls=bool(known["tls"]),
            node=str(known["node"]),
            root=str(known["root"]),
        )
    except KeyError as error:
        raise MigrationRefused(f"the other host's door lacks {error}", cure="upgrade vcl there") from error


def _read(given: str, what: str) -> dict[str, object]:
    try:
        known = json.loads(given)
    except ValueError as error:
        raise MigrationRefused(f"the other host's {what} cannot be read: {error}") from error
    if not isinstance(known, dict):
        raise MigrationRefused(f"the other host's {what} is no JSON object")
    return known
