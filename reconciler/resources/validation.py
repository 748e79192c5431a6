"""Checks a document against its kind's JSON Schema, and says in words what does not fit.

Invariant: what has no error here is decoded by codec.decode without one. Every problem is found in one pass;
a problem is reported where a person has to type: at the name of a field that is unknown or has no value, at
the value otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from reconciler.resources.kinds import Kind
from reconciler.resources.problems import Finding, Path, Severity, short
from reconciler.resources.schemawords import QUANTITY, compile_schema
from reconciler.resources.suggest import hint, meant_field, one_of, unknown_field

MAX_FINDINGS = 500
"""More problems of one document than this are not worth reading, nor finding."""
_MOST_GUESSED = 50

_TYPES = {
    "object": "a map",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaSet:
    """The schema of every kind. Validators are compiled once, when they are first needed."""

    schemas: Mapping[Kind, dict[str, Any]]
    _validators: dict[Kind, Any] = field(default_factory=dict, repr=False, compare=False)

    def validator(self, kind: Kind) -> Any:
        """The compiled jsonschema validator of a kind."""
        if kind not in self._validators:
            self._validators[kind] = compile_schema(self.schemas[kind])
        return self._validators[kind]


Written = Callable[[Path], str]
"""How the scalar at a path was written in the file: `012`, where its value is 12."""


def validate_document(
    kind: Kind, document: Mapping[str, Any], schemas: SchemaSet, written: Written | None = None
) -> tuple[Finding, ...]:
    """What is wrong with a document's shape; `document` is plain data with apiVersion, kind and so on.

    Fields that only vcl sets (status, metadata.uid) give a warning each, whatever is in them.
    """
    ignored = tuple(_read_only(document, schemas.schemas[kind], ()))
    return (*ignored, *validate_value(schemas.validator(kind), document, written))


def validate_value(validator: Any, value: Any, written: Written | None = None) -> tuple[Finding, ...]:
    """What is wrong with a value, by a validator of `schemawords.compile_schema`; each finding once."""
    errors = validator.iter_errors(value)
    found = (finding for error in errors for finding in _findings(error, written or (lambda _: "")))
    told = tuple(dict.fromkeys(islice(found, MAX_FINDINGS)))
    more = Finding(path=(), message="has more problems; correct these first", at_key=True)
    return (*told, *(more for _ in islice(found, 1)))


def _read_only(document: Mapping[str, Any], schema: Mapping[str, Any], path: Path) -> Iterator[Finding]:
    for name, sub in schema.get("properties", {}).items():
        if name not in document:
            continue
        if sub.get("readOnly"):
            message = "is set by vcl and ignored here; remove it"
            yield Finding(path=(*path, name), message=message, at_key=True, severity=Severity.WARNING)
        elif name == "metadata" and isinstance(document[name], dict):
            yield from _read_only(document[name], sub, (*path, name))


def _findings(error: Any, written: Written) -> Iterator[Finding]:
    """One jsonschema error as findings: several unknown or missing fields of one map are one error to it."""
    path: Path = tuple(error.absolute_path)
    schema: Mapping[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    if "propertyNames" in error.absolute_schema_path:
        yield Finding(path=(*path, str(error.instance)), message=_pattern(error, schema), at_key=True)
    elif error.validator == "additionalProperties":
        for name in error.instance:
            if name not in schema["properties"]:
                yield Finding(path=(*path, name), message=unknown_field(name, schema), at_key=True)
    elif error.validator == "required":
        meant = _meant(error.instance, schema)
        for name in error.validator_value:
            if name not in error.instance and name not in meant:
                yield Finding(path=(*path, name), message=_required(name, schema), at_key=True)
    elif not _said_otherwise(error, schema):
        yield Finding(path=path, message=_message(error, schema, written))


def _said_otherwise(error: Any, schema: Mapping[str, Any]) -> bool:
    """Whether another error of the same value says it better."""
    if error.validator == "maxProperties":  # an unknown field beside the one that counts
        return len(error.instance.keys() & schema["properties"].keys()) == 1
    return QUANTITY in schema and error.validator in ("type", "pattern")


def _meant(instance: Mapping[str, Any], schema: Mapping[str, Any]) -> frozenset[str]:
    """The fields that a map's unknown fields were meant to be: they are not reported as missing as well."""
    unknown = (word for word in instance if word not in schema["properties"])
    guesses = (meant_field(word, schema) for word in islice(unknown, _MOST_GUESSED))
    return frozenset(guess.split(".")[0] for guess in guesses if guess)


