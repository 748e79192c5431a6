"""A VM that writes to Ceph and to a file starts elsewhere only when its host can write to neither: the
blocklist is one proof, and of the file only a person knows (SAFETY rule 14)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from reconciler.adapters.fencing.manual import ManualFencer
from reconciler.loops.confirmations import Confirmations
from reconciler.planning.confirming import Witness, Word
from reconciler.ports.fencer import Fencer
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError
from reconciler.resources.fencing import ConfirmRecord, FenceRecord
from reconciler.resources.records import dump, load
from reconciler.resources.transactions import Put, Txn
from reconciler.sim.dummy_guests import ALL, Faults, GuestFaults
from reconciler.sim.site_ceph import SiteCeph
from reconciler.sim.site_ports import SiteFencer
from reconciler.sim.world import NodePorts, World
from tests.sim.site import Site

FILES = b"""\
apiVersion: vcl/v1
kind: StoragePool
metadata: {name: files}
spec: {type: directory, directory: {path: /files, format: raw, shared: true}}
"""
VM = b"""\
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {name: web}
spec:
  controller: dummy
  cpu: {cores: 1}
  memory: 64Mi
  disks: [{name: root, pool: ceph, size: 1Gi}, {name: extra, pool: files, size: 1Mi}]
"""
STUBBORN = Faults(guests={ALL: GuestFaults(refuses_destroy=True)})


def fencers(ceph: SiteCeph, ports: NodePorts) -> Sequence[Fencer]:
    async def read(node: str) -> ConfirmRecord | None:
        found = await ports.store.get([keys.confirm(node)])
        return load(ConfirmRecord, found[keys.confirm(node)].value) if found else None

    return (SiteFencer(ceph, ports.name), ManualFencer(read))


class Storages(Site):
    """One that waits, its host `victim` shut out of Ceph."""

    def __init__(self, world: World) -> None:
        super().__init__(world, fencers=fencers, vm=VM, others=(FILES,), faults=STUBBORN)
        self.started()
        self.victim = self.owner()
        self.vanish(self.victim)
        world.run_until(lambda: "pool" in self.missing() or "5157a111" in self.missing(), 60.0, "it waits")

    def missing(self) -> str:
        record = self.record(self.victim)
        return "; ".join(record.missing) if record is not None else ""

    def fencing(self) -> FenceRecord:
        record = self.record(self.victim)
        assert record is not None
        return record

    def say_down(self, *, incident: str = "", boot_id: str = "") -> None:
        """`vcl node confirm-down` on the master. Raises ConflictError."""
        record, loops = self.fencing(), self.cluster.loops(self.master())
        assert loops is not None
        word = Word(node=self.victim, incident=incident or record.incident, boot_id=boot_id or record.boot_id)
        desk = Confirmations(
            loops.views,
            loops.writer,
            loops.ports.clock,
            loops.ports.timers,
            lambda: Witness(
                me=self.master(), sights=loops.membership.sights(), ran_for=loops.membership.ran_for()
            ),
            lambda *words: None,
        )
        self.world.call(self.master(), lambda ports: desk.confirm_down(word, "ann"))

    def write_down(self) -> None:
        """The same word in the store, whatever anybody sees."""
        record = self.fencing()
        word = ConfirmRecord(incident=record.incident, boot_id=record.boot_id, by="ann", at="")
        put = Put(key=keys.confirm(self.victim), value=dump(word))
        self.world.storage.cluster.apply(Txn(id="by hand", puts=(put,)))


def test_the_blocklist_is_no_proof_for_the_file_and_a_word_about_this_boot_is() -> None:
    with World(seed=3) as world:
        site = Storages(world)
        assert site.ceph.bars(site.victim)
        world.run_for(20.0)
        assert site.owner() == site.victim
        with pytest.raises(ConflictError, match="what you confirm is"):
            site.say_down(incident="r9-1")
        with pytest.raises(ConflictError, match="what you confirm is"):
            site.say_down(boot_id="another")
        world.node(site.victim).power_off()
        site.say_down()
        assert site.failed_over_from(site.victim)


def test_a_word_is_void_while_the_host_is_heard() -> None:
    with World(seed=3) as world:
        site = Storages(world)
        site.awake(site.victim)
        world.run_for(5.0)
        with pytest.raises(ConflictError, match="signs of life"):
            site.say_down()
        site.write_down()
        world.run_for(20.0)
        assert site.owner() == site.victim
        assert site.alive_on(site.victim)
