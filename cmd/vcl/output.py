"""The formats of `-o`, as kubectl spells them, and how objects are printed in each."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.resources.kinds import find_kind
from vcl.session import UsageError
from vcl.table import clean, render

Object = dict[str, Any]

PLAIN = ("wide", "yaml", "json", "name")
WITH_ARGUMENT = ("jsonpath", "custom-columns")
ALLOWED = "wide, yaml, json, name, jsonpath=TEMPLATE, custom-columns=HEADER:PATH,..."
HELP = f"One of {ALLOWED}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """`name` is empty for the default, a table for people."""

    name: str = ""
    argument: str = ""

    @property
    def is_table(self) -> bool:
        """Whether the daemon's Table is what is printed."""
        return self.name in ("", "wide")


def parse_format(text: str, allowed: Sequence[str] = (*PLAIN, *WITH_ARGUMENT)) -> Format:
    """The format that `-o TEXT` means. Raises UsageError that names the ones allowed here."""
    name, equals, argument = text.partition("=")
    if name not in ("", *allowed) or (equals and name not in WITH_ARGUMENT):
        choices = ALLOWED if len(allowed) > 4 else ", ".join(allowed)
        raise UsageError(f"there is no output format '{text}'", cure=f"use one of {choices}")
    if name in WITH_ARGUMENT and not argument:
        example = "jsonpath={.metadata.name}" if name == "jsonpath" else "custom-columns=NAME:.metadata.name"
        raise UsageError(f"-o {name} needs a template", cure=f"write -o '{example}'")
    return Format(name=name, argument=argument)


def printer(chosen: Format, *, headers: bool = True) -> Callable[[Any], None]:
    """A function that prints one object or List; its template is read now, so errors come first."""
    match chosen.name:
        case "json":
            return _print_json
        case "yaml":
            return lambda document: _write(to_yaml(document))
        case "name":
            return lambda document: _write("".join(f"{type_name(item)}\n" for item in items_of(document)))
        case "jsonpath":
            from vcl.jsonpath import evaluate, parse

            nodes = parse(chosen.argument)
            return lambda document: _write(evaluate(nodes, document))
        case "custom-columns":
            columns = _columns(chosen.argument)
            return lambda document: _write(render(columns(items_of(document), headers)))
    raise UsageError(f"-o {chosen.name} is not for this", cure=f"use one of {ALLOWED}")


def items_of(document: Any) -> list[Object]:
    """The objects of a List, or the object itself."""
    if str(document.get("kind", "")).endswith("List"):
        return list(document.get("items") or [])
    return [document]


def list_of(objects: Sequence[Object]) -> Object:
    """kubectl's List around several objects."""
    return {
        "apiVersion": "vcl/v1",
        "kind": "List",
        "metadata": {"resourceVersion": ""},
        "items": list(objects),
    }


def type_name(item: Object) -> str:
    """`virtualmachine/web` of an object."""
    return named(str(item.get("kind", "")), str((item.get("metadata") or {}).get("name", "")))


def named(kind: str, name: str) -> str:
    """`virtualmachine/web` of a kind's name in any form and a name."""
    info = find_kind(kind)
    return f"{info.singular if info else kind.lower()}/{name}"


def to_yaml(document: Any) -> str:
    """Block-style YAML in the order of the object; texts of several lines as they were written."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=2**20)


def _print_json(document: Any) -> None:
    _write(json.dumps(document, indent=4, ensure_ascii=False) + "\n")


def _write(text: str) -> None:
    sys.stdout.write(text)


def _columns(spec: str) -> Callable[[list[Object], bool], list[tuple[str, ...]]]:
    from vcl.jsonpath import find, parse_path, text_of

    columns = []
    for part in _column_parts(spec):
        header, colon, path = part.partition(":")
        if not colon or not header or not path:
            raise UsageError(
                f"'{part}' is not a column", cure="write HEADER:.path.to.field, with commas between"
            )
        columns.append((header, parse_path(path)))

    def rows(items: list[Object], headers: bool) -> list[tuple[str, ...]]:
        found = [
            tuple(clean(",".join(text_of(v) for v in find(path, item))) or "<none>" for _, path in columns)
            for item in items
        ]
        return [tuple(header for header, _ in columns), *found] if headers else found

    return rows


def _column_parts(spec: str) -> list[str]:
    """The columns between commas; commas in brackets belong to a path."""
    parts, depth, current = [], 0, ""
    for char in spec:
        depth += (char in "[(") - (char in "])")
        if char == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += char
    return [*parts, current]
