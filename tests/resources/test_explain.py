"""What `vcl explain` is told."""

from __future__ import annotations

import pytest

from reconciler.adapters.schema_files import load_schema
from reconciler.resources.errors import NotFound
from reconciler.resources.explain import explain
from reconciler.resources.kinds import Kind

VM = load_schema(Kind.VIRTUAL_MACHINE)


def test_a_field_is_explained_with_its_type_default_and_values() -> None:
    bus = explain(VM, ("spec", "disks", "bus"))
    assert (bus.field, bus.type, bus.default) == ("bus", "string", "virtio")
    assert bus.allowed == ("virtio", "scsi", "sata")
    assert not bus.required
    assert bus.children == ()


def test_lists_are_passed_through_and_types_are_named_as_kubectl_does() -> None:
    types = {
        path: explain(VM, tuple(path.split("."))).type
        for path in ("spec", "spec.disks", "spec.disks.size", "spec.nodeSelector", "spec.cpu.cores", "status")
    }
    assert types == {
        "spec": "Object",
        "spec.disks": "[]Object",
        "spec.disks.size": "quantity",
        "spec.nodeSelector": "map[string]string",
        "spec.cpu.cores": "integer",
        "status": "any",
    }


def test_children_say_which_of_them_are_required() -> None:
    spec = explain(VM, ("spec",))
    assert spec.required
    assert {child.field for child in spec.children if child.required} == {"cpu", "memory"}
    disks = next(child for child in spec.children if child.field == "disks")
    assert [child.field for child in disks.children][:2] == ["name", "pool"]


def test_ranges_are_told() -> None:
    assert explain(VM, ("spec", "cpu", "cores")).range == "1 to 1024"
    assert explain(VM, ("spec", "memory")).range == "at least 1Mi"
    assert explain(VM, ("spec", "memory")).examples == ("2Gi",)


def test_the_kind_itself_can_be_explained() -> None:
    top = explain(VM)
    assert top.field == "VirtualMachine"
    assert [child.field for child in top.children] == ["apiVersion", "kind", "metadata", "spec", "status"]


def test_an_unknown_field_names_the_one_that_was_meant() -> None:
    with pytest.raises(NotFound, match=r"^VirtualMachine\.spec has no field 'vcpu'; did you mean 'cpu'\?$"):
        explain(VM, ("spec", "vcpu"))
    with pytest.raises(NotFound, match="its fields are: cores, maxCores, model"):
        explain(VM, ("spec", "cpu", "zzz"))
    with pytest.raises(NotFound, match="its fields are: none"):
        explain(VM, ("spec", "memory", "unit"))
