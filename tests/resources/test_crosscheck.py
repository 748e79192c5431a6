"""Objects against each other."""

from __future__ import annotations

from dataclasses import replace

from reconciler.adapters.schema_files import load_schemas
from reconciler.resources.crosscheck import KnownObjects, cross_check
from reconciler.resources.kinds import Kind
from reconciler.resources.manifest import Document, parse_manifest
from reconciler.resources.problems import Severity, render

NOTHING = KnownObjects(
    names={kind: frozenset() for kind in Kind}, controllers=frozenset({"libvirt", "dummy"})
)
ANYTHING = KnownObjects()


def documents(**files: str) -> list[Document]:
    found: list[Document] = []
    for name, text in files.items():
        parsed = parse_manifest(f"{name}.yaml", text.encode(), load_schemas())
        found += parsed.documents
    return found


def vm(name: str, spec: str = "", labels: str = "{}") -> str:
    head = f"apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {{name: {name}, labels: {labels}}}\n"
    return f"{head}spec:\n  cpu: {{cores: 1}}\n  memory: 1Gi\n{spec}"


def other(kind: str, name: str, spec: str) -> str:
    return f"apiVersion: vcl/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def found(known: KnownObjects = ANYTHING, **files: str) -> list[str]:
    return [render(p).splitlines()[0] for p in cross_check(documents(**files), known)]


def test_objects_that_have_nothing_to_do_with_each_other_are_fine() -> None:
    disk = "  disks: [{name: root, size: 1Gi}]\n  interfaces: [{name: lan}]\n"
    assert (
        found(a=vm("a", disk), b=vm("b", disk), c=other("StoragePool", "a", "{type: rbd, rbd: {pool: x}}"))
        == []
    )


def test_an_object_defined_twice_is_named_in_both_files() -> None:
    message = "metadata.name: VirtualMachine 'web' is defined twice; remove it from all but one of its files"
    assert found(a=vm("web"), b=f"# copy\n{vm('web')}") == [
        f"a.yaml:3:18: {message}, it is also in VirtualMachine 'web' (b.yaml:4)",
        f"b.yaml:4:18: {message}, it is also in VirtualMachine 'web' (a.yaml:3)",
    ]


def test_what_two_copies_of_an_object_have_in_common_is_not_told_as_well() -> None:
    text = vm("web", "  disks: [{name: root}]\n  interfaces: [{name: a, mac: 52:54:00:ab:00:01}]\n")
    assert len(found(a=text, b=text)) == 2
    assert len(found(a=text, b=text, c=vm("db", "  disks: [{name: x, image: web.root}]\n"))) == 4


def test_a_broken_file_counts_as_a_definition() -> None:
    assert len(found(a=vm("web"), b="kind: VirtualMachine\nmetadata: {name: web}\nspec: [")) == 2


def test_two_disks_cannot_share_an_image() -> None:
    one = vm("a", "  disks: [{name: root}]\n")
    two = vm("b", "  disks: [{name: x}, {name: root, image: a.root, pool: default}]\n")
    image = "image 'a.root' of pool 'default'"
    message = f"{image} cannot be shared with a disk that writes to it; it is also used by"
    assert found(a=one, b=two) == [
        f"a.yaml:7:18: spec.disks[0].name: {message} VirtualMachine 'b' (b.yaml:7)",
        f"b.yaml:7:42: spec.disks[1].image: {message} VirtualMachine 'a' (a.yaml:7)",
    ]


def test_two_disks_of_one_vm_cannot_share_an_image_either() -> None:
    assert len(found(a=vm("a", "  disks: [{name: x, image: i}, {name: y, image: i}]\n"))) == 2


def test_images_of_the_same_name_in_two_pools_are_two_images() -> None:
    disks = "  disks: [{name: x, image: i, pool: %s}]\n"
    cluster = other("Cluster", "cluster", "{defaultPool: fast}")
    assert found(a=vm("a", disks % "fast"), b=vm("b", disks % "slow")) == []
    assert found(a=vm("a", disks % "fast"), b=vm("b", "  disks: [{name: x, image: i}]\n")) == []
    assert (
        len(found(a=vm("a", disks % "fast"), b=vm("b", "  disks: [{name: x, image: i}]\n"), c=cluster)) == 2
    )


def test_read_only_disks_may_share_an_image_unless_somebody_writes_it() -> None:
    reads = "  disks: [{name: x, image: i, readOnly: true}]\n"
    writes = "  disks: [{name: x, image: i}]\n"
    assert found(a=vm("a", reads), b=vm("b", reads)) == []
    problems = found(a=vm("a", reads), b=vm("b", reads), c=vm("c", writes))
    assert [p.split(":")[0] for p in problems] == ["a.yaml", "b.yaml", "c.yaml"]
    assert "VirtualMachine 'c'" in problems[0]


def test_nobody_writes_to_the_template_of_an_image() -> None:
    template = other("Image", "debian", "{image: debian.qcow2}")
    problems = found(a=vm("a", "  disks: [{name: x, image: debian.qcow2}]\n"), b=template)
    assert len(problems) == 2
    assert "the template of Image 'debian', cannot be shared" in problems[1]


def test_a_mac_address_belongs_to_one_interface() -> None:
    nic = "  interfaces: [{name: lan, mac: %s}]\n"
    message = "MAC address 52:54:00:ab:00:01 must be unique; it is also used by"
    problems = found(a=vm("a", nic % "52:54:00:AB:00:01"), b=vm("b", nic % "52:54:00:ab:00:01"))
    assert problems == [
        f"a.yaml:7:33: spec.interfaces[0].mac: {message} VirtualMachine 'b' (b.yaml:7)",
        f"b.yaml:7:33: spec.interfaces[0].mac: {message} VirtualMachine 'a' (a.yaml:7)",
    ]
    twice = "  interfaces: [{name: a, mac: 52:54:00:ab:00:01}, {name: b, mac: 52:54:00:ab:00:01}]\n"
    assert len(found(a=vm("a", twice))) == 2


