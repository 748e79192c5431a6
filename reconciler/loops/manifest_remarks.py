"""What manifests that are valid by themselves get wrong together: a shared image or MAC address, constraints
that contradict each other, a reference to something that is not there.

These never keep a file from being taken (the missing pool may come with the next file); they are shown as
the object's condition. Checking runs on a thread, and only after something changed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from reconciler.loops.views import Views
from reconciler.planning.manifest_values import FileView, ObjectKey, Remark
from reconciler.resources import keys
from reconciler.resources.crosscheck import KnownObjects, examine
from reconciler.resources.kinds import Kind
from reconciler.resources.manifest import Document
from reconciler.resources.problems import Problem, Severity, render

Remarks = dict[ObjectKey, tuple[Remark, ...]]

BESIDE = "manifests/"
"""What the directory's own files are called when they are checked together with an input of the same name."""


class CrossChecker:
    """`builtin`: what exists without a manifest (pools of the configuration, controllers)."""

    def __init__(self, builtin: KnownObjects, views: Views) -> None:
        self._builtin = builtin
        self._views = views
        self._checked: object = None
        self.remarks: Remarks = {}

    async def refresh(self, files: Sequence[FileView]) -> bool:
        """Check the files that are taken, if they or what they refer to changed; True when `remarks` did."""
        known = self._known()
        state = (tuple((file.path, file.digest) for file in files), known)
        if state == self._checked:
            return False
        documents = [document for file in files for document in file.documents]
        problems = await asyncio.to_thread(_told_to_all, documents, known)
        before, self.remarks, self._checked = self.remarks, _by_object(problems, documents), state
        return before != self.remarks

    async def check_inputs(
        self, inputs: Iterable[FileView], files: Iterable[FileView]
    ) -> tuple[Problem, ...]:
        """What inputs that were parsed under their own names would get wrong in this directory."""
        fresh = [document for view in inputs for document in view.documents]
        replaced = {(document.kind, document.name) for document in fresh}
        others = [
            replace(document, file=BESIDE + document.file)
            for file in files
            for document in file.documents
            if (document.kind, document.name) not in replaced
        ]
        names = frozenset(document.file for document in fresh)
        return await asyncio.to_thread(_told_to_some, [*fresh, *others], self._known(), names)

    def _known(self) -> KnownObjects:
        names = {kind: set(self._views.names(kind)) for kind in Kind}
        for kind in (Kind.NODE, Kind.STORAGE_POOL):  # these may exist without a manifest
            reported = keys.node_status(kind, "")
            names[kind] |= {item.key.removeprefix(reported) for item in self._views.cache.prefix(reported)}
        members = self._views.cache.prefix(keys.MEMBERS)
        names[Kind.NODE] |= {item.key.removeprefix(keys.MEMBERS) for item in members}
        for kind, builtin in self._builtin.names.items():
            names[kind] |= builtin
        return replace(
            self._builtin,
            names={kind: frozenset(found) for kind, found in names.items()},
            hosts={name: self._labels(name) for name in sorted(names[Kind.NODE])},
        )

    def _labels(self, node: str) -> Mapping[str, str]:
        record = self._views.spec_record(Kind.NODE, node)
        return record.metadata.labels if record is not None else {}


def _told_to_all(documents: Sequence[Document], known: KnownObjects) -> tuple[Problem, ...]:
    """Every problem, those of VMs that wait for a contradiction to end included."""
    found = examine(documents, known)
    waiting = (vm.problem(finding) for clash in found.clashes for vm, finding in clash.remarks())
    return (*found.problems, *waiting)


def _told_to_some(
    documents: Sequence[Document], known: KnownObjects, files: frozenset[str]
) -> tuple[Problem, ...]:
    """The problems in these files. A VM is told of a contradiction only when no constraint among them is."""
    found = examine(documents, known)
    elsewhere = (clash for clash in found.clashes if not any(party.file in files for party in clash.parties))
    waiting = [
        vm.problem(finding) for clash in elsewhere for vm, finding in clash.remarks() if vm.file in files
    ]
    return (*(problem for problem in found.problems if problem.file in files), *waiting)


def _by_object(problems: Iterable[Problem], documents: Iterable[Document]) -> Remarks:
    places: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        places[document.file].append(document)
    found: dict[ObjectKey, list[Remark]] = defaultdict(list)
    for problem in problems:
        for document in places[problem.file]:
            if document.line <= problem.line <= document.end_line:
                remark = Remark(text=render(problem), severe=problem.severity is Severity.ERROR)
                found[ObjectKey(document.kind, document.name)].append(remark)
    return {key: tuple(remarks) for key, remarks in found.items()}
