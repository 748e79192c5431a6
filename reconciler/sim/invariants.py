"""What must hold after every event of a simulated cluster, whatever happens to it.

* One master per epoch, and each epoch follows the one before it.
* Nothing of a master is committed that did not compare the epoch; sessions only grow.
* A claim goes from one node to another only by being emptied, or at the end of a live migration that named
  both; each write of one that is held compares its owner's session, an image's goes from one VM to another
  only by being emptied too, and no VM has two running copies.
* What the store has of a file is replaced or removed only by somebody who had seen it.
* With a Ceph: at most one client that nothing fences may write to an image (writer_audit.py), a fence of
  that Ceph excuses no copy that writes to anything else, and no host is let in while a guest is left on it.
* No loop fails.
"""

from __future__ import annotations

from reconciler.planning.manifest_apply import keeps_conflict
from reconciler.resources import keys
from reconciler.resources.domains import PauseReason
from reconciler.resources.images import RbdName
from reconciler.resources.records import Claim, DiskClaim, Epoch, Session, load
from reconciler.resources.transactions import Committed, Txn, TxnResult
from reconciler.sim.cluster import SimCluster
from reconciler.sim.dummy_guests import Life
from reconciler.sim.world import SimulationError
from reconciler.sim.writer_audit import WriterAudit

MASTERS = (keys.BINDINGS, keys.MASTER_STATUS)
"""What only the master writes."""


class InvariantBroken(SimulationError):
    """Something happened that must never happen."""


class Invariants:
    """Attached to a cluster from now on: the run ends with InvariantBroken at the first event that breaks
    one of them."""

    def __init__(self, cluster: SimCluster) -> None:
        self.files = Ancestry(cluster)
        self.writers = WriterAudit(cluster.site) if cluster.site is not None else None
        self._cluster = cluster
        self._broken: list[str] = []
        self._holders: dict[int, str] = {}
        self._epoch = 0
        self._sessions: dict[str, int] = {}
        self._claims: dict[str, Claim] = {}
        self._images: dict[str, str] = {}
        self._shut_out: set[str] = set()
        self._lines = 0
        cluster.world.storage.cluster.judges.append(self._judge)
        cluster.world.always(self.check)

    def check(self) -> None:
        """Called after every event. Raises InvariantBroken."""
        self._one_master_per_epoch()
        self._one_running_copy()
        self._let_in_empty()
        self._no_loop_failed()
        self.files.look()
        broken = [*self._broken, *self.files.broken]
        if self.writers is not None:
            self.writers.look()
            broken += self.writers.broken
        if broken:
            raise InvariantBroken(f"{'; '.join(broken)} ({self._cluster.world.reproducer})")

    # -- what nodes believe and run --------------------------------------------------------------------

    def _one_master_per_epoch(self) -> None:
        for name, epoch in self._cluster.masters().items():
            holder = self._holders.setdefault(epoch, name)
            if holder != name:
                self._broken.append(f"{holder} and {name} are both master with epoch {epoch}")

    def _one_running_copy(self) -> None:
        runs: dict[str, str] = {}
        for name in self._cluster.hosts:
            for guest in self._cluster.guests(name):
                if guest.life is not Life.ALIVE or guest.pause is not PauseReason.NONE:
                    continue
                if self._fenced(name) and all(RbdName.parse(path) for path in guest.writable):
                    continue  # a zombie that storage has shut out may spin its processor
                other = runs.setdefault(guest.name, name)
                if other != name:
                    self._broken.append(f"vm {guest.name} runs on {other} and on {name}")

    def _fenced(self, host: str) -> bool:
        site, address = self._cluster.site, self._cluster.world.node(host).address
        return site is not None and site.blocklist.bars(f"{address}:0/1")

    def _let_in_empty(self) -> None:
        """The whole host's entry goes only when nothing of the cluster is left on it (rule 15)."""
        for name in self._cluster.hosts:
            if self._fenced(name):
                self._shut_out.add(name)
            elif name in self._shut_out:
                self._shut_out.remove(name)
                guests = self._cluster.guests(name)
                left = [guest.name for guest in guests if guest.life is Life.ALIVE and guest.made_by_vcl]
                if left:
                    self._broken.append(f"{name} was let in with {', '.join(left)} left on it")

    def _no_loop_failed(self) -> None:
        lines = self._cluster.world.log.lines
        for line in lines[self._lines :]:
            if line.text.startswith("ERROR ") and ("failed" in line.text or "Traceback" in line.text):
                self._broken.append(f"{line.node}: {line.text}")
        self._lines = len(lines)

    # -- what the store accepted -----------------------------------------------------------------------

    def _judge(self, txn: Txn, result: TxnResult) -> None:
        if not isinstance(result, Committed):
            return
        compared = {compare.key for compare in txn.compares}
        for key in (*(put.key for put in txn.puts), *txn.deletes):
            if key.startswith(MASTERS) and keys.EPOCH not in compared:
                self._broken.append(f"{key} was written by a transaction that does not compare the epoch")
        for key in txn.deletes:
            self._images.pop(key, None)
            if key.startswith(keys.MANIFESTS):
                self.files.stored(keys.manifest_path(key), None)
        for put in txn.puts:
            if put.key == keys.EPOCH:
                self._follow_epoch(load(Epoch, put.value), compared)
            elif put.key.startswith(keys.SESSIONS):
                self._follow_session(put.key, load(Session, put.value).session)
            elif put.key.startswith(keys.CLAIMS):
                claim = load(Claim, put.value)
                if claim.node and keys.session(claim.node) not in compared:
                    words = f"{put.key} was written for {claim.node} without comparing its session"
                    self._broken.append(words)
                self._follow_claim(put.key, claim)
            elif put.key.startswith(keys.DISKS):
                self._follow_image(put.key, load(DiskClaim, put.value))
            elif put.key.startswith(keys.MANIFESTS):
                self.files.stored(keys.manifest_path(put.key), put.value)

    def _follow_epoch(self, epoch: Epoch, compared: set[str]) -> None:
        if keys.EPOCH not in compared or epoch.epoch != self._epoch + 1:
            self._broken.append(f"epoch {epoch.epoch} of {epoch.holder} follows epoch {self._epoch}")
        self._epoch = epoch.epoch
        holder = self._holders.setdefault(epoch.epoch, epoch.holder)
        if holder != epoch.holder:
            self._broken.append(f"{holder} acted with epoch {epoch.epoch}, which {epoch.holder} took")

    def _follow_session(self, key: str, session: int) -> None:
        before = self._sessions.get(key, 0)
        if session <= before:
            self._broken.append(f"{key} went from {before} to {session}")
        self._sessions[key] = session

    def _follow_claim(self, key: str, claim: Claim) -> None:
        before = self._claims.get(key, Claim())
        passed = before.migration is not None and claim.node == before.migration.target
        if before.node and claim.node and before.node != claim.node and not passed:
            self._broken.append(f"{key} went from {before.node} to {claim.node} without being emptied")
        self._claims[key] = claim

    def _follow_image(self, key: str, claim: DiskClaim) -> None:
        holder = claim.operation or claim.vm
        before = self._images.setdefault(key, holder)
        if before != holder:
            self._broken.append(f"{key} went from {before} to {holder} without being emptied")
        self._images[key] = holder


