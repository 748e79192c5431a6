"""The mark that vcl leaves in every domain it makes, and reading it back.

SAFETY rule 9 rests on it: a domain is ours only if its metadata carries this cluster's uid, this node and the
VM's uid. It also remembers what libvirt rewrites or hides later (the CPU that was asked for, digests of the
user's XML and of the cloud-init seed), so that `changes` can compare without guessing.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.domainxml.elements import children, number, section
from reconciler.domainxml.parse import expand, parse

NAMESPACE = "urn:vcl:domain:1"
PREFIX = "vcl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Who made a domain, and from what. All digests are hexadecimal, empty when there is nothing.

    `spec`: of the whole definition without this mark: equal digests, equal definitions. `base`: of the
    user's domainXML; `seed`: of the cloud-init files; `cpu`: the CPU asked for, as `cpu_text` says it.
    """

    cluster_uid: str
    node: str
    uid: str
    name: str
    generation: int = 0
    spec: str = ""
    base: str = ""
    seed: str = ""
    cpu: str = ""


def ownership(xml_text: str) -> Ownership | None:
    """The mark in a domain's XML; None when there is none, or one without cluster uid, node or uid.

    Raises DomainXmlInvalid when the text is not well-formed: that says nothing about ownership.
    """
    return find(parse(xml_text).root)


def find(root: ET.Element) -> Ownership | None:
    """Like `ownership`, from a tree."""
    marks = list(_marks(root))
    if len(marks) != 1:
        return None
    return _read(marks[0][1])


def plain(mark: Ownership) -> str:
    """The mark as libvirt's setMetadata wants it (adopting a domain): it adds prefix and namespace itself."""
    marked = _element(mark)
    attributes = {key: value for key, value in marked.items() if not key.startswith("xmlns:")}
    return ET.tostring(ET.Element("domain", attributes), encoding="unicode")


def put(root: ET.Element, mark: Ownership) -> None:
    """Replace any mark in the tree by this one; other metadata stays."""
    clear(root)
    section(root, "metadata").append(_element(mark))


def clear(root: ET.Element) -> None:
    """Remove every mark, and the metadata element when nothing else is in it."""
    for parent, mark in list(_marks(root)):
        parent.remove(mark)
        if len(parent) == 0:
            root.remove(parent)


def _element(mark: Ownership) -> ET.Element:
    attributes = {
        f"xmlns:{PREFIX}": NAMESPACE,
        "cluster": mark.cluster_uid,
        "node": mark.node,
        "uid": mark.uid,
        "name": mark.name,
        "generation": str(mark.generation),
        "spec": mark.spec,
        "base": mark.base,
        "seed": mark.seed,
        "cpu": mark.cpu,
    }
    return ET.Element(f"{PREFIX}:domain", {key: value for key, value in attributes.items() if value})


def _read(element: ET.Element) -> Ownership | None:
    mark = Ownership(
        cluster_uid=element.get("cluster", ""),
        node=element.get("node", ""),
        uid=element.get("uid", ""),
        name=element.get("name", ""),
        generation=number(element.get("generation")) or 0,
        spec=element.get("spec", ""),
        base=element.get("base", ""),
        seed=element.get("seed", ""),
        cpu=element.get("cpu", ""),
    )
    return mark if mark.cluster_uid and mark.node and mark.uid else None


def _marks(root: ET.Element) -> Iterator[tuple[ET.Element, ET.Element]]:
    """(metadata element, mark) pairs; prefixes are resolved, since anybody may have written the XML."""
    _, _, outer = expand(root, {})
    for metadata in children(root, "metadata"):
        _, _, scope = expand(metadata, outer)
        for element in metadata:
            namespace, local, _ = expand(element, scope)
            if namespace == NAMESPACE and local == "domain":
                yield metadata, element
