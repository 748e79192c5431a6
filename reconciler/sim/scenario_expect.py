"""What a scenario can expect, each as a line of words that holds or says why not.

expect master r2 within 8        expect no master for 10        expect standing r1 of r3 Silent within 10
expect same files within 2       expect file r3 web.yaml        expect vm web Running on r2 within 30
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from reconciler.planning.liveness import judge
from reconciler.planning.manifest_apply import keeps_conflict
from reconciler.resources import keys
from reconciler.resources.domains import PauseReason
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Epoch, SchemaRecord, load
from reconciler.resources.status import MasterStatus, VmNodeStatus
from reconciler.sim.cluster import SimCluster
from reconciler.sim.dummy_guests import Life
from reconciler.sim.world import BadScript
from reconciler.sim.writing import manifest

Words = Sequence[str]
Condition = Callable[[SimCluster, Words, float], str]
"""Of the cluster, the words and since when; why it does not hold, empty when it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """`within`: seconds that it may take; `lasts`: seconds for which it then has to hold."""

    text: str
    negated: bool
    words: tuple[str, ...]
    within: float = 0.0
    lasts: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it may be waited for."""
        return self.within + self.lasts

    def problem(self, cluster: SimCluster, since: float) -> str:
        """Why it does not hold now, or nothing."""
        why = CONDITIONS[self.words[0]][1](cluster, self.words[1:], since)
        if not self.negated:
            return why
        return "" if why else "it is so"


def parse_expectation(words: Words) -> Expectation:
    """Of the words after `expect`. Raises BadScript."""
    rest, seconds = list(words), {"within": 0.0, "for": 0.0}
    while len(rest) > 2 and rest[-2] in seconds:
        try:
            seconds[rest[-2]] = float(rest[-1])
        except ValueError:
            raise BadScript(f"{rest[-1]!r} is no number of seconds") from None
        del rest[-2:]
    negated = rest[:1] in (["no"], ["not"])
    rest = rest[negated:]
    if not rest or rest[0] not in CONDITIONS:
        near = difflib.get_close_matches(rest[0] if rest else "", CONDITIONS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(CONDITIONS)}"
        raise BadScript(f"{' '.join(words)!r} can not be expected; {hint}")
    usage = CONDITIONS[rest[0]][0]
    needed = usage.partition("[")[0].split()
    if len(rest) - 1 < len(needed):
        raise BadScript(f"write: expect {rest[0]} {usage}".rstrip())
    return Expectation(
        text=" ".join(words),
        negated=negated,
        words=tuple(rest),
        within=seconds["within"],
        lasts=seconds["for"],
    )


def stored(cluster: SimCluster, key: str) -> bytes | None:
    """A value in the store."""
    item = cluster.world.storage.cluster.get([key]).get(key)
    return item.value if item is not None else None


def acting(cluster: SimCluster) -> dict[str, int]:
    """The masters that are not paused."""
    return {name: epoch for name, epoch in cluster.masters().items() if not cluster.world.node(name).paused}


def manifests(cluster: SimCluster) -> dict[str, bytes]:
    """The files that the store has, by path."""
    found = cluster.world.storage.cluster.list(keys.MANIFESTS)
    return {keys.manifest_path(item.key): item.value for item in found.items}


def differing(cluster: SimCluster, names: Words = ()) -> dict[str, list[str]]:
    """By path, the hosts that have something else than the store; conflict files are each node's own."""
    store = manifests(cluster)
    found: dict[str, list[str]] = {}
    for name in names or sorted(cluster.hosts):
        files = cluster.hosts[name].directory.files
        for path in sorted({*store, *files}):
            if not keeps_conflict(path) and files.get(path) != store.get(path):
                found.setdefault(path, []).append(name)
    return found


def running(cluster: SimCluster, vm: str) -> list[str]:
    """The hosts on which the guest really runs."""
    return [
        name
        for name in sorted(cluster.hosts)
        for guest in cluster.guests(name)
        if guest.name == vm and guest.life is Life.ALIVE and guest.pause is PauseReason.NONE
    ]


