"""Between JSON-shaped mappings (camelCase) and frozen dataclasses (snake_case).

Only what vcl's own values use: scalars, StrEnums, optional values, tuples, string maps, nested dataclasses.
Unknown fields are ignored when reading: the raw mapping stays in the store, so nothing a newer
version wrote is lost (SAFETY rule 3), and the JSON Schemas refuse a user's typing errors.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache, partial
from typing import Any, TypeAlias, TypeVar, Union, cast

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
    decoder: Callable[[Any, Any], Any]
    required: bool


@cache
def _fields(cls: Any) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(cls)
    return tuple(
        _Field(
            name=f.name,
            key=f.metadata.get("name") or camel(f.name),
            decoder=_field_decoder(hints[f.name], f.metadata.get("quantity")),
            required=f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING,
        )
        for f in dataclasses.fields(cls)
    )


def decode(cls: type[T], data: Mapping[str, Any], path: str = "") -> T:
    """Build a `cls` from a mapping. Raises InvalidInput that names the path of what does not fit."""
    return cast(T, _decode_class(cls, data, (None, path) if path else None))


_Where: TypeAlias = "tuple[Any, str] | None"
"""The way to a value: (the way to its parent, its own name). Put into words only when something is wrong."""
_Decoder: TypeAlias = Callable[[Any, _Where], Any]


def _words(where: _Where) -> str:
    if where is None:
        return ""
    parent, name = _words(where[0]), where[1]
    return parent + name if not parent or name.startswith("[") else f"{parent}.{name}"


def _decode_class(cls: Any, data: Any, where: _Where) -> Any:
    if not isinstance(data, Mapping):
        raise InvalidInput(f"{_words(where) or cls.__name__}: must be a map, got {type(data).__name__}")
    values: dict[str, Any] = {}
    for field in _fields(cls):
        raw = data.get(field.key)
        if raw is None:
            if field.required:
                raise InvalidInput(f"{_words((where, field.key))}: is required")
            continue
        values[field.name] = field.decoder(raw, (where, field.key))
    return cls(**values)


def _field_decoder(kind: Any, unit: str | None) -> _Decoder:
    return _decoder(kind) if unit is None else _quantity_decoder(unit)


def _quantity_decoder(unit: str) -> _Decoder:
    parse = _QUANTITIES[unit]

    def decoder(raw: Any, where: _Where) -> Any:
        try:
            return parse(raw)
        except ValueError as error:
            raise InvalidInput(f"{_words(where)}: {error}") from error

    return decoder


@cache
def _decoder(kind: Any) -> _Decoder:
    """How a value of this type is read; worked out once for each type."""
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        inner = [a for a in typing.get_args(kind) if a is not type(None)]
        return _decoder(inner[0])
    if origin is tuple:
        return _tuple_decoder(_decoder(typing.get_args(kind)[0]))
    if origin is not None:  # Mapping[str, X]
        return _map_decoder(_decoder(typing.get_args(kind)[1]))
    if kind is Any:
        return lambda raw, where: raw
    if dataclasses.is_dataclass(kind):
        return partial(_decode_class, kind)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return partial(_decode_enum, kind)
    return partial(_decode_scalar, kind)


def _tuple_decoder(item: _Decoder) -> _Decoder:
    def decoder(raw: Any, where: _Where) -> Any:
        if not isinstance(raw, (list, tuple)):
            raise InvalidInput(f"{_words(where)}: must be a list, got {type(raw).__name__}")
        return tuple(item(value, (where, f"[{i}]")) for i, value in enumerate(raw))

    return decoder


def _map_decoder(item: _Decoder) -> _Decoder:
    def decoder(raw: Any, where: _Where) -> Any:
        if not isinstance(raw, Mapping):
            raise InvalidInput(f"{_words(where)}: must be a map, got {type(raw).__name__}")
        return {str(k): item(v, (where, str(k))) for k, v in raw.items()}

    return decoder


def _decode_enum(kind: type[StrEnum], raw: Any, where: _Where) -> Any:
    try:
        return kind(raw)
    except ValueError as error:
        allowed = ", ".join(member.value for member in kind)
        raise InvalidInput(f"{_words(where)}: must be one of {allowed}, got {raw!r}") from error


def _decode_scalar(kind: type, raw: Any, where: _Where) -> Any:
    if type(raw) is kind:
        return raw
    if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if isinstance(raw, kind) and (kind is bool or not isinstance(raw, bool)):
        return raw
    raise InvalidInput(f"{_words(where)}: must be {kind.__name__}, got {raw!r}")


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
