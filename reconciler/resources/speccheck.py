"""What a JSON Schema cannot say: rules between the fields of one object.

Every check tolerates any shape: the schema has its own word on that, and all problems are reported at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from reconciler.resources.kinds import Kind
from reconciler.resources.problems import Finding, Path, Severity
from reconciler.resources.quantity import parse_bytes

Spec = Mapping[str, Any]

_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")


def check_spec(kind: Kind, name: str, spec: Spec) -> tuple[Finding, ...]:
    """What does not fit together in an object's spec (paths start with 'spec') or name."""
    match kind:
        case Kind.VIRTUAL_MACHINE:
            return tuple(_virtual_machine(spec))
        case Kind.PLACEMENT_CONSTRAINT:
            return tuple(_constraint(spec))
        case Kind.CLUSTER:
            return tuple(_cluster(name))
        case Kind.STORAGE_POOL:
            return tuple(pool_sections(spec))
        case Kind.IMAGE:
            return tuple(_image(spec))
        case Kind.NODE | Kind.FAILOVER | Kind.MIGRATION:
            return ()


def maps(value: Any) -> tuple[tuple[int, Mapping[str, Any]], ...]:
    """The maps of a list, with their indexes; nothing when it is no list."""
    if not isinstance(value, list):
        return ()
    return tuple((index, item) for index, item in enumerate(value) if isinstance(item, dict))


def section(spec: Spec, name: str) -> Mapping[str, Any]:
    """The map in a field, or an empty one."""
    value = spec.get(name)
    return value if isinstance(value, dict) else {}


def _virtual_machine(spec: Spec) -> Iterator[Finding]:
    yield from _twice(spec, "disks", "name", "two disks are called {0!r}; their names must differ")
    yield from _twice(spec, "interfaces", "name", "two interfaces are called {0!r}; their names must differ")
    for index, disk in maps(spec.get("disks")):
        yield from _disk(("spec", "disks", index), disk)
    for index, interface in maps(spec.get("interfaces")):
        yield from _interface(("spec", "interfaces", index), interface)
    yield from _maxima(spec)
    yield from _cloud_init(section(spec, "cloudInit"))
    if isinstance(spec.get("domainXML"), str):
        yield from _domain_xml(spec["domainXML"])


def _maxima(spec: Spec) -> Iterator[Finding]:
    cpu = section(spec, "cpu")
    cores, most = cpu.get("cores"), cpu.get("maxCores")
    if isinstance(cores, int) and isinstance(most, int) and most < cores:
        message = f"{most} is less than cores ({cores}); raise it, or leave it out"
        yield Finding(path=("spec", "cpu", "maxCores"), message=message)
    memory, roof = _bytes(spec.get("memory")), _bytes(spec.get("maxMemory"))
    if memory is not None and roof is not None and roof < memory:
        message = f"{spec['maxMemory']} is less than memory ({spec['memory']}); raise it, or leave it out"
        yield Finding(path=("spec", "maxMemory"), message=message)


