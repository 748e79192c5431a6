"""The JSON Schemas and the dataclasses say the same, and what validates can be decoded."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from reconciler.adapters.schema_files import load_schema, load_schemas, schema_text
from reconciler.resources.codec import camel, decode
from reconciler.resources.infrastructure import ClusterSpec, ImageSpec, NodeSpec, StoragePoolSpec
from reconciler.resources.kinds import API_VERSION, NAME_PATTERN, WRITTEN, Kind, info_for
from reconciler.resources.placementconstraint import PlacementConstraintSpec
from reconciler.resources.schemawords import QUANTITY
from reconciler.resources.validation import validate_document
from reconciler.resources.virtualmachine import VirtualMachineSpec

SPECS: dict[Kind, type] = {
    Kind.VIRTUAL_MACHINE: VirtualMachineSpec,
    Kind.PLACEMENT_CONSTRAINT: PlacementConstraintSpec,
    Kind.NODE: NodeSpec,
    Kind.CLUSTER: ClusterSpec,
    Kind.STORAGE_POOL: StoragePoolSpec,
    Kind.IMAGE: ImageSpec,
}
every_kind = pytest.mark.parametrize("kind", list(WRITTEN))


def spec_schema(kind: Kind) -> dict[str, Any]:
    found: dict[str, Any] = load_schema(kind)["properties"]["spec"]
    return found


def nodes(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every field of a schema, with its path."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from nodes(field, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


def unwrapped(kind: Any) -> Any:
    """The type without `| None`."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next(arg for arg in typing.get_args(kind) if arg is not type(None))
    return kind


def plain(value: Any) -> Any:
    """A dataclass default as it would be written in JSON; empty things are all alike."""
    if dataclasses.is_dataclass(value) or value in ((), {}):
        return "empty"
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    return value.value if isinstance(value, StrEnum) else value


def assert_agrees(schema: Mapping[str, Any], cls: Any, path: str) -> None:
    fields = {f.metadata.get("name") or camel(f.name): f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    assert set(schema["properties"]) == set(fields), path
    assert schema["additionalProperties"] is False, path
    needed = {
        key
        for key, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    assert set(schema.get("required", ())) == needed, path
    for key, field in fields.items():
        assert_field_agrees(schema["properties"][key], field, hints[field.name], f"{path}.{key}")


def assert_field_agrees(schema: Mapping[str, Any], field: Any, hint: Any, path: str) -> None:
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    else:
        default = None if field.default is dataclasses.MISSING else field.default
    said = schema.get("default")
    if path.endswith(".cloudInit.userData"):
        assert said == default
    assert ("empty" if said in ([], {}) else said) == plain(default), path
    assert schema.get(QUANTITY, {}).get("unit") == field.metadata.get("quantity"), path
    if QUANTITY not in schema:
        assert_type_agrees(schema, unwrapped(hint), path)


def assert_type_agrees(schema: Mapping[str, Any], kind: Any, path: str) -> None:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        assert_agrees(schema, kind, path)
    elif origin is tuple:
        assert schema["type"] == "array", path
        assert_type_agrees(schema["items"], typing.get_args(kind)[0], f"{path}[]")
    elif origin is not None:
        assert schema["type"] == "object", path
        if schema["additionalProperties"] is not False:
            assert_type_agrees(schema["additionalProperties"], typing.get_args(kind)[1], f"{path}.*")
    elif issubclass(kind, StrEnum):
        assert schema["enum"] == [member.value for member in kind] or set(schema["enum"]) == set(kind), path
    else:
        names = {str: "string", int: "integer", bool: "boolean", float: "number"}
        assert schema["type"] == names[kind], path


@every_kind
def test_the_spec_s_schema_and_its_dataclass_agree_in_both_directions(kind: Kind) -> None:
    assert_agrees(spec_schema(kind), SPECS[kind], "spec")


@every_kind
def test_a_schema_is_valid_and_says_whose_it_is(kind: Kind) -> None:
    schema = load_schema(kind)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == kind.value
    assert schema["properties"]["kind"]["const"] == kind.value
    assert schema["properties"]["apiVersion"]["const"] == API_VERSION
    assert schema["properties"]["metadata"]["properties"]["name"]["pattern"] == NAME_PATTERN


@every_kind
def test_every_field_is_described(kind: Kind) -> None:
    for path, field in nodes(load_schema(kind)):
        assert len(field.get("description", "")) > 6, path
        assert field["description"].endswith("."), path


@every_kind
def test_every_optional_field_tells_its_default(kind: Kind) -> None:
    objects = [("spec", spec_schema(kind)), *nodes(spec_schema(kind), "spec")]
    for path, schema in objects:
        inner = schema.get("items", schema)
        if inner.get("maxProperties") == 1:
            continue
        for name in set(inner.get("properties", ())) - set(inner.get("required", ())):
            field = inner["properties"][name]
            assert "default" in field or "Default: " in field["description"], f"{path}.{name}"


@every_kind
def test_quantities_and_durations_name_their_unit(kind: Kind) -> None:
    for path, field in nodes(load_schema(kind)):
        text = field["description"]
        if field.get(QUANTITY, {}).get("unit") == "bytes":
            assert "in bytes" in text.lower(), path
        if path.endswith("Seconds"):
            assert "seconds" in text.lower(), path


@every_kind
def test_examples_and_defaults_in_the_schema_are_valid_themselves(kind: Kind) -> None:
    for path, field in nodes(load_schema(kind)):
        for value in [*field.get("examples", ()), *([field["default"]] if "default" in field else [])]:
            assert list(Draft202012Validator(field).iter_errors(value)) == [], path


@every_kind
def test_the_text_of_a_schema_is_the_file_in_the_repository(kind: Kind) -> None:
    path = Path(__file__).parents[2] / "schemas" / f"{info_for(kind).singular}.json"
    assert schema_text(kind) == path.read_text(encoding="utf-8")
    assert json.loads(schema_text(kind)) == load_schema(kind)


ASCII = st.characters(codec="ascii")
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "x", "On", "2Gi", "1.5Gi", "-1", "1e3", "0.5", "500m", "/x\n", "a\n"]),
    st.just([]),
    st.just({}),
    st.just([None]),
    st.just({"a": None}),
)


