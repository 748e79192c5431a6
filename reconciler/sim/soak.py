"""Random runs: whole nodes, dense random faults, users who save, apply and remove files anywhere, and the
invariants after every event. When everything is healed, the cluster must be well within half a minute.

A run follows from its values: the same ones give the same run, and a failure names them.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from reconciler.loops.views import Views
from reconciler.planning.election import settle_seconds
from reconciler.planning.liveness import ordered
from reconciler.planning.manifest_parsed import ParseFile
from reconciler.planning.node_intents import NodeVerb
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Epoch, load
from reconciler.resources.status import Phase, VmNodeStatus
from reconciler.sim.cluster import SimCluster
from reconciler.sim.guest_wire import Stage
from reconciler.sim.invariants import InvariantBroken, Invariants
from reconciler.sim.scenario import readable
from reconciler.sim.scenario_expect import acting, differing, running, stored
from reconciler.sim.scenario_verbs import apply, ask_of_node, ask_to_migrate
from reconciler.sim.site_ceph import SiteCeph
from reconciler.sim.world import NotInTime, RandomFaults, World
from reconciler.sim.writing import manifest, virtual_machine

WELL_WITHIN = 30.0
"""Virtual seconds after the end of all faults."""
FENCED_WELL_WITHIN = 120.0
"""The same where nodes are fenced: their way back, and the pauses after attempts that failed."""
SETTLES_WITHIN = 20.0
"""The same, beyond the time that the best rank has to be fit before mastership is handed to it."""
LAST_FALLS = 5.0
"""The same until what was late on the mesh at the end of the faults has counted as a fall."""
VMS = ("a", "b", "c", "d", "e", "f")
LINES = 80
"""Lines of the log that are shown with a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`seconds` of faults, so many beginning in a second (`density`), and an action of a user every `pace`
    seconds on the average. `log_size`: transactions that the store remembers. `fencing`: guests have
    disks in a Ceph, and silent nodes are fenced. `drains`: users also cordon, drain and bring back nodes.
    `moves`: they also migrate VMs and think better of it, and migrations break off."""

    seed: int
    nodes: int = 3
    seconds: float = 300.0
    density: float = 0.5
    pace: float = 2.0
    log_size: int = 200
    fencing: bool = False
    drains: bool = False
    moves: bool = False

    def __str__(self) -> str:
        return (
            f"tools/soak.py --seed {self.seed} --nodes {self.nodes} --length {self.seconds:g} "
            f"--density {self.density:g} --runs 1{' --fencing' * self.fencing}{' --drains' * self.drains}"
            f"{' --moves' * self.moves}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened in a run. `virtual`: seconds; `well_after`: until all was well after the faults;
    `fencings`: hosts shut out of Ceph; `writes`: of guests; `moved`: migrations that succeeded;
    `acknowledged`: applies that a user was told had succeeded."""

    virtual: float
    well_after: float
    epochs: int
    saves: int
    acknowledged: int
    lines: int
    fencings: int = 0
    writes: int = 0
    moved: int = 0


def soak(plan: Plan, parse: ParseFile) -> Outcome:
    """One run. Raises InvariantBroken, NodeFailed and NotInTime, with how to see it again and the last lines
    of the log."""
    with World(seed=plan.seed, log_size=plan.log_size) as world:
        world.reproducer = str(plan)
        try:
            return _Run(plan, world, parse).run()
        except Exception as error:
            error.add_note(f"again: {plan}")
            error.add_note(readable(world.log.lines[-LINES:]))
            raise


