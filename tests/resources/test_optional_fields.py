"""A record leaves out what is None; so each field that may be None must be readable when it is not there."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from types import ModuleType, NoneType
from typing import get_args, get_type_hints

import pytest

from reconciler.resources import fencing, membership, records, status
from reconciler.resources.fencing import FenceCause, FenceRecord, Silence
from reconciler.resources.records import dump, load


def test_the_fencing_of_a_node_that_was_never_heard_can_be_read_again() -> None:
    record = FenceRecord(
        id="1",
        node="r3",
        incident="r3-5",
        cause=FenceCause.SILENT,
        reason="never heard on the mesh",
        epoch=6,
        session=5,
        boot_id="boot",
        machine_id="machine",
        began="2026-01-31T13:01:34Z",
        silence=Silence(heard=None, lease=5.0, since=5.0),
    )
    assert load(FenceRecord, dump(record)) == record


@pytest.mark.parametrize("module", [fencing, membership, records, status], ids=lambda module: module.__name__)
def test_every_field_that_may_be_none_has_a_default(module: ModuleType) -> None:
    without = [
        f"{made.__name__}.{field.name}"
        for made in vars(module).values()
        if isinstance(made, type) and is_dataclass(made)
        for field in fields(made)
        if NoneType in get_args(get_type_hints(made)[field.name])
        if field.default is MISSING and field.default_factory is MISSING
    ]
    assert without == []