def fitting(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """What the schema allows, more or less: rules between fields are not known here."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if QUANTITY in schema:
        unit = schema[QUANTITY]["unit"]
        return st.sampled_from([2**30, "2Gi", "1024M", "1.5Gi"] if unit == "bytes" else [1, 0.5, "2", "500m"])
    match schema.get("type"):
        case "object":
            return _object(schema)
        case "array":
            return st.lists(fitting(schema["items"]), max_size=2, unique=schema.get("uniqueItems", False))
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=True, alphabet=ASCII).filter(
                lambda s: len(s) < 60
            )
        case "string":
            return st.sampled_from(["text", "#cloud-config\n"])
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "number":
            return st.one_of(st.integers(1, 5), st.floats(0.5, 5))
        case _:
            return st.booleans()


def _object(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    properties = schema.get("properties", {})
    if not properties and isinstance(schema["additionalProperties"], dict):
        keys = st.sampled_from(["isolationSeconds", "daemonGraceSeconds"])
        return st.dictionaries(keys, fitting(schema["additionalProperties"]), max_size=2)
    fields = {name: fitting(field) for name, field in properties.items()}
    if schema.get("maxProperties") == 1:
        return st.one_of(*[st.fixed_dictionaries({name: field}) for name, field in fields.items()])
    required = {name: fields.pop(name) for name in schema.get("required", ())}
    return st.fixed_dictionaries(required, optional=fields)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) within a value."""
    found = []
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        if isinstance(item, dict | list):
            found += places(item)
    return found


def assert_decodes_if_valid(kind: Kind, spec: Any) -> bool:
    document = {"apiVersion": API_VERSION, "kind": kind.value, "metadata": {"name": "x"}, "spec": spec}
    valid = validate_document(kind, document, load_schemas()) == ()
    if valid:
        assert isinstance(decode(SPECS[kind], spec), SPECS[kind])
    return valid


@every_kind
@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_what_fits_the_schema_validates_and_can_be_decoded(kind: Kind, data: st.DataObject) -> None:
    spec = data.draw(_object(spec_schema(kind)).filter(lambda spec: spec.get("vms") != {}))
    assert assert_decodes_if_valid(kind, spec)


@pytest.mark.slow
@every_kind
@settings(max_examples=80, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_whatever_validates_can_be_decoded(kind: Kind, data: st.DataObject) -> None:
    spec = data.draw(_object(spec_schema(kind)))
    where = places(spec)
    if where:
        container, key = data.draw(st.sampled_from(where))
        container[key] = data.draw(JUNK)
    assert_decodes_if_valid(kind, spec)