def _bytes(value: Any) -> int | None:
    try:
        return parse_bytes(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    except ValueError:
        return None


def _twice(spec: Spec, field: str, key: str, message: str) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, item in maps(spec.get(field)):
        value = item.get(key)
        if not isinstance(value, str):
            continue
        if value in seen:
            yield Finding(path=("spec", field, index, key), message=message.format(value[:70]))
        seen.add(value)


def _disk(path: Path, disk: Mapping[str, Any]) -> Iterator[Finding]:
    source = section(disk, "source")
    if "blank" not in source:
        return
    if "size" not in disk:
        message = "is required for a blank disk, for example 'size: 20Gi'"
        yield Finding(path=(*path, "size"), message=message, at_key=True)
    if disk.get("readOnly") is True:
        message = "a blank disk that cannot be written is of no use; remove readOnly, or name another source"
        yield Finding(path=(*path, "readOnly"), message=message)


def _interface(path: Path, interface: Mapping[str, Any]) -> Iterator[Finding]:
    if "bridge" in interface and "network" in interface:
        message = "an interface is on a bridge or on a network, not on both; remove one of the two"
        yield Finding(path=(*path, "network"), message=message, at_key=True)
    mac = interface.get("mac")
    if not isinstance(mac, str) or _MAC.fullmatch(mac) is None:
        return
    if int(mac[1], 16) % 2:
        message = f"{mac!r} is a multicast address; the second digit must be even, as in 52:54:00:12:34:56"
        yield Finding(path=(*path, "mac"), message=message)
    elif mac == "00:00:00:00:00:00":
        yield Finding(path=(*path, "mac"), message="the address is all zero; leave 'mac' out to get one")


_USER_DATA = (
    "#cloud-config",
    "#!",
    "#include",
    "#cloud-boothook",
    "#part-handler",
    "Content-Type:",
    "MIME-Version:",
    "## template:",
)


def _cloud_init(cloud_init: Mapping[str, Any]) -> Iterator[Finding]:
    user_data = cloud_init.get("userData")
    if isinstance(user_data, str) and user_data.strip() and not user_data.startswith(_USER_DATA):
        message = "cloud-init ignores user data that does not start with '#cloud-config', '#!' or the like"
        path = ("spec", "cloudInit", "userData")
        yield Finding(path=path, message=message, severity=Severity.WARNING)


def _domain_xml(text: str) -> Iterator[Finding]:
    """Only whether it is a <domain> at all: domainxml/ judges what is in it, when the host is known."""
    path = ("spec", "domainXML")
    if "<!DOCTYPE" in text:
        yield Finding(path=path, message="must not have a document type (<!DOCTYPE ...>); remove it")
        return
    try:
        root = ElementTree.fromstring(text.lstrip())
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: odd encodings
        yield Finding(
            path=path, message=f"is not well-formed XML: {error} (counted from where the XML starts)"
        )
        return
    tag = root.tag.rpartition("}")[2]
    if tag != "domain":
        yield Finding(path=path, message=f"must be a libvirt <domain>, got <{tag[:40]}>")


def _constraint(spec: Spec) -> Iterator[Finding]:
    type_ = spec.get("type")
    on_nodes = type_ in ("NodeAffinity", "NodeAntiAffinity")
    if on_nodes and not section(spec, "nodes"):
        message = f"is required for {type_}, for example 'nodes: {{names: [r1]}}'"
        yield Finding(path=("spec", "nodes"), message=message, at_key=True)
    if isinstance(type_, str) and not on_nodes and section(spec, "nodes"):
        yield _no_effect("nodes", "type NodeAffinity or NodeAntiAffinity")
    for field in ("topologyKey", "maxSkew"):
        if field in spec and isinstance(type_, str) and type_ != "Spread":
            yield _no_effect(field, "type Spread")
    for field in ("vms", "nodes"):
        selector = section(spec, field)
        yield from _selector(("spec", field), selector)


def _no_effect(field: str, needs: str) -> Finding:
    message = f"has no effect without {needs}"
    return Finding(path=("spec", field), message=message, at_key=True, severity=Severity.WARNING)


def _selector(path: Path, selector: Mapping[str, Any]) -> Iterator[Finding]:
    if selector and not any(selector.get(part) for part in ("names", "matchLabels", "matchExpressions")):
        yield Finding(
            path=path, message="selects nothing; give names, matchLabels or matchExpressions", at_key=True
        )
    for index, expression in maps(selector.get("matchExpressions")):
        where = (*path, "matchExpressions", index, "values")
        operator, values = expression.get("operator"), expression.get("values")
        if operator in ("In", "NotIn") and not values:
            yield Finding(path=where, message=f"is required for operator {operator}", at_key=True)
        if operator in ("Exists", "DoesNotExist") and values:
            yield Finding(path=where, message=f"must be absent for operator {operator}", at_key=True)


def _cluster(name: str) -> Iterator[Finding]:
    if name != "cluster":
        message = "there is one Cluster, and its name is 'cluster'"
        yield Finding(path=("metadata", "name"), message=message)


def pool_sections(spec: Spec, where: Path = ("spec",)) -> Iterator[Finding]:
    """A StoragePool's spec, found at `where`: it has the section of its type, and no other."""
    type_ = spec.get("type")
    if type_ not in ("directory", "rbd"):
        return
    other = "rbd" if type_ == "directory" else "directory"
    if type_ not in spec:
        example = "{path: /var/lib/vcl/images}" if type_ == "directory" else "{pool: vms}"
        message = f"is required for type {type_}, for example '{type_}: {example}'"
        yield Finding(path=(*where, type_), message=message, at_key=True)
    if other in spec:
        message = f"does not belong to type {type_}; remove it, or write 'type: {other}'"
        yield Finding(path=(*where, other), message=message, at_key=True)


def _image(spec: Spec) -> Iterator[Finding]:
    if ("image" in spec) == ("path" in spec):
        message = "must have exactly one of image and path"
        yield Finding(path=("spec",), message=message, at_key=True)
    if "pool" in spec and "image" not in spec:
        message = "belongs to 'image', which is not there"
        yield Finding(path=("spec", "pool"), message=message, at_key=True)
