"""Whether an existing domain may become a VM, and the records that make it one."""

from __future__ import annotations

import pytest

from reconciler.planning.adopting import (
    Known,
    Names,
    Ownership,
    Standing,
    compare_images,
    lost_to,
    records,
    refuse_name,
    runs_here,
)
from reconciler.resources import keys
from reconciler.resources.domains import Stranger
from reconciler.resources.errors import AlreadyExists, ConflictError, InvalidInput, NotFound
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Binding, Claim, ObjectMeta, Source, SpecRecord

WEB = Names(vm="web", domain="web", uuid="u1", running=True)
FOUND = Stranger(name="web", uuid="u1", running=True)
ASKED = keys.intent(Kind.VIRTUAL_MACHINE, "web")
RECORD = SpecRecord(
    kind="VirtualMachine", metadata=ObjectMeta(name="web", uid="u1"), spec={}, source=Source(path="web.yaml")
)


def standing(**known: object) -> Standing:
    return Standing(**({"exists": False, "bound": False, "claim": None} | known))  # type: ignore[arg-type]


class TestNames:
    def test_a_free_name_and_uuid_are_fine_and_so_is_an_emptied_claim(self) -> None:
        refuse_name(WEB, standing(claim=Claim(uid="u0"), uids={"u9": "db"}))

    @pytest.mark.parametrize(
        ("known", "error", "said"),
        [
            ({"exists": True}, AlreadyExists, "there is a VM 'web' already"),
            ({"uids": {"u1": "db"}}, AlreadyExists, "has the UUID of the VM 'db'"),
            ({"bound": True}, ConflictError, "not quite gone"),
            ({"claim": Claim(node="r2", uid="u0")}, ConflictError, "not quite gone"),
        ],
    )
    def test_what_belongs_to_another_vm_is_refused(
        self, known: dict[str, object], error: type[Exception], said: str
    ) -> None:
        with pytest.raises(error, match=said):
            refuse_name(WEB, standing(**known))


class TestWhereItRuns:
    def test_a_domain_that_runs_here_is_taken_over_and_one_that_is_off_is_not(self) -> None:
        off = Names(vm="web", domain="web", uuid="u1", running=False)
        assert runs_here(WEB, FOUND, "r1", "c1")
        assert not runs_here(off, None, "r1", "c1")
        assert not runs_here(off, Stranger(name="web", uuid="u1", running=False), "r1", "c1")
        assert not runs_here(off, Stranger(name="web", uuid="other", running=True), "r1", "c1")

    def test_it_is_taken_over_also_when_it_was_started_since_its_xml_was_read(self) -> None:
        assert runs_here(Names(vm="web", domain="web", uuid="u1", running=False), FOUND, "r1", "c1")

    def test_the_mark_that_an_adoption_leaves_which_was_cut_off_is_no_obstacle(self) -> None:
        marked = Stranger(name="web", uuid="u1", running=True, uid="u1", cluster_uid="c1", node="r1")
        assert runs_here(WEB, marked, "r1", "c1")

    @pytest.mark.parametrize(
        ("names", "found", "error", "said"),
        [
            (WEB, None, NotFound, "runs, and not on node r1"),
            (WEB, Stranger(name="web", uuid="u2", running=True), NotFound, "runs, and not on node r1"),
            (WEB, Stranger(name="web", uuid="u1", running=False), ConflictError, "has ended meanwhile"),
            (
                WEB,
                Stranger(name="web", uuid="u1", running=True, uid="u1", cluster_uid="c1", node="r2"),
                AlreadyExists,
                "belongs to node r2 of this cluster",
            ),
            (
                WEB,
                Stranger(name="web", uuid="u1", running=True, uid="u1", cluster_uid="c2", node="r1"),
                AlreadyExists,
                "belongs to another cluster",
            ),
            (
                WEB,
                Stranger(name="web", uuid="u1", running=True, obstacle="it has snapshots"),
                ConflictError,
                "domain 'web': it has snapshots",
            ),
            (
                Names(vm="web", domain="web server", uuid="u1", running=True),
                Stranger(name="web server", uuid="u1", running=True),
                InvalidInput,
                "virsh domrename 'web server' web",
            ),
        ],
    )
    def test_what_cannot_be_taken_over_says_why(
        self, names: Names, found: Stranger | None, error: type[Exception], said: str
    ) -> None:
        with pytest.raises(error) as refused:
            runs_here(names, found, "r1", "c1")
        assert said in str(refused.value)


class TestImages:
    def test_the_names_of_images_in_pools_are_not_open_files(self) -> None:
        compare_images({"f/p//1": "rbd:vms/a"}, ["name/ceph/a", "f/p//1"])

    def test_either_side_may_not_have_more(self) -> None:
        with pytest.raises(ConflictError, match="writes to rbd:vms/b, and the manifest"):
            compare_images({"f/p//1": "rbd:vms/a", "f/p//2": "rbd:vms/b"}, ["f/p//1"])
        with pytest.raises(ConflictError, match="does not have open: f/p//2"):
            compare_images({"f/p//1": "rbd:vms/a"}, ["f/p//1", "f/p//2"])


class TestRecords:
    def test_what_is_off_gets_a_manifest_and_a_spec_that_nobody_had(self) -> None:
        made = records(RECORD, b"text", None, Known(), "r1")
        assert set(made.puts) == {keys.manifest("web.yaml"), "spec/VirtualMachine/web"}
        assert set(made.compares.values()) == {0}
        assert set(made.compares) == {*made.puts, keys.binding("web"), ASKED}
        assert made.deletes == ()

    def test_what_runs_gets_its_owner_in_the_same_transaction(self) -> None:
        claim = Claim(node="r1", uid="u1", disks=("f/p//1", "name/ceph/a"))
        owned = Ownership(binding=Binding(node="r1", uid="u1", epoch=3, bound=""), claim=claim, former=7)
        made = records(RECORD, b"text", owned, Known(intent=5, epoch=11), "r1")
        assert {keys.binding("web"), keys.claim("web"), keys.disk("f/p//1")} <= set(made.puts)
        assert made.compares[keys.claim("web")] == 7
        assert made.compares[keys.EPOCH] == 11
        assert (made.compares[ASKED], made.deletes) == (5, (ASKED,))
        for key in (keys.POWER_INTENT, keys.fence("r1"), keys.disk("f/p//1"), keys.disk("name/ceph/a")):
            assert made.compares[key] == 0

    def test_a_lost_transaction_names_the_image_that_another_has(self) -> None:
        assert isinstance(lost_to([keys.disk("f/p//1"), keys.EPOCH]), AlreadyExists)
        assert "f/p//1" in str(lost_to([keys.disk("f/p//1")]))
        assert isinstance(lost_to([keys.EPOCH]), ConflictError)
