"""What simulated users write: manifests in a few words.

vm web memory=2Gi       node r2 rank=0       broken web       text what you like
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from reconciler.sim.world import BadScript

FIELDS = ("runStrategy", "priority")


def manifest(words: Sequence[str]) -> bytes:
    """The bytes of a file. Raises BadScript."""
    if not words or words[0] not in _TEMPLATES:
        raise BadScript(f"write one of {', '.join(_TEMPLATES)} after the path")
    return _TEMPLATES[words[0]](list(words[1:])).encode()


def virtual_machine(name: str, *, note: str = "", **fields: str) -> bytes:
    """A guest of the dummy controller; `note` makes the bytes unique and nothing else."""
    return _vm(
        [name, *(f"{key}={value}" for key, value in fields.items()), *([f"note={note}"] * bool(note))]
    ).encode()


def _options(words: Sequence[str], allowed: Sequence[str]) -> Mapping[str, str]:
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in allowed:
            raise BadScript(f"{word!r}: write one of {', '.join(f'{name}=VALUE' for name in allowed)}")
        found[key] = value
    return found


def _named(words: list[str], what: str) -> tuple[str, list[str]]:
    if not words:
        raise BadScript(f"name the {what}")
    return words[0], words[1:]


def _vm(words: list[str]) -> str:
    name, rest = _named(words, "VM")
    given = _options(rest, (*FIELDS, "cores", "memory", "note", "disk"))
    lines = [f"# {given['note']}"] if "note" in given else []
    lines += [
        "apiVersion: vcl/v1",
        "kind: VirtualMachine",
        f"metadata: {{name: {name}}}",
        "spec:",
        "  controller: dummy",
        f"  cpu: {{cores: {given.get('cores', '1')}}}",
        f"  memory: {given.get('memory', '1Gi')}",
    ]
    lines += [f"  {key}: {given[key]}" for key in FIELDS if key in given]
    if "disk" in given:
        lines += [f"  disks: [{{name: root, pool: ceph, size: {given['disk']}}}]"]
    return "\n".join(lines) + "\n"


def _node(words: list[str]) -> str:
    name, rest = _named(words, "node")
    spec = [f"  {key}: {value}" for key, value in _options(rest, ("rank", "unschedulable")).items()]
    return (
        "\n".join(
            (
                "apiVersion: vcl/v1",
                "kind: Node",
                f"metadata: {{name: {name}}}",
                "spec:" + " {}" * (not spec),
                *spec,
            )
        )
        + "\n"
    )


def _broken(words: list[str]) -> str:
    name, _ = _named(words, "VM")
    return f"apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {{name: {name}}}\nspec: {{cpu: [\n"


def _text(words: list[str]) -> str:
    return " ".join(words) + "\n"


_TEMPLATES: Mapping[str, Callable[[list[str]], str]] = MappingProxyType(
    {"vm": _vm, "node": _node, "broken": _broken, "text": _text}
)
