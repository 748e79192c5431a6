"""From a JSON Schema to the text of `vcl explain`, laid out as kubectl does it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from reconciler.adapters.schema_files import load_schema
from vcl.session import UsageError
from vcl.targets import kind_named

Schema = Mapping[str, Any]
WIDTH = 76


def explain(path: str, *, recursive: bool) -> str:
    """The text for `KIND.field.field`. UsageError names the fields that exist."""
    word, *fields = path.replace("[]", "").strip(".").split(".")
    info = kind_named(word)
    root: Schema = load_schema(info.kind)
    schema = resolve(root, root)
    for index, field in enumerate(fields):
        schema = _child(root, schema, field, ".".join([word, *fields[:index]]))
    lines = [f"KIND:       {info.kind}", "VERSION:    vcl/v1", ""]
    if fields:
        lines += [f"FIELD: {fields[-1]} <{type_name(root, schema)}>", ""]
    lines += ["DESCRIPTION:", *_text(_describe(schema), 4)]
    lines += ["", *_constraints(schema)] if _constraints(schema) else []
    if properties(root, schema):
        lines += ["", "FIELDS:", *_fields(root, schema, recursive=recursive)]
    return "\n".join(lines).rstrip() + "\n"


def resolve(root: Schema, schema: Schema) -> Schema:
    """The schema that a `$ref` within the same file points to, its own words kept on top."""
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return schema
    target: Any = root
    for part in reference[2:].split("/"):
        target = target[part.replace("~1", "/").replace("~0", "~")]
    return {**resolve(root, target), **{k: v for k, v in schema.items() if k != "$ref"}}


def properties(root: Schema, schema: Schema) -> Mapping[str, Schema]:
    """The fields of an object, of a list's items, or of a map's values."""
    schema = resolve(root, schema)
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict) and not schema.get("properties"):
            return properties(root, inner)
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def required(root: Schema, schema: Schema) -> frozenset[str]:
    """The fields that must be there."""
    schema = resolve(root, schema)
    if isinstance(schema.get("items"), dict):
        return required(root, schema["items"])
    return frozenset(schema.get("required") or ())


def type_name(root: Schema, schema: Schema) -> str:
    """kubectl's word for a type: string, integer, Object, []Object, map[string]string."""
    schema = resolve(root, schema)
    kind = schema.get("type")
    if isinstance(kind, list):
        return " or ".join(str(one) for one in kind)
    if kind == "array":
        return f"[]{type_name(root, schema.get('items') or {})}"
    if kind == "object" or "properties" in schema:
        values = schema.get("additionalProperties")
        if isinstance(values, dict) and not schema.get("properties"):
            return f"map[string]{type_name(root, values)}"
        return "Object"
    if kind is None and "const" in schema:
        return "string"
    return str(kind or "any")


def _child(root: Schema, schema: Schema, field: str, where: str) -> Schema:
    known = properties(root, schema)
    if field not in known:
        near = get_close_matches(field, known, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        fields = f"its fields are: {', '.join(sorted(known))}" if known else "it has no fields"
        raise UsageError(f"{where} has no field '{field}'", cure=hint + fields)
    return resolve(root, known[field])


def _fields(root: Schema, schema: Schema, *, recursive: bool, level: int = 1) -> Iterator[str]:
    needed = required(root, schema)
    for name, raw in sorted(properties(root, schema).items()):
        field = resolve(root, raw)
        mark = " -required-" if name in needed else ""
        yield f"{'  ' * level}{name}\t<{type_name(root, field)}>{mark}"
        if recursive:
            yield from _fields(root, field, recursive=True, level=level + 1)
        else:
            yield from _text(_describe(field), 4)
            yield from _constraints(field)
            yield ""


def _describe(schema: Schema) -> str:
    return str(schema.get("description") or "<no description>")


def _constraints(schema: Schema) -> list[str]:
    lines = []
    if schema.get("enum"):
        lines.append(f"One of: {', '.join(str(value) for value in schema['enum'])}")
    if "default" in schema and schema["default"] not in ({}, []):
        lines.append(f"Default: {_plain(schema['default'])}")
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        lines.append(f"Range: {'' if low is None else low}..{'' if high is None else high}")
    if schema.get("examples"):
        lines.append(f"Example: {', '.join(_plain(value) for value in schema['examples'])}")
    return [line for text in lines for line in _text(text, 4)]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text(text: str, indent: int) -> list[str]:
    pad = " " * indent
    return [
        line
        for part in text.splitlines()
        for line in textwrap.wrap(
            part, WIDTH, initial_indent=pad, subsequent_indent=pad, break_long_words=False
        )
    ]