def _required(name: str, schema: Mapping[str, Any]) -> str:
    field_schema = schema["properties"].get(name, {})
    example = next(iter(field_schema.get("examples", ())), field_schema.get("const"))
    return "is required" if example is None else f"is required, for example '{name}: {_flow(example)}'"


def _flow(value: Any) -> str:
    """Plain data as one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    return str(value)


def _message(error: Any, schema: Mapping[str, Any], written: Written) -> str:
    wanted, value = error.validator_value, error.instance
    match error.validator:
        case "type":
            return _type(wanted, value, written(tuple(error.absolute_path)))
        case "enum":
            return f"{one_of(wanted)}, got {short(value)}{hint(value, wanted)}"
        case "const":
            return f"must be {short(wanted)}, got {short(value)}"
        case "pattern":
            return _pattern(error, schema)
        case "minimum" | "maximum":
            return f"{_range(schema)}, got {short(value)}"
        case "minLength":
            return "must not be empty"
        case "maxLength":
            return f"must be {wanted} characters at most, got {len(value)}"
        case "maxItems":
            return f"must have {wanted} items at most, got {len(value)}"
        case "minProperties" | "maxProperties":
            return _choice(schema, value)
        case _:  # x-vcl-quantity brings its own words
            return str(error.message)


def _type(wanted: str | list[str], value: Any, text: str) -> str:
    kinds = [wanted] if isinstance(wanted, str) else wanted
    expected = " or ".join(_TYPES[kind] for kind in kinds)
    if isinstance(value, (dict, list)) or value is None:
        return f"must be {expected}, got {_describe(value)}"
    if kinds == ["boolean"] and isinstance(value, str):
        meant = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}
        cure = meant.get(value.lower())
        return f"must be true or false, got {short(value)}" + (f"; write {cure}" if cure else "")
    if kinds == ["string"]:
        return f'must be text, got {_describe(value)}; put it in quotes: "{text or value}"'
    if kinds == ["integer"] and isinstance(value, str) and value.isascii() and value.isdigit():
        return f"must be a whole number, got the text {short(value)}; remove the quotes"
    return f"must be {expected}, got {short(value)}"


def _describe(value: Any) -> str:
    match value:
        case dict():
            return "a map"
        case list():
            return "a list"
        case None:
            return "nothing"
        case bool():
            return f"the boolean {'true' if value else 'false'}"
        case _:
            return f"the number {short(value)}"


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"must be between {low} and {high}"
    return f"must be at least {low}" if low is not None else f"must be at most {high}"


def _pattern(error: Any, schema: Mapping[str, Any]) -> str:
    wanted = schema.get("patternErrorMessage") or f"must match {error.validator_value}"
    return f"{wanted}; got {short(error.instance)}"


def _choice(schema: Mapping[str, Any], value: Mapping[str, Any]) -> str:
    names = ", ".join(schema["properties"])
    known = sorted(value.keys() & schema["properties"].keys())
    if schema.get("maxProperties") == 1:
        example = next(iter(schema.get("examples", ())), "")
        given = f", got {' and '.join(known)}" if known else f", for example '{_flow(example)}'"
        return f"must have exactly one of {names}{given}"
    return f"must not be empty; give at least one of {names}"
