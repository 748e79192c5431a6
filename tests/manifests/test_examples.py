"""The examples in manifests/ are valid, refer to nothing in vain, and can be used as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reconciler.adapters.schema_files import load_schemas
from reconciler.domainxml.build import GuestPaths, HostProfile, UefiFirmware, build
from reconciler.resources.codec import decode
from reconciler.resources.crosscheck import KnownObjects, cross_check
from reconciler.resources.domains import AttachedDisk, StartRequest
from reconciler.resources.kinds import WRITTEN, Kind, info_for
from reconciler.resources.manifest import Document, ParsedFile, parse_manifest
from reconciler.resources.problems import render
from reconciler.resources.virtualmachine import DiskFormat, RunStrategy, VirtualMachineSpec

ROOT = Path(__file__).parents[2] / "manifests"
FILES = sorted(path for path in ROOT.rglob("*") if path.suffix in (".yaml", ".yml", ".json"))
MODELINE = re.compile(r"# yaml-language-server: \$schema=(\S+)\n")
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def parse(path: Path) -> ParsedFile:
    return parse_manifest(str(path.relative_to(ROOT)), path.read_bytes(), load_schemas())


def test_there_are_examples_for_every_kind() -> None:
    kinds = {document.kind for path in FILES for document in parse(path).documents}
    assert kinds == set(WRITTEN)
    assert len(list(ROOT.glob("*.yaml"))) >= 6


@every_file
def test_an_example_has_no_problems_not_even_warnings(path: Path) -> None:
    parsed = parse(path)
    assert [render(problem) for problem in parsed.problems] == []
    assert parsed.documents


@every_file
def test_an_example_names_its_schema_for_editors(path: Path) -> None:
    match = MODELINE.match(path.read_text(encoding="utf-8"))
    assert match is not None
    named = (path.parent / match[1]).resolve()
    assert named.is_file()
    assert named.name in {f"{info_for(document.kind).singular}.json" for document in parse(path).documents}


@every_file
def test_an_example_says_what_it_is_for(path: Path) -> None:
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    assert len(comments) >= 2


@every_file
def test_the_virtual_machines_of_an_example_can_be_decoded(path: Path) -> None:
    for document in parse(path).documents:
        if document.kind is Kind.VIRTUAL_MACHINE:
            spec = decode(VirtualMachineSpec, document.spec)
            assert spec.memory >= 2**20
            assert spec.run_strategy in RunStrategy


def test_all_examples_can_be_applied_together() -> None:
    documents = [document for path in FILES for document in parse(path).documents]
    nothing = KnownObjects(
        names={kind: frozenset() for kind in Kind}, controllers=frozenset({"libvirt", "dummy"})
    )
    assert [render(problem) for problem in cross_check(documents, nothing)] == []


@every_file
def test_a_virtual_machine_of_an_example_makes_a_domain(path: Path) -> None:
    host = HostProfile(
        virtualization="qemu",
        machine_types={"q35": "pc-q35-7.2"},
        uefi=UefiFirmware(loader="/firmware/code.fd", nvram_template="/firmware/vars.fd"),
    )
    places = GuestPaths(console_log="/run/console.log", seed_image="/run/seed.iso", nvram="/pool/nvram.fd")
    for document in parse(path).documents:
        if document.kind is Kind.VIRTUAL_MACHINE:
            definition = build(_request(document), host, places)
            assert f"<name>{document.name}</name>" in definition.document


def _request(document: Document) -> StartRequest:
    spec = decode(VirtualMachineSpec, document.spec)
    disks = tuple(
        AttachedDisk(
            name=disk.name,
            path=f"/pool/{disk.image_name(document.name)}",
            format=disk.format or DiskFormat.QCOW2,
            read_only=disk.read_only,
        )
        for disk in spec.disks
    )
    uid = "4a0ff6d6-4c49-4f2a-a3d5-0a7d6f3f9f10"
    return StartRequest(
        name=document.name, uid=uid, cluster_uid=uid, node="r1", generation=1, spec=spec, disks=disks
    )
