"""Checks objects against each other: what no single document shows.

Invariants: two objects that would write to one image, answer to one MAC address or have one name are an error
in each of them, since either may be the wrong one. What merely refers to something that is not there is a
warning: it may come with the next file, and a file that arrives by git is never rejected for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.resources.constraintcheck import Clash, clashes
from reconciler.resources.kinds import Kind
from reconciler.resources.manifest import Document
from reconciler.resources.problems import Finding, Path, Problem, Severity, in_order
from reconciler.resources.speccheck import maps, section
from reconciler.resources.startorder import order_of
from reconciler.resources.suggest import hint


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownObjects:
    """What exists apart from the documents that are checked. A kind that is not in `names` is not known, and
    references to it are not checked; nor are controllers when `controllers` is None. `hosts`: the labels of
    every node; None when it is not known which there are."""

    names: Mapping[Kind, frozenset[str]] = field(default_factory=dict)
    controllers: frozenset[str] | None = None
    default_pool: str = "default"
    hosts: Mapping[str, Mapping[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class _Use:
    """Something that only one may have: who has it, and where that is written."""

    document: Document
    path: Path
    what: str
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """`problems`: sorted by position; `clashes`: constraints that contradict each other, which are among them
    as far as they are in constraints."""

    problems: tuple[Problem, ...]
    clashes: tuple[Clash, ...]


def cross_check(documents: Sequence[Document], known: KnownObjects) -> tuple[Problem, ...]:
    """What is wrong between the documents, and what they refer to in vain; sorted by position."""
    return examine(documents, known).problems


def examine(documents: Sequence[Document], known: KnownObjects) -> Examined:
    """As `cross_check`, with the contradictions.

    Documents that are not valid count only as definitions of their objects; and of an object that is defined
    twice the first counts, so that two copies are one problem, and not one for each of their disks.
    """
    ordered = sorted(documents, key=lambda d: (d.file, d.line))
    valid = list({(d.kind, d.name): d for d in reversed(ordered) if d.valid}.values())[::-1]
    pool = _default_pool(valid, known)
    names = _names(ordered, known)
    problems = [
        *_duplicates(ordered),
        *_shared_images(valid, pool),
        *_shared_macs(valid),
        *_start_cycles(valid),
    ]
    for document in valid:
        for finding in _references(document, names, known.controllers, pool):
            problems.append(document.problem(finding))
    found = clashes(valid, known.hosts)
    problems += [document.problem(finding) for clash in found for document, finding in clash.findings()]
    return Examined(problems=in_order(problems), clashes=found)


def _default_pool(documents: Iterable[Document], known: KnownObjects) -> str:
    for document in documents:
        if document.kind is Kind.CLUSTER:
            return str(document.spec.get("defaultPool", known.default_pool))
    return known.default_pool


def _names(documents: Iterable[Document], known: KnownObjects) -> dict[Kind, frozenset[str]]:
    """Every name of the kinds that are known, those of the documents included."""
    defined: dict[Kind, set[str]] = defaultdict(set)
    for document in documents:
        defined[document.kind].add(document.name)
    return {kind: names | defined[kind] for kind, names in known.names.items()}


def _duplicates(documents: Iterable[Document]) -> Iterator[Problem]:
    uses: dict[tuple[Kind, str], list[_Use]] = defaultdict(list)
    for document in documents:
        use = _Use(document, ("metadata", "name"), f"{document.kind} {document.name!r}")
        uses[document.kind, document.name].append(use)
    yield from _clashes(uses, "is defined twice; remove it from all but one of its files, it is also in")


def _shared_images(documents: Iterable[Document], pool: str) -> Iterator[Problem]:
    uses: dict[tuple[str, str], list[_Use]] = defaultdict(list)
    for document in documents:
        if document.kind is Kind.IMAGE and "image" in document.spec:
            key = (document.spec.get("pool", pool), document.spec["image"])
            what = f"image {key[1]!r} of pool {key[0]!r}, the template of Image {document.name!r},"
            uses[key].append(_Use(document, ("spec", "image"), what, shared=True))
        elif document.kind is Kind.VIRTUAL_MACHINE:
            for index, disk in maps(document.spec.get("disks")):
                image = disk.get("image", f"{document.name}.{disk['name']}")
                path: Path = ("spec", "disks", index, "image" if "image" in disk else "name")
                key = (disk.get("pool", pool), image)
                what = f"image {image!r} of pool {key[0]!r}"
                uses[key].append(_Use(document, path, what, shared=disk.get("readOnly") is True))
    yield from _clashes(uses, "cannot be shared with a disk that writes to it; it is also used by")


def _shared_macs(documents: Iterable[Document]) -> Iterator[Problem]:
    uses: dict[str, list[_Use]] = defaultdict(list)
    for document in documents:
        for index, interface in maps(document.spec.get("interfaces")):
            if "mac" in interface:
                mac = interface["mac"].lower()
                uses[mac].append(_Use(document, ("spec", "interfaces", index, "mac"), f"MAC address {mac}"))
    yield from _clashes(uses, "must be unique; it is also used by")


def _start_cycles(documents: Iterable[Document]) -> Iterator[Problem]:
    """VMs that wait for each other. Each of them is told of it once, where it names the next."""
    vms = {each.name: each for each in documents if each.kind is Kind.VIRTUAL_MACHINE}
    after = {name: tuple(vm.spec.get("startAfter") or ()) for name, vm in vms.items()}
    for cycle in order_of(dict.fromkeys(vms, 0), after).cycles:
        told = " after ".join((*cycle, cycle[0]))
        for name, following in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            message = f"these VMs wait for each other: {told}; take one of them out"
            path: Path = ("spec", "startAfter", after[name].index(following))
            yield vms[name].problem(Finding(path=path, message=message))


def _clashes(uses: Mapping[Any, list[_Use]], message: str) -> Iterator[Problem]:
    for users in uses.values():
        if len(users) < 2 or all(use.shared for use in users):
            continue
        for use in users:
            other = next(u for u in users if u is not use and not (u.shared and use.shared))
            line, _ = other.document.locate(other.path)
            where = f"{other.document.kind} {other.document.name!r} ({other.document.file}:{line})"
            yield use.document.problem(Finding(path=use.path, message=f"{use.what} {message} {where}"))


def _references(
    document: Document,
    names: Mapping[Kind, frozenset[str]],
    controllers: frozenset[str] | None,
    pool: str,
) -> Iterator[Finding]:
    for kind, name, path in _referred(document, pool):
        if kind in names and name not in names[kind]:
            message = f"there is no {kind} {name!r} yet{hint(name, names[kind])}"
            yield Finding(path=path, message=message, severity=Severity.WARNING)
    controller = document.spec.get("controller")
    if controllers is not None and controller is not None and controller not in controllers:
        message = f"there is no controller {controller!r} here; there are: {', '.join(sorted(controllers))}"
        yield Finding(path=("spec", "controller"), message=message, severity=Severity.WARNING)


def _referred(document: Document, pool: str) -> Iterator[tuple[Kind, str, Path]]:
    """Kind, name and place of everything that a document refers to."""
    spec = document.spec
    match document.kind:
        case Kind.VIRTUAL_MACHINE:
            for index, disk in maps(spec.get("disks")):
                yield from _disk_references(disk, ("spec", "disks", index), pool)
            for index, name in enumerate(spec.get("startAfter") or ()):
                yield Kind.VIRTUAL_MACHINE, name, ("spec", "startAfter", index)
        case Kind.PLACEMENT_CONSTRAINT:
            for part, kind in (("vms", Kind.VIRTUAL_MACHINE), ("nodes", Kind.NODE)):
                for index, name in enumerate(section(spec, part).get("names", ())):
                    yield kind, name, ("spec", part, "names", index)
        case Kind.CLUSTER if "defaultPool" in spec:
            yield Kind.STORAGE_POOL, spec["defaultPool"], ("spec", "defaultPool")
        case Kind.IMAGE if "image" in spec:
            yield Kind.STORAGE_POOL, spec.get("pool", pool), ("spec", "pool" if "pool" in spec else "image")
        case _:
            return


def _disk_references(disk: Mapping[str, Any], path: Path, pool: str) -> Iterator[tuple[Kind, str, Path]]:
    own: str = disk.get("pool", pool)
    yield Kind.STORAGE_POOL, own, (*path, "pool" if "pool" in disk else "name")
    source = section(disk, "source")
    if "image" in source:
        yield Kind.IMAGE, source["image"], (*path, "source", "image")
    clone = section(source, "clone")
    if "pool" in clone:
        yield Kind.STORAGE_POOL, clone["pool"], (*path, "source", "clone", "pool")
