"""Between JSON-shaped mappings (camelCase) and frozen dataclasses (snake_case).

Only what vcl's own values use: scalars, StrEnums, optional values, tuples, string maps, nested dataclasses.
Unknown fields are ignored when reading: the raw mapping stays in the store, so nothing a newer
version wrote is lost (SAFETY rule 3), and the JSON Schemas refuse a user's typing errors.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, Union, cast

from reconciler.resources.errors import InvalidInput
from reconciler.resources.quantity import parse_bytes, parse_cpu

T = TypeVar("T")

_QUANTITIES: dict[str, Any] = {"bytes": parse_bytes, "cpu": parse_cpu}


def quantity(unit: str, **kwargs: Any) -> Any:
    """A dataclass field written as a quantity; `unit` is 'bytes' (an int) or 'cpu' (a float)."""
    return dataclasses.field(metadata={"quantity": unit}, **kwargs)


def renamed(name: str, **kwargs: Any) -> Any:
    """A dataclass field whose JSON name is not the camelCase of its Python name."""
    return dataclasses.field(metadata={"name": name}, **kwargs)


def camel(name: str) -> str:
    """snake_case -> camelCase."""
    head, *tail = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in tail)


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    name: str
    key: str
    type: Any
    unit: str | None
    required: bool


@cache
def _fields(cls: Any) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(cls)
    return tuple(
        _Field(
            name=f.name,
            key=f.metadata.get("name") or camel(f.name),
            type=hints[f.name],
            unit=f.metadata.get("quantity"),
            required=f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING,
        )
        for f in dataclasses.fields(cls)
    )


def decode(cls: type[T], data: Mapping[str, Any], path: str = "") -> T:
    """Build a `cls` from a mapping. Raises InvalidInput that names the path of what does not fit."""
    if not isinstance(data, Mapping):
        raise InvalidInput(f"{path or cls.__name__}: must be a map, got {type(data).__name__}")
    values: dict[str, Any] = {}
    for field in _fields(cast(Any, cls)):
        where = f"{path}.{field.key}" if path else field.key
        raw = data.get(field.key)
        if raw is None:
            if field.required:
                raise InvalidInput(f"{where}: is required")
            continue
        values[field.name] = _decode_field(field, raw, where)
    return cls(**values)


def _decode_field(field: _Field, raw: Any, where: str) -> Any:
    if field.unit is None:
        return _decode_value(field.type, raw, where)
    try:
        return _QUANTITIES[field.unit](raw)
    except ValueError as error:
        raise InvalidInput(f"{where}: {error}") from error


def _decode_value(kind: Any, raw: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        inner = [a for a in typing.get_args(kind) if a is not type(None)]
        return _decode_value(inner[0], raw, where)
    if origin is tuple:
        if not isinstance(raw, (list, tuple)):
            raise InvalidInput(f"{where}: must be a list, got {type(raw).__name__}")
        item = typing.get_args(kind)[0]
        return tuple(_decode_value(item, value, f"{where}[{i}]") for i, value in enumerate(raw))
    if origin is not None:  # Mapping[str, X]
        if not isinstance(raw, Mapping):
            raise InvalidInput(f"{where}: must be a map, got {type(raw).__name__}")
        item = typing.get_args(kind)[1]
        return {str(k): _decode_value(item, v, f"{where}.{k}") for k, v in raw.items()}
    return _decode_scalar(kind, raw, where)


def _decode_scalar(kind: Any, raw: Any, where: str) -> Any:
    if kind is Any:
        return raw
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return decode(kind, raw, where)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        try:
            return kind(raw)
        except ValueError as error:
            allowed = ", ".join(member.value for member in kind)
            raise InvalidInput(f"{where}: must be one of {allowed}, got {raw!r}") from error
    if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if isinstance(raw, kind) and (kind is bool or not isinstance(raw, bool)):
        return raw
    raise InvalidInput(f"{where}: must be {kind.__name__}, got {raw!r}")


def encode(value: Any) -> Any:
    """The JSON-shaped form of a value; None and empty collections are left out of maps, unless required."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out: dict[str, Any] = {}
        for field in _fields(type(value)):
            item = getattr(value, field.name)
            if item is None or (not field.required and item in ((), {})):
                continue
            out[field.key] = encode(item)
        return out
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    return value