class _Run:
    def __init__(self, plan: Plan, world: World, parse: ParseFile) -> None:
        names = tuple(f"r{number + 1}" for number in range(plan.nodes))
        self._plan = plan
        self._world = world
        self._site = SiteCeph(world) if plan.fencing else None
        self._cluster = SimCluster(world, names, parse, site=self._site)
        self._invariants = Invariants(self._cluster)
        self._users = _Users(self._cluster, self._invariants, plan)

    def run(self) -> Outcome:
        world, plan = self._world, self._plan
        self._cluster.found()
        world.power_on()
        faults = RandomFaults(seed=plan.seed, density=plan.density, seconds=plan.seconds)
        world.faults.play(faults.schedule(world.names))
        self._users.begin()
        if plan.drains:
            Caretakers(self._cluster, plan.seed).begin(plan.seconds)
        if plan.moves:
            Movers(self._cluster, plan.seed).begin(plan.seconds)
        if self._site is not None:
            Monitors(self._site, plan.seed).begin(plan.seconds)
        world.run_for(plan.seconds + 0.001)
        self._users.end()
        well_after = self._wait(FENCED_WELL_WITHIN if plan.fencing else WELL_WITHIN, self._trouble)
        world.run_for(LAST_FALLS)
        self._wait(self._settling() + SETTLES_WITHIN, self._not_the_best)
        self._wait(WELL_WITHIN, self._trouble)
        lost = self._invariants.files.lost()
        if lost:
            raise InvariantBroken(f"{'; '.join(lost)} ({world.reproducer})")
        return Outcome(
            virtual=world.now,
            well_after=well_after,
            epochs=_epoch(self._cluster).epoch,
            saves=self._users.saves,
            acknowledged=self._users.acknowledged,
            lines=len(world.log),
            fencings=self._site.fenced if self._site is not None else 0,
            writes=self._invariants.writers.writes if self._invariants.writers is not None else 0,
            moved=sum("has left" in line.text for line in world.log.lines),
        )

    def _wait(self, limit: float, trouble: object) -> float:
        assert callable(trouble)
        try:
            return self._world.run_until(lambda: not trouble(), limit)
        except NotInTime as error:
            raise NotInTime(f"{trouble()} ({error})") from None

    def _trouble(self) -> str:
        """Why the cluster is not well, or nothing."""
        cluster, epoch = self._cluster, _epoch(self._cluster)
        if acting(cluster) != {epoch.holder: epoch.epoch}:
            return f"masters are {acting(cluster) or 'none'}, the epoch is {epoch.epoch} of {epoch.holder}"
        for name in sorted(cluster.hosts):
            loops = cluster.loops(name)
            known = loops.membership.bearing.master if loops is not None else "not running"
            if known != epoch.holder:
                return f"{name} takes {known or 'nobody'} for the master"
        found = differing(cluster)
        if found:
            return "; ".join(f"{path} differs on {' '.join(names)}" for path, names in found.items())
        return self._vm_trouble(epoch.holder)

    def _vm_trouble(self, master: str) -> str:
        loops = self._cluster.loops(master)
        assert loops is not None
        views: Views = loops.views
        wanted = set(views.names(Kind.VIRTUAL_MACHINE))
        for vm in VMS:
            hosts, binding = running(self._cluster, vm), views.binding(vm)
            if vm not in wanted:
                if hosts:
                    return f"vm {vm} was deleted, and runs on {' and '.join(hosts)}"
                continue
            if binding is None or hosts != [binding.node]:
                where = binding.node if binding is not None else "no node"
                return f"vm {vm} is bound to {where} and runs on {' and '.join(hosts) or 'none'}"
            value = stored(self._cluster, keys.node_status(Kind.VIRTUAL_MACHINE, vm))
            status = load(VmNodeStatus, value) if value is not None else None
            if status is None or status.phase is not Phase.RUNNING or status.node != binding.node:
                return f"vm {vm} runs on {binding.node}, and its status is {status}"
        return ""

    def _best(self) -> str:
        loops = self._cluster.loops(_epoch(self._cluster).holder)
        assert loops is not None
        return ordered(loops.membership.members())[0]

    def _not_the_best(self) -> str:
        best = self._best()
        return "" if list(acting(self._cluster)) == [best] else f"the best rank, {best}, is not master"

    def _settling(self) -> float:
        """How long the others wait before they hand over to the best rank."""
        waits = [0.0]
        for name in self._cluster.hosts:
            loops = self._cluster.loops(name)
            if loops is not None:
                first = loops.membership.sights()[0]
                waits.append(settle_seconds(first.falls, loops.ports.timers))
        return max(waits)


class Monitors:
    """Ceph's monitors have their days: they refuse commands, or answer none for a while."""

    def __init__(self, site: SiteCeph, seed: int) -> None:
        self._site = site
        self._random = Random(f"{seed}/monitors")

    def begin(self, seconds: float) -> None:
        """Trouble now and then for so long; afterwards there is none."""
        schedule, at = self._site.world.schedule, self._random.expovariate(1 / 20.0)
        while at < seconds:
            if self._random.random() < 0.5:
                schedule.call_later(at, self._refuse, self._random.randrange(1, 4))
            else:
                schedule.call_later(at, self._hang, True)
                schedule.call_later(at + self._random.expovariate(1 / 6.0), self._hang, False)
            at += self._random.expovariate(1 / 20.0)
        schedule.call_later(seconds, self._refuse, 0)
        schedule.call_later(seconds, self._hang, False)

    def _refuse(self, commands: int) -> None:
        self._site.blocklist.failures = commands

    def _hang(self, hang: bool) -> None:
        self._site.blocklist.hang = hang


class Caretakers:
    """People who take nodes out of service and back, from any node, and bring all of them back at the end."""

    def __init__(self, cluster: SimCluster, seed: int) -> None:
        self._cluster = cluster
        self._random = Random(f"{seed}/caretakers")

    def begin(self, seconds: float) -> None:
        """Act now and then for so long."""
        schedule, names = self._cluster.world.schedule, sorted(self._cluster.hosts)
        at = self._random.expovariate(1 / 6.0)
        while at < seconds:
            verb, back = self._random.choice(tuple(NodeVerb)), self._random.random() < 0.5
            schedule.call_later(at, self._ask, self._random.choice(names), verb, names, back)
            at += self._random.expovariate(1 / 6.0)
        schedule.call_later(seconds, self._open, names)

    def _open(self, names: list[str]) -> None:
        """All nodes take VMs again; asked until all agree, since the store may be away."""
        for name in names:
            for verb in (NodeVerb.MAINTENANCE_OFF, NodeVerb.UNCORDON):
                self._ask(name, verb, names, False)
        if any(stored(self._cluster, keys.intent(Kind.NODE, name)) is not None for name in names):
            self._cluster.world.schedule.call_later(1.0, self._open, names)

    def _ask(self, node: str, verb: NodeVerb, on: list[str], bring_back: bool) -> None:
        ends = verb in (NodeVerb.UNCORDON, NodeVerb.MAINTENANCE_OFF)
        where = self._random.choice(on)
        ask_of_node(self._cluster, where, verb, node, bring_back=bring_back and ends)


