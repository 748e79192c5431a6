"""What a scenario can let happen besides the world's faults: what people do to a cluster.

3   save r2 web.yaml vm web memory=2Gi       12  remove r1 web.yaml       20  release r3 0.2 1..2
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from reconciler.loops.apply import Manifests
from reconciler.loops.assembly import Node as Loops
from reconciler.loops.assembly import absence
from reconciler.loops.intents import Intents
from reconciler.loops.migration_requests import MigrationRequests
from reconciler.loops.plans import Plans
from reconciler.loops.rebalance_requests import RebalanceRequests
from reconciler.planning.node_intents import NodeVerb
from reconciler.ports.manifests import ApplyInput
from reconciler.resources.errors import VclError
from reconciler.resources.rebalancing import RebalanceScope
from reconciler.sim.cluster import Release, SimCluster
from reconciler.sim.controller import DummyController
from reconciler.sim.dummy_guests import GuestFaults
from reconciler.sim.guest_wire import Stage
from reconciler.sim.world import VERBS, BadScript, NodePorts
from reconciler.sim.writing import manifest

Words = Sequence[str]


def check(verb: str, words: Words) -> None:
    """Raises BadScript for what `do` could not do."""
    if verb in CLUSTER_VERBS:
        usage = CLUSTER_VERBS[verb][0]
        if len(words) < sum(1 for word in usage.split() if not word.startswith("[")):
            raise BadScript(f"write: {verb} {usage}".rstrip())
        if verb in ("save", "apply"):
            manifest(words[2:])
        if verb == "node" and words[1] not in set(NodeVerb):
            raise BadScript(f"{words[1]!r} is no verb of nodes; there are {', '.join(NodeVerb)}")
        if verb == "rebalance" and words[1:] and words[1] not in {*RebalanceScope, "cancel"}:
            raise BadScript(f"{words[1]!r} is no scope; there are {', '.join(RebalanceScope)}")
    elif verb not in VERBS:
        raise BadScript(f"{verb!r} is no verb; there are {', '.join(sorted({*CLUSTER_VERBS, *VERBS}))}")


def do(cluster: SimCluster, verb: str, words: Words) -> None:
    """Let it happen now."""
    if verb in CLUSTER_VERBS:
        CLUSTER_VERBS[verb][1](cluster, words)
    else:
        cluster.world.faults.do(" ".join((verb, *words)))


def apply(cluster: SimCluster, node: str, path: str, data: bytes, done: Callable[[str], object]) -> None:
    """`vcl apply` on a node; `done` is told what is wrong with it, or nothing. Not told at all when the
    node's daemon does not run, or ends meanwhile."""
    loops = cluster.loops(node)
    if loops is None:
        return
    manifests = loops.manifests

    async def call(_: NodePorts) -> None:
        try:
            report = await Manifests(manifests).apply(
                [ApplyInput(name=path, content=data, path=path)], dry_run=False
            )
        except VclError as error:
            done(str(error))
            return
        done("; ".join(result.error for result in report.results if result.error))

    cluster.world.node(node).spawn(call)


def ask_of_node(cluster: SimCluster, on: str, verb: NodeVerb, node: str, *, bring_back: bool = False) -> None:
    """`vcl drain` and the like on a host, about a node; nothing when no daemon runs there."""
    loops = cluster.loops(on)
    if loops is None:
        return
    intents = Intents(loops.views, loops.writer, loops.ports.clock, loops.ports.ids)
    call = partial(intents.apply_to_node, verb, node, bring_back=bring_back)
    _call(cluster, on, f"vcl {verb} {node}", call)


def _call(cluster: SimCluster, on: str, words: str, call: Callable[[], Awaitable[object]]) -> None:
    """On that host, in the background; the log has the words, and what they came to if they failed."""
    world = cluster.world

    async def run(_: NodePorts) -> None:
        try:
            await call()
        except VclError as error:
            world.say(f"{words} on {on}: {error.message}")
        else:
            world.say(f"{words} on {on}")

    world.node(on).spawn(run)


def ask_to_migrate(cluster: SimCluster, on: str, vm: str, to: str = "", *, cancel: bool = False) -> None:
    """`vcl migrate` on a host; nothing when no daemon runs there."""
    loops = cluster.loops(on)
    if loops is None:
        return
    ports, membership = loops.ports, loops.membership
    requests = MigrationRequests(
        loops.views, loops.writer, ports.clock, ports.ids, lambda node: absence(ports, membership, node)
    )
    words = f"vcl migrate {vm}{f' --to {to}' * bool(to)}{' --cancel' * cancel}"
    _call(
        cluster, on, words, partial(requests.cancel, vm) if cancel else partial(requests.request, vm, to=to)
    )


def _migrate(cluster: SimCluster, words: Words) -> None:
    on, vm, *rest = words
    cancel = rest == ["cancel"]
    ask_to_migrate(cluster, on, vm, "" if cancel or not rest else rest[0], cancel=cancel)


