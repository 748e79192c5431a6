"""What a field means, from its kind's schema: the data behind `vcl explain vm.spec.disks`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.resources.errors import NotFound
from reconciler.resources.schemawords import QUANTITY
from reconciler.resources.suggest import meant_field


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One field. `default` is None when there is none; `allowed` are the values it may have, if they can be
    listed; `children` the fields of a map, of a list's items or of a map's values."""

    field: str
    type: str
    description: str
    required: bool = False
    default: Any = None
    allowed: tuple[str, ...] = ()
    range: str = ""
    examples: tuple[Any, ...] = ()
    children: tuple[Explanation, ...] = ()


def explain(schema: Mapping[str, Any], path: tuple[str, ...] = ()) -> Explanation:
    """The field at `path` of a kind's schema; lists are passed through: ('spec', 'disks', 'size').

    Raises NotFound, which names the field that was probably meant.
    """
    kind = name = str(schema.get("title", ""))
    required = False
    for depth, part in enumerate(path):
        parent = _inner(schema)
        if part not in parent.get("properties", {}):
            raise _not_found(part, path[:depth], parent, kind)
        name, required = part, part in parent.get("required", ())
        schema = parent["properties"][part]
    return _explain(name, schema, required)


def type_name(schema: Mapping[str, Any]) -> str:
    """The type as `kubectl explain` writes it: string, quantity, Object, []Object, map[string]string."""
    if QUANTITY in schema:
        return "quantity"
    match schema.get("type"):
        case "array":
            return f"[]{type_name(schema['items'])}"
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"map[string]{type_name(schema['additionalProperties'])}"
        case "object":
            return "Object"
        case None:
            return "any"
        case other:
            return str(other)


def _inner(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object that holds the fields: the schema itself, or that of a list's items."""
    while schema.get("type") == "array":
        schema = schema["items"]
    return schema


def _explain(name: str, schema: Mapping[str, Any], required: bool) -> Explanation:
    inner = _inner(schema)
    needed = inner.get("required", ())
    return Explanation(
        field=name,
        type=type_name(schema),
        description=schema.get("description", ""),
        required=required,
        default=schema.get("default"),
        allowed=tuple(str(value) for value in schema.get("enum", ())),
        range=_range(schema),
        examples=tuple(schema.get("examples", ())),
        children=tuple(
            _explain(child, sub, child in needed) for child, sub in inner.get("properties", {}).items()
        ),
    )


def _range(schema: Mapping[str, Any]) -> str:
    limits = schema.get(QUANTITY, schema)
    low, high = limits.get("minimum"), limits.get("maximum")
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else ""


def _not_found(part: str, above: tuple[str, ...], schema: Mapping[str, Any], kind: str) -> NotFound:
    where = ".".join((kind, *above))
    guess = meant_field(part, schema)
    fields = ", ".join(schema.get("properties", ())) or "none"
    cure = f"did you mean '{guess}'?" if guess else f"its fields are: {fields}"
    return NotFound(f"{where} has no field {part!r}", cure=cure)
