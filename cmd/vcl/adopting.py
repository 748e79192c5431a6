"""From what `vcl adopt --from` names to manifests: reading domains, matching pools, writing YAML.

Nothing is changed here. Each manifest begins with comments that tell where it comes from and what a person
should know; they stay in the file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.domainxml.adopt import Adopted, Places, adopt
from reconciler.resources.codec import decode
from reconciler.resources.errors import InvalidInput, VclError
from reconciler.resources.infrastructure import StoragePoolSpec
from reconciler.resources.kinds import Kind, info_for
from reconciler.resources.virtualmachine import RunStrategy
from vcl import output
from vcl.client import Client
from vcl.inputs import STDIN
from vcl.session import UsageError

_URI = re.compile(r"[a-z][a-z0-9+.-]*://.*")
_WIDTH = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One domain's XML. `label`: where it is from, for messages; `live`: of its run, if it runs there."""

    label: str
    document: str
    name: str = ""
    live: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One adopted domain and the text of its manifest. `running`: it is known to run."""

    source: str
    vm: Adopted
    text: str
    running: bool

    def object(self) -> dict[str, Any]:
        """The manifest as an object."""
        return _object(self.vm)


@dataclass(slots=True)
class Found:
    """The manifests, and an error for each domain that none could be made of."""

    manifests: list[Manifest] = field(default_factory=list)
    errors: list[VclError] = field(default_factory=list)


def is_uri(text: str) -> bool:
    """Whether a `--from` is a libvirt URI; otherwise it is a file."""
    return _URI.fullmatch(text) is not None


def read_sources(origins: Sequence[str], names: Sequence[str]) -> tuple[list[Source], list[VclError]]:
    """The domains that are there, by their origins. Without names: all of them."""
    sources: list[Source] = []
    errors: list[VclError] = []
    missing = dict.fromkeys(names)
    for origin in origins:
        try:
            found = list(_of_libvirt(origin, names) if is_uri(origin) else _of_file(origin, names))
        except VclError as error:
            errors.append(error)
            continue
        sources += found
        for source in found:
            missing.pop(source.name, None)
    if not errors:
        errors += [
            InvalidInput(
                f"there is no domain '{name}' in {', '.join(origins)}", cure="virsh list --all shows them"
            )
            for name in missing
        ]
    return sources, errors


def _of_libvirt(uri: str, names: Sequence[str]) -> Iterator[Source]:
    from reconciler.adapters.libvirt.existing import read_domains

    for domain in read_domains(uri, names):
        yield Source(
            label=f"{uri} {domain.name}", name=domain.name, document=domain.document, live=domain.live
        )


def _of_file(path: str, names: Sequence[str]) -> Iterator[Source]:
    from reconciler.domainxml.read import describe_xml

    label = STDIN if path == "-" else path
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        text = data.decode()
    except OSError as error:
        raise InvalidInput(
            f"cannot read {path}: {error.strerror}", cure="check the path and the rights"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{label} is not UTF-8", cure="save it as UTF-8") from error
    try:
        name = describe_xml(text).name
    except VclError as error:
        raise InvalidInput(
            f"{label}: {error}", cure="virsh dumpxml --inactive NAME prints what is needed"
        ) from error
    if not names or name in names:
        yield Source(label=label, name=name, document=text)


def places_of(client: Client) -> Places:
    """The cluster's StoragePools."""
    pools: dict[str, StoragePoolSpec] = {}
    for item in client.objects(info_for(Kind.STORAGE_POOL)).get("items") or []:
        if item.get("spec"):
            pools[str(item["metadata"]["name"])] = decode(StoragePoolSpec, item["spec"])
    clusters = client.objects(info_for(Kind.CLUSTER)).get("items") or []
    default = next((c["spec"].get("defaultPool") for c in clusters if c.get("spec")), None)
    return Places(pools=pools, default=str(default or "default"))


def parse_renames(texts: Sequence[str]) -> Mapping[str, str]:
    """OLD=NEW pairs; the last '=' divides, as only OLD may contain others."""
    found = {}
    for text in texts:
        old, equals, new = text.rpartition("=")
        if not equals or not old or not new:
            raise UsageError(
                f"--rename {text}: what becomes what?", cure="write --rename 'OLD NAME=new-name'"
            )
        found[old] = new
    return found


def make_manifests(
    sources: Sequence[Source], places: Places, renames: Mapping[str, str], strategy: RunStrategy | None
) -> Found:
    """A manifest for each domain, as far as there can be one. Without a `strategy`, what runs is to run
    always, and what is off stays off."""
    found = Found()
    taken: dict[str, str] = {}
    for source in sources:
        try:
            manifest = _make(source, places, renames, strategy)
        except VclError as error:
            found.errors.append(_about(source.label, error))
            continue
        other = taken.setdefault(manifest.vm.name, source.label)
        if other != source.label:
            found.errors.append(
                InvalidInput(
                    f"{source.label}: {other} is to be the VM '{manifest.vm.name}' as well",
                    cure=f"adopt one of them under another name: --rename '{source.name}=NAME'",
                )
            )
            continue
        found.manifests.append(manifest)
    return found


def _make(
    source: Source, places: Places, renames: Mapping[str, str], strategy: RunStrategy | None
) -> Manifest:
    running = bool(source.live)
    wanted = strategy or (RunStrategy.ALWAYS if running else RunStrategy.MANUAL)
    vm = adopt(
        source.document, places, name=renames.get(source.name, ""), run_strategy=wanted, live=source.live
    )
    return Manifest(source=source.label, vm=vm, text=_text(source, vm), running=running)


def _about(label: str, error: VclError) -> VclError:
    return InvalidInput(f"{label}: {error.message}", cure=error.cure)


def _object(vm: Adopted) -> dict[str, Any]:
    return {
        "apiVersion": "vcl/v1",
        "kind": Kind.VIRTUAL_MACHINE.value,
        "metadata": {"name": vm.name},
        "spec": vm.spec,
    }


def _text(source: Source, vm: Adopted) -> str:
    """The YAML, below what a person should know of it."""
    head = [f"- its UUID is {vm.uuid}"] if vm.uuid else []
    if source.live and "runStrategy" in vm.spec:
        head.append("- it ran when this was read: shut it down there before vcl starts it")
    head += [f"- {'only on its host: ' if remark.pins else ''}{remark}" for remark in vm.remarks]
    comments = [f"Adopted from {source.label}", *(line for text in head for line in _wrapped(text))]
    return "".join(f"# {line}\n" for line in comments) + output.to_yaml(_object(vm))


def _wrapped(text: str) -> list[str]:
    import textwrap

    plain = " ".join(text.split())
    return textwrap.wrap(
        plain, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