class Movers:
    """People who migrate VMs from any node, and now and then think better of it; hypervisors that break
    off."""

    def __init__(self, cluster: SimCluster, seed: int) -> None:
        self._cluster = cluster
        self._random = Random(f"{seed}/movers")

    def begin(self, seconds: float) -> None:
        """Act now and then for so long."""
        schedule, names = self._cluster.world.schedule, sorted(self._cluster.hosts)
        at = self._random.expovariate(1 / 2.0)
        while at < seconds:
            dice, vm, on = self._random.random(), self._random.choice(VMS), self._random.choice(names)
            schedule.call_later(at, self._act, dice, vm, on, self._random.choice(tuple(Stage)))
            at += self._random.expovariate(1 / 2.0)
        schedule.call_later(seconds, self._cluster.wire.breaks.clear)

    def _act(self, dice: float, vm: str, on: str, stage: Stage) -> None:
        if dice < 0.2:
            self._cluster.wire.breaks[vm] = stage
        ask_to_migrate(self._cluster, on, vm, cancel=dice > 0.85)


class _Users:
    """People at their keyboards, on any host that is on."""

    def __init__(self, cluster: SimCluster, invariants: Invariants, plan: Plan) -> None:
        self.saves = 0
        self.acknowledged = 0
        self._cluster = cluster
        self._invariants = invariants
        self._pace = plan.pace
        self._random = Random(f"{plan.seed}/users")
        self._serial = 0
        self._working = False

    def begin(self) -> None:
        """Work until `end`."""
        self._working = True
        self._next()

    def end(self) -> None:
        """They only confirm from now on what they did before."""
        self._working = False
        self._confirm()

    def _next(self) -> None:
        world = self._cluster.world
        world.schedule.call_later(self._random.expovariate(1 / self._pace), self._act)

    def _act(self) -> None:
        if not self._working:
            return
        self._next()
        node, vm = self._random.choice(sorted(self._cluster.hosts)), self._random.choice(VMS)
        dice = self._random.random()
        if not self._cluster.world.node(node).on:
            return
        path = f"virtualmachine-{vm}.yaml"
        if dice < 0.15:
            self._remove(node, path)
        elif dice < 0.22:
            self._save(node, path, self._content(["broken", vm]))
        elif dice < 0.6:
            self._save(node, path, self._vm(vm))
        elif dice < 0.95:
            self._apply(node, path, self._vm(vm))
        else:
            self._confirm_on(node)

    def _vm(self, vm: str) -> bytes:
        self._serial += 1
        memory = self._random.choice(("1Gi", "2Gi", "4Gi"))
        disk = {"disk": "1Gi"} if self._cluster.site is not None else {}
        return virtual_machine(vm, note=f"number {self._serial}", memory=memory, **disk)

    def _content(self, words: list[str]) -> bytes:
        self._serial += 1
        return f"# number {self._serial}\n".encode() + manifest(words)

    def _save(self, node: str, path: str, data: bytes) -> None:
        self.saves += 1
        self._cluster.world.say(f"saved on {node}: {path}, {_title(data)}")
        self._cluster.save(node, path, data)

    def _remove(self, node: str, path: str) -> None:
        if path in self._cluster.hosts[node].directory.files:
            self._cluster.world.say(f"removed on {node}: {path}")
            self._cluster.save(node, path, None)

    def _apply(self, node: str, path: str, data: bytes) -> None:
        world = self._cluster.world
        world.say(f"vcl apply on {node}: {path}, {_title(data)}")

        def done(error: str) -> None:
            world.say(f"vcl apply on {node}: {_title(data)}: {error or 'applied'}")
            if error:
                return
            self.acknowledged += 1
            if data not in self._invariants.files.history.get(path, ()):
                self._invariants.files.broken.append(
                    f"{path}, {_title(data)}, was acknowledged and not stored"
                )

        apply(self._cluster, node, path, data, done)

    def _confirm(self) -> None:
        """Whatever is held back is meant: the users did remove it."""
        for node in sorted(self._cluster.hosts):
            self._confirm_on(node)
        self._cluster.world.schedule.call_later(2.0, self._confirm)

    def _confirm_on(self, node: str) -> None:
        loops = self._cluster.loops(node)
        if loops is not None and loops.manifests.held is not None:
            loops.manifests.confirm(loops.manifests.held.id)


def _epoch(cluster: SimCluster) -> Epoch:
    value = stored(cluster, keys.EPOCH)
    return load(Epoch, value) if value is not None else Epoch(epoch=0, holder="")


def _title(data: bytes) -> str:
    return data.split(b"\n", 1)[0].decode().removeprefix("# ")