def _master(cluster: SimCluster, words: Words, _: float) -> str:
    found = acting(cluster)
    if words:
        value = stored(cluster, keys.EPOCH)
        held = load(Epoch, value).epoch if value is not None else 0
        found = {name: epoch for name, epoch in found.items() if epoch == held}
        return "" if list(found) == [words[0]] else f"master is {', '.join(found) or 'nobody'}"
    return "" if found else "nobody is master"


def _epoch(cluster: SimCluster, words: Words, _: float) -> str:
    value = stored(cluster, keys.EPOCH)
    held = str(load(Epoch, value).epoch) if value is not None else "none"
    return "" if held == words[0] else f"the epoch is {held}"


def _standing(cluster: SimCluster, words: Words, _: float) -> str:
    observer, _of, node, wanted = words
    loops = cluster.loops(observer)
    if loops is None:
        return f"{observer} is not running"
    sight = next((sight for sight in loops.membership.sights() if sight.name == node), None)
    if sight is None:
        return f"{node} is no member for {observer}"
    judgement = judge(observer, sight, loops.ports.timers)
    return "" if judgement.standing == wanted else f"{node} is {judgement.standing} ({judgement.reason})"


def _same(cluster: SimCluster, words: Words, _: float) -> str:
    found = differing(cluster, words[1:])
    return "; ".join(f"{path} differs from the store on {' '.join(names)}" for path, names in found.items())


def _file(cluster: SimCluster, words: Words, _: float) -> str:
    node, path, *content = words
    data = cluster.hosts[node].directory.files.get(path)
    if data is None:
        return f"{node} has no {path}"
    return "" if not content or data == manifest(content) else f"{path} on {node} has other bytes"


def _vm(cluster: SimCluster, words: Words, _: float) -> str:
    name, wanted = words[0], words[1].lower()
    on = words[3] if len(words) > 3 else ""
    if wanted == "unplaced":
        placed = stored(cluster, keys.master_status(Kind.VIRTUAL_MACHINE, name))
        where = load(MasterStatus, placed).node if placed is not None else "not looked at"
        return f"it is placed on {where}" if where else ""
    value = stored(cluster, keys.node_status(Kind.VIRTUAL_MACHINE, name))
    if value is None:
        return f"nobody reports vm {name}"
    status = load(VmNodeStatus, value)
    if status.phase.lower() != wanted or on not in ("", status.node):
        return f"vm {name} is {status.phase} on {status.node}"
    return ""


def _guest(cluster: SimCluster, words: Words, _: float) -> str:
    found = running(cluster, words[0])
    wanted = [words[2]] if len(words) > 2 else found[:1]
    return "" if found and found == wanted else f"it runs on {' and '.join(found) or 'no host'}"


def _said(cluster: SimCluster, words: Words, since: float) -> str:
    text = " ".join(words[1:])
    found = cluster.world.log.said(text, node="" if words[0] == "*" else words[0], since=since)
    return "" if found else f"{words[0]} did not say {text!r}"


def _refused(cluster: SimCluster, words: Words, _: float) -> str:
    return "" if cluster.hosts[words[0]].refused else f"the daemon of {words[0]} was not refused"


def _schema(cluster: SimCluster, words: Words, _: float) -> str:
    value = stored(cluster, keys.SCHEMA)
    version = str(load(SchemaRecord, value).version) if value is not None else "none"
    return "" if version == words[0] else f"the schema is {version}"


def _tree(cluster: SimCluster, words: Words, _: float) -> str:
    node, kind, name = words
    return "" if (kind, name) in cluster.hosts[node].status.shown else f"{node} does not show {kind}/{name}"


CONDITIONS: Mapping[str, tuple[str, Condition]] = MappingProxyType(
    {
        "master": ("[NODE]", _master),
        "epoch": ("NUMBER", _epoch),
        "standing": ("OBSERVER of NODE STANDING", _standing),
        "same": ("files [NODE...]", _same),
        "file": ("NODE PATH [CONTENT...]", _file),
        "vm": ("NAME PHASE|unplaced [on NODE]", _vm),
        "guest": ("NAME [on NODE]", _guest),
        "said": ("NODE TEXT...", _said),
        "refused": ("NODE", _refused),
        "schema": ("VERSION", _schema),
        "tree": ("NODE KIND NAME", _tree),
    }
)
"""By name: the words that follow, and what is looked at."""