def rebalance_requests(loops: Loops) -> RebalanceRequests:
    """What `vcl cluster rebalance` asks of a node."""
    ports, manifests = loops.ports, loops.manifests
    absent = partial(absence, ports, loops.membership)
    plans = Plans(loops.views, ports.clock, manifests.reader, Manifests(manifests), absent)
    return RebalanceRequests(loops.views, loops.writer, ports.clock, ports.ids, plans)


def _rebalance(cluster: SimCluster, words: Words) -> None:
    on, *rest = words
    loops = cluster.loops(on)
    if loops is None:
        return
    requests = rebalance_requests(loops)
    if rest == ["cancel"]:
        _call(cluster, on, "vcl cluster rebalance --cancel", requests.cancel)
        return
    scope = RebalanceScope(rest[0]) if rest else RebalanceScope.FULL
    repair = " --repair" * (scope is RebalanceScope.REPAIR)
    _call(cluster, on, f"vcl cluster rebalance{repair}", partial(requests.begin, scope))


def _breaks(cluster: SimCluster, words: Words) -> None:
    """The next hand-over of the VM breaks off before that stage."""
    vm, stage = words
    cluster.wire.breaks[vm] = Stage(stage)
    cluster.world.say(f"the next migration of {vm} breaks off before {stage}")


def _node(cluster: SimCluster, words: Words) -> None:
    on, verb, node, *rest = words
    ask_of_node(cluster, on, NodeVerb(verb), node, bring_back=rest == ["return"])


def _power_on(cluster: SimCluster, words: Words) -> None:
    cluster.world.power_on(words)


def _power_off(cluster: SimCluster, words: Words) -> None:
    for name in words or cluster.world.names:
        cluster.world.node(name).power_off()


def _save(cluster: SimCluster, words: Words) -> None:
    node, path, *content = words
    cluster.world.say(f"saved on {node}: {path}: {' '.join(content)}")
    cluster.save(node, path, manifest(content))


def _remove(cluster: SimCluster, words: Words) -> None:
    node, path = words
    cluster.world.say(f"removed on {node}: {path}")
    cluster.save(node, path, None)


def _apply(cluster: SimCluster, words: Words) -> None:
    node, path, *content = words
    world = cluster.world
    world.say(f"vcl apply on {node}: {path}: {' '.join(content)}")
    apply(
        cluster,
        node,
        path,
        manifest(content),
        lambda error: world.say(f"vcl apply on {node}: {error or 'applied'}"),
    )


def _add(cluster: SimCluster, words: Words) -> None:
    rank = int(words[1].removeprefix("rank=")) if len(words) > 1 else None
    cluster.add(words[0], rank=rank)
    cluster.world.say(f"installed: {words[0]}")


def _release(cluster: SimCluster, words: Words) -> None:
    node, version, schemas = words
    low, dots, high = schemas.partition("..")
    if not dots:
        raise BadScript(f"{schemas!r}: write the schemas as 1..2")
    cluster.hosts[node].release = Release(version=version, schemas=(int(low), int(high)))
    cluster.world.say(f"installed on {node}: version {version}, schemas {schemas}")


def _crashes(cluster: SimCluster, words: Words) -> None:
    """From now on each run of the VM on the node ends by a crash, after so many seconds."""
    node, vm, seconds = words
    host = cluster.hosts[node]
    crash = GuestFaults(vanish_after=float(seconds))
    host.faults = replace(host.faults, guests={**host.faults.guests, vm: crash})
    loops = cluster.loops(node)
    dummy = loops.ports.controllers["dummy"] if loops is not None else None
    if isinstance(dummy, DummyController):
        dummy.hypervisor.faults = host.faults
    cluster.world.say(f"from now on {vm} crashes on {node} after {seconds} s")


def _confirm(cluster: SimCluster, words: Words) -> None:
    loops = cluster.loops(words[0])
    if loops is not None and loops.manifests.held is not None:
        cluster.world.say(f"vcl confirm on {words[0]}")
        loops.manifests.confirm(loops.manifests.held.id)


CLUSTER_VERBS: Mapping[str, tuple[str, Callable[[SimCluster, Words], None]]] = MappingProxyType(
    {
        "power-on": ("[NODE...]", _power_on),
        "power-off": ("[NODE...]", _power_off),
        "save": ("NODE PATH CONTENT...", _save),
        "remove": ("NODE PATH", _remove),
        "apply": ("NODE PATH CONTENT...", _apply),
        "confirm": ("NODE", _confirm),
        "node": ("NODE VERB NODE [return]", _node),
        "migrate": ("NODE VM [NODE|cancel]", _migrate),
        "rebalance": ("NODE [SCOPE|cancel]", _rebalance),
        "breaks": ("VM STAGE", _breaks),
        "crashes": ("NODE VM SECONDS", _crashes),
        "add": ("NODE [rank=N]", _add),
        "release": ("NODE VERSION LOW..HIGH", _release),
        "end": ("", lambda cluster, words: None),
    }
)
"""By name: the words that follow, and what happens. Without nodes, all of them."""
