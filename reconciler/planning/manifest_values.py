"""What the manifest plans look at and what they answer, as values.

An object is identified by kind and name, never by the path of its file. A file that cannot be understood is
*unknown*, which is never the same as *absent*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from reconciler.resources.kinds import Kind
from reconciler.resources.manifest import Document
from reconciler.resources.records import Intent, SpecRecord
from reconciler.resources.scans import Base, Scan
from reconciler.resources.status import ManifestStatus

SETTLE_SECONDS = 1.0
"""How long an absence, a broken file or a duplicate must last before it counts: editors and `git` pass
through such states within milliseconds."""


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """Which object: `VirtualMachine/web`."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One document of a file; `line` is its first line, counted from 1; without its bytes `start` to `end`
    the file defines everything else as before."""

    key: ObjectKey
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    line: int = 1
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileView:
    """One file of the scan, parsed. `age`: seconds since the loop first saw these bytes under this path.

    `documents`: as parsed, for checks against other files. `mentions`: objects that a file which is not valid
    seems to define. `problems` and `warnings` are rendered; a file with problems is not valid. `data` is
    None when it could not be read.
    """

    path: str
    digest: str
    data: bytes | None
    manifests: tuple[Manifest, ...] = ()
    documents: tuple[Document, ...] = field(default=(), repr=False)
    mentions: frozenset[ObjectKey] = frozenset()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    age: float = SETTLE_SECONDS

    @property
    def valid(self) -> bool:
        return self.data is not None and not self.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    digest: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    record: SpecRecord
    revision: int

    @property
    def terminating(self) -> bool:
        return self.record.metadata.deletion_timestamp is not None

    @property
    def from_file(self) -> bool:
        """Whether it lives because a manifest says so (a node registers itself without one)."""
        return bool(self.record.source.path) and not self.terminating


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredIntent:
    intent: Intent
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreView:
    """What the store holds about manifests. `unreadable`: objects whose record this version cannot read."""

    files: Mapping[str, StoredFile] = field(default_factory=dict)
    objects: Mapping[ObjectKey, StoredObject] = field(default_factory=dict)
    intents: Mapping[ObjectKey, StoredIntent] = field(default_factory=dict)
    statuses: Mapping[ObjectKey, ManifestStatus] = field(default_factory=dict)
    unreadable: frozenset[ObjectKey] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Now: `monotonic` in seconds decides, `wall` is written into records, `seed` (a UUID) makes new uids."""

    monotonic: float
    wall: str
    seed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a person asked for. `deletions`: object -> purge, from `vcl delete`; `confirmed`: ids of held
    deletions that may pass."""

    deletions: Mapping[ObjectKey, bool] = field(default_factory=dict)
    confirmed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something to say about an object that is taken; `severe`: it will not work like this."""

    text: str
    severe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Absences:
    """Since when (monotonic seconds) each object and each file has been missing without interruption."""

    objects: Mapping[ObjectKey, float] = field(default_factory=dict)
    files: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncView:
    """Everything a sync is decided from. `files` are those that count, parsed, sorted by path: the scan's,
    and the store's for the paths in `foreign`, which the directory does not have like that (yet).

    `remarks`: what valid objects get wrong together. `master`: whether this node tells objects of them.
    """

    scan: Scan
    files: tuple[FileView, ...]
    store: StoreView
    base: Base
    absences: Absences
    moment: Moment
    asked: Asked = field(default_factory=Asked)
    remarks: Mapping[ObjectKey, tuple[Remark, ...]] = field(default_factory=dict)
    foreign: frozenset[str] = frozenset()
    master: bool = True

    @property
    def ours(self) -> bool:
        """Whether it is the directory that this node knows."""
        return bool(self.scan.marker) and self.scan.marker == self.base.marker

    @property
    def trusted(self) -> bool:
        """Whether what is missing in the scan is missing in the directory (SAFETY rule 19)."""
        return self.ours and self.scan.complete and not self.scan.git_busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """What goes into one transaction; `compares`: key -> the revision it was decided on."""

    compares: Mapping[str, int] = field(default_factory=dict)
    puts: Mapping[str, bytes] = field(default_factory=dict)
    deletes: frozenset[str] = frozenset()
    reasons: tuple[str, ...] = ()


class Standing(StrEnum):
    """What becomes of a file. Blocked files keep the last good spec of every object that they defined."""

    GOOD = "good"
    SETTLING = "settling"
    BROKEN = "broken"
    CLASHING = "clashing"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileVerdict:
    """`problems` say why a file is not taken; `waiting` that it will be, and when."""

    path: str
    standing: Standing
    objects: tuple[ObjectKey, ...] = ()
    problems: tuple[str, ...] = ()
    waiting: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Deletions that need a person's word. `id` changes with the set of objects."""

    id: str
    objects: tuple[ObjectKey, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPlan:
    """`writes` in order, then `statuses`; `base` is to be saved before them; `again`: look once more after so
    many seconds; `problem`: why the directory is not followed at the moment, or what keeps deletions back."""

    writes: tuple[Write, ...] = ()
    statuses: tuple[Write, ...] = ()
    verdicts: tuple[FileVerdict, ...] = ()
    absences: Absences
    base: Base
    held: Held | None = None
    again: float | None = None
    problem: str = ""