class Ancestry:
    """Where each version of a manifest file came from: the version that its author had before him.

    Contents are told apart by their bytes, so authors must not write the same twice.
    """

    def __init__(self, cluster: SimCluster) -> None:
        self.broken: list[str] = []
        self.history: dict[str, list[bytes | None]] = {}
        """By path, what the store has had."""
        self._cluster = cluster
        self._seen: dict[str, dict[str, bytes]] = {name: {} for name in cluster.hosts}
        self._parents: dict[tuple[str, bytes], bytes | None] = {}
        self._gone: dict[tuple[str, str], bytes] = {}
        self._removed: dict[str, set[bytes]] = {}
        self._overwritten: set[tuple[str, str, bytes]] = set()
        self._authored: list[tuple[str, str, bytes]] = []
        cluster.watchers.append(self._written)

    def look(self) -> None:
        """Note what is new in the directories: whoever has a content first wrote it over what was there."""
        for name, host in self._cluster.hosts.items():
            files = host.directory.files
            if host.directory.before_write is None:
                host.directory.before_write = self.look  # or two writes of one moment would look like one
            seen = self._seen.setdefault(name, {})
            if files == seen:
                continue
            for path, data in files.items():
                if not keeps_conflict(path) and seen.get(path) is not data:
                    before = seen.get(path, self._gone.get((name, path)))
                    self._parents.setdefault((path, data), before)
            self._gone.update({(name, path): seen[path] for path in seen if path not in files})
            self._seen[name] = dict(files)

    def _written(self, node: str, path: str, data: bytes | None) -> None:
        """A user is about to save (None: remove) a file."""
        self.look()
        before = self._cluster.hosts[node].directory.files.get(path)
        if before is not None:
            self._overwritten.add((node, path, before))
            if data is None:
                self._removed.setdefault(path, set()).add(before)
        if data is not None:
            self._authored.append((node, path, data))

    def stored(self, path: str, data: bytes | None) -> None:
        """The store has this now (None: no such file)."""
        self.look()
        history = self.history.setdefault(path, [])
        before = history[-1] if history else None
        history.append(data)
        if before is None or before == data:
            return
        if data is None:
            if before not in self._removed.get(path, ()) and not self._is_ancestor_of_removed(path, before):
                self.broken.append(f"{path}: {_short(before)} was deleted, and nobody who had it removed it")
        elif not self._descends(path, data, before):
            self.broken.append(
                f"{path}: {_short(before)} was replaced by {_short(data)}, whose author had not seen it"
            )

    def lost(self) -> tuple[str, ...]:
        """What users saved and did not overwrite themselves, and that is neither in the history of the store
        nor in a file on the node where it was saved."""
        found = []
        written_over = {(path, before) for (path, _), before in self._parents.items()}
        for node, path, data in self._authored:
            kept = data in self._cluster.hosts[node].directory.files.values()
            stored = data in self.history.get(path, ())
            replaced = (node, path, data) in self._overwritten or (path, data) in written_over
            if not kept and not stored and not replaced:
                found.append(f"{path} as saved on {node} ({_short(data)}) is nowhere")
        return tuple(found)

    def _descends(self, path: str, data: bytes, ancestor: bytes) -> bool:
        known: bytes | None = data
        met = set()
        while known is not None and known not in met:
            met.add(known)
            known = self._parents.get((path, known))
            if known == ancestor:
                return True
        return False

    def _is_ancestor_of_removed(self, path: str, data: bytes) -> bool:
        return any(self._descends(path, gone, data) for gone in sorted(self._removed.get(path, ())))


def _short(data: bytes) -> str:
    return repr(data.splitlines()[0].decode(errors="replace")) if data else "''"
