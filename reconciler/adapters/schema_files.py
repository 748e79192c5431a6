"""The JSON Schemas that are shipped with vcl, read from the package reconciler.schemas."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from reconciler.resources.kinds import WRITTEN, Kind, info_for
from reconciler.resources.validation import SchemaSet


def schema_text(kind: Kind) -> str:
    """The text of a kind's schema, as it is in `schemas/KIND.json`; only kinds that are WRITTEN have one."""
    name = f"{info_for(kind).singular}.json"
    return resources.files("reconciler.schemas").joinpath(name).read_text(encoding="utf-8")


@cache
def load_schema(kind: Kind) -> dict[str, Any]:
    """A kind's schema."""
    schema: dict[str, Any] = json.loads(schema_text(kind))
    return schema


@cache
def load_config_schema() -> dict[str, Any]:
    """The schema of vcld's configuration file."""
    text = resources.files("reconciler.schemas").joinpath("vcld.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def load_schemas() -> SchemaSet:
    """The schemas of all kinds that people write; always the same set: validators are compiled once."""
    return SchemaSet(schemas={kind: load_schema(kind) for kind in WRITTEN})
