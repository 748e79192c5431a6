"""Guesses at what was meant."""

from __future__ import annotations

import pytest

from reconciler.adapters.schema_files import load_schema
from reconciler.resources.kinds import Kind
from reconciler.resources.suggest import did_you_mean, unknown_field

SPEC = load_schema(Kind.VIRTUAL_MACHINE)["properties"]["spec"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("vcpu", "cpu"),
        ("vcpus", "cpu"),
        ("ram", "memory"),
        ("Memory", "memory"),
        ("memroy", "memory"),
        ("networks", "interfaces"),
        ("nics", "interfaces"),
        ("volumes", "disks"),
        ("run_strategy", "runStrategy"),
        ("running", "runStrategy"),
        ("termination-grace-period-seconds", "terminationGracePeriodSeconds"),
        ("domainXml", "domainXML"),
        ("cores", "cpu.cores"),
        ("kernel", "boot.kernel"),
    ],
)
def test_common_mistakes_are_recognised(written: str, meant: str) -> None:
    assert unknown_field(written, SPEC) == f"unknown field; did you mean '{meant}'?"


def test_something_else_entirely_lists_what_is_allowed() -> None:
    cpu = SPEC["properties"]["cpu"]
    assert unknown_field("wibble", cpu) == "unknown field; allowed: cores, maxCores, model"
    assert unknown_field("wibble", {"properties": {}}) == "unknown field; nothing can be set here"


def test_fields_that_only_vcl_sets_are_not_offered() -> None:
    assert "uid" not in unknown_field("wibble", load_schema(Kind.VIRTUAL_MACHINE)["properties"]["metadata"])


def test_guesses_do_not_depend_on_the_order_of_the_choices() -> None:
    assert did_you_mean("ax", ["aa", "ab", "ac"]) == did_you_mean("ax", ["ac", "ab", "aa"])
    assert did_you_mean("", ["a"]) is None