def test_what_does_not_exist_yet_is_a_warning() -> None:
    text = vm(
        "a",
        "  controller: libvrt\n"
        "  disks:\n"
        "    - {name: a, pool: fats, source: {image: debian}}\n"
        "    - {name: b, source: {clone: {image: x, pool: slow}}}\n",
    )
    fast = other("StoragePool", "fast", "{type: rbd, rbd: {pool: x}}")
    assert found(NOTHING, a=text, b=fast) == [
        "a.yaml:7:15: warning: spec.controller: there is no controller 'libvrt' here; there are: dummy, "
        "libvirt",
        "a.yaml:9:23: warning: spec.disks[0].pool: there is no StoragePool 'fats' yet; did you mean 'fast'?",
        "a.yaml:9:45: warning: spec.disks[0].source.image: there is no Image 'debian' yet",
        "a.yaml:10:14: warning: spec.disks[1].name: there is no StoragePool 'default' yet",
        "a.yaml:10:50: warning: spec.disks[1].source.clone.pool: there is no StoragePool 'slow' yet",
    ]


def test_constraints_pools_and_images_refer_to_objects_as_well() -> None:
    constraint = other(
        "PlacementConstraint", "c", "{type: NodeAffinity, vms: {names: [web]}, nodes: {names: [r1, r2]}}"
    )
    known = KnownObjects(names={**NOTHING.names, Kind.NODE: frozenset({"r1"})})
    problems = found(
        known,
        a=constraint,
        b=other("Image", "i", "{image: x, pool: fast}"),
        c=other("Cluster", "cluster", "{defaultPool: fast}"),
    )
    assert [p.split("warning: ")[1] for p in problems] == [
        "spec.vms.names[0]: there is no VirtualMachine 'web' yet",
        "spec.nodes.names[1]: there is no Node 'r2' yet",
        "spec.pool: there is no StoragePool 'fast' yet",
        "spec.defaultPool: there is no StoragePool 'fast' yet",
    ]


def test_what_is_not_known_is_not_judged() -> None:
    text = vm("a", "  controller: other\n  disks: [{name: a, pool: any, source: {image: one}}]\n")
    assert found(ANYTHING, a=text) == []


def test_required_constraints_that_exclude_each_other_are_an_error_in_both() -> None:
    together = other("PlacementConstraint", "together", "{type: Affinity, vms: {matchLabels: {app: web}}}")
    apart = other("PlacementConstraint", "apart", "{type: AntiAffinity, vms: {names: [a, b]}}")
    vms = {n: vm(n, labels="{app: web}") for n in ("a", "b")}
    error = "spec.type: contradicts PlacementConstraint"
    why = (
        "a and b must share a node and must not; not all of these VMs can be placed: remove one of these "
        "constraints, or make it Preferred"
    )
    assert found(c=together, d=apart, **vms) == [
        f"c.yaml:4:14: {error} 'apart' (d.yaml:1): {why}",
        f"d.yaml:4:14: {error} 'together' (c.yaml:1): {why}",
    ]
    assert found(c=together, d=apart.replace("{type", "{enforcement: Preferred, type"), **vms) == []
    assert found(c=together, d=apart, a=vms["a"]) == []


def test_node_constraints_that_leave_no_node_are_an_error_in_both() -> None:
    on_one = other(
        "PlacementConstraint", "on1", "{type: NodeAffinity, vms: {names: [a]}, nodes: {names: [r1]}}"
    )
    on_two = on_one.replace("on1", "on2").replace("r1", "r2")
    off = on_one.replace("on1", "off").replace("NodeAffinity", "NodeAntiAffinity")
    labelled = on_one.replace("on1", "onl").replace("names: [r1]", "matchLabels: {disk: ssd}")
    assert len(found(a=vm("a"), b=on_one, c=on_two)) == 2
    assert len(found(a=vm("a"), b=on_one, c=off)) == 2
    assert found(a=vm("a"), b=on_two, c=off) == []
    assert found(a=vm("a"), b=labelled, c=off) == []
    assert found(b=on_one, c=off) == []


def test_references_are_never_errors_and_contradictions_that_nodes_can_end_neither() -> None:
    problems = cross_check(
        documents(
            a=vm("a", "  disks: [{name: x, pool: p}]\n"),
            b=other(
                "PlacementConstraint", "b", "{type: NodeAffinity, vms: {names: [a]}, nodes: {names: [r1]}}"
            ),
        ),
        replace(NOTHING, hosts={"r2": {}}),
    )
    assert len(problems) == 3
    assert {p.severity for p in problems} == {Severity.WARNING}


def test_vms_that_wait_for_each_other_are_told_so_where_it_is_written() -> None:
    ring = found(
        a=vm("a", "  startAfter: [b]\n"),
        b=vm("b", "  startAfter: [c, a]\n"),
        c=vm("c", "  startAfter: [d]\n"),
    )
    assert len(ring) == 2
    assert all(
        "these VMs wait for each other: a after b after a; take one of them out" in told for told in ring
    )
    assert [told.split(":")[0] for told in ring] == ["a.yaml", "b.yaml"]
    (itself,) = found(a=vm("a", "  startAfter: [a]\n"))
    assert "wait for each other: a after a" in itself


def test_a_vm_to_start_after_that_is_not_there_is_a_warning() -> None:
    (told,) = found(NOTHING, a=vm("a", "  startAfter: [b]\n  disks: []\n"))
    assert "there is no VirtualMachine 'b' yet" in told
