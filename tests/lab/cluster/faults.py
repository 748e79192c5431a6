"""What can go wrong in the lab, each by one call, and all of it undone by `heal`.

A machine is meant by its name: r1, r2, ... or ceph. Faults of links act in the switch, so the machines
notice silence and nothing else.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

from .host import Host
from .hyperconverged import SpreadStorage
from .node import Node
from .processes import LabFailed
from .storage import Storage
from .switch import Cut, Switch, Wire


class Way(StrEnum):
    """Seen from the machine that is named first."""

    BOTH = "both"
    IN = "in"
    OUT = "out"


class Faults:
    """The faults of one lab."""

    def __init__(self, switch: Switch, nodes: Mapping[str, Node], storage: Storage) -> None:
        self._switch = switch
        self._nodes = nodes
        self._storage = storage
        self._hosts = {storage.host.name: storage.host, **{node.name: node.host for node in nodes.values()}}

    # Power and processes.

    def power_cut(self, *names: str) -> None:
        """The machines' every process ends at once, and their links are dead before one can say so."""
        if why := self._storage.objection(names):
            raise LabFailed(why)
        for host in self._chosen(names):
            host.power_cut()

    def power_on(self, *names: str) -> None:
        """Boot machines that are off, with all their daemons."""
        for host in self._chosen(names):
            if host is self._storage.host:
                self._storage.start()
            else:
                host.power_on()
                self._storage.start_on(host.name)
                self._nodes[host.name].start()

    def kill(self, name: str, daemon: str) -> None:
        """SIGKILL for one daemon; its host answers, and refuses connections to it."""
        self._signal(name, daemon, signal.SIGKILL)

    def stop(self, name: str, daemon: str) -> None:
        """SIGTERM for one daemon; returns when it has ended."""
        self._signal(name, daemon, signal.SIGTERM)

    def start(self, name: str, daemon: str) -> None:
        """Start a daemon that does not run."""
        if name == self._storage.host.name:
            self._storage.start()
        elif daemon == "vcld":
            self._node(name).start_vcld()
        elif daemon == "libvirtd":
            self._node(name).start_libvirtd()
        else:
            self._storage.start_on(name)

    def freeze(self, name: str, daemon: str = "") -> None:
        """SIGSTOP for a daemon, or for every process of the machine; its kernel goes on answering pings."""
        if name == self._storage.host.name and daemon:
            self._storage.freeze(daemon)
        elif daemon:
            self._host(name).freeze(daemon)
        else:
            self._host(name).freeze()

    def thaw(self, name: str, daemon: str = "") -> None:
        """SIGCONT for a daemon, or for every process of the machine."""
        if name == self._storage.host.name and daemon:
            self._storage.thaw(daemon)
        else:
            self._host(name).thaw(daemon)

    # Links.

    def cut(self, name: str, *peers: str, way: Way = Way.BOTH, port: int = 0) -> None:
        """Nothing passes between the machine and the peers (none: everybody). `way` is seen from `name`;
        with `port` only that TCP service is cut."""
        cuts = set(self._switch.cuts())
        for peer in self._peers(name, peers):
            if way is not Way.OUT:
                cuts.add(Cut(source=peer, target=name, port=port))
            if way is not Way.IN:
                cuts.add(Cut(source=name, target=peer, port=port))
        self._switch.set_cuts(frozenset(cuts))

    def cut_from_ceph(self, name: str, *, way: Way = Way.BOTH) -> None:
        """The other nodes still hear it."""
        if isinstance(self._storage, SpreadStorage):
            raise LabFailed("here Ceph runs on the nodes: to cut one from it, cut it from them")
        self.cut(name, self._storage.host.name, way=way)

    def cut_from_mesh(self, name: str, *, way: Way = Way.BOTH) -> None:
        """No node hears it; it still reaches Ceph."""
        self.cut(name, *(each for each in self._nodes if each != name), way=way)

    def split(self, *halves: Iterable[str]) -> None:
        """Machines of different groups do not reach each other."""
        for one, other in itertools.combinations([list(half) for half in halves], 2):
            for name in one:
                self.cut(name, *other)

    def mend(self, name: str, *peers: str) -> None:
        """Undo what was cut between the machine and the peers (none: everybody)."""
        ends = {frozenset((name, peer)) for peer in self._peers(name, peers)}
        kept = {cut for cut in self._switch.cuts() if frozenset((cut.source, cut.target)) not in ends}
        self._switch.set_cuts(frozenset(kept))

    def slow(
        self,
        name: str,
        *peers: str,
        delay: float = 0.0,
        jitter: float = 0.0,
        loss: float = 0.0,
        way: Way = Way.BOTH,
    ) -> None:
        """What passes between the machine and the peers (none: everybody) comes later, by `delay` and up to
        `jitter` seconds more each way, or not at all with the probability `loss`. The last call counts."""
        self._running(name)
        addresses = tuple(self._host(peer).address.ip for peer in peers)
        wire = Wire(
            delay=delay,
            jitter=jitter,
            loss=loss,
            inward=way is not Way.OUT,
            outward=way is not Way.IN,
            peers=addresses,
        )
        self._switch.set_wire(name, wire)

    # All at once.

    def heal(self) -> None:
        """Links are as new, frozen processes go on, machines that are off boot, dead daemons start."""
        self._switch.set_cuts(frozenset())
        for name in self._switch.wires():
            self._switch.set_wire(name, None)
        for host in self._hosts.values():
            host.power_on()
            host.thaw()
        if not self._storage.complete():
            self._storage.start()
        with ThreadPoolExecutor(len(self._nodes)) as workers:
            list(workers.map(Node.start, self._nodes.values()))

    def restart_all(self) -> None:
        """A power cut of every node while Ceph is shut down in order, and everything on again."""
        self._storage.stop()
        for node in self._nodes.values():
            node.host.power_cut()
        self.heal()

    def _signal(self, name: str, daemon: str, number: int) -> None:
        if name == self._storage.host.name:
            (self._storage.kill if number == signal.SIGKILL else self._storage.end)(daemon)
        else:
            self._host(name).end(daemon, number)

    def _peers(self, name: str, peers: tuple[str, ...]) -> list[str]:
        self._host(name)
        for peer in peers:
            self._host(peer)
        return list(peers) or [each for each in self._hosts if each != name]

    def _chosen(self, names: tuple[str, ...]) -> list[Host]:
        return [self._host(name) for name in names]

    def _running(self, name: str) -> Host:
        host = self._host(name)
        if not host.on():
            raise LabFailed(f"{name} is off; switch it on first: power-on {name}")
        return host

    def _node(self, name: str) -> Node:
        self._host(name)
        return self._nodes[name]

    def _host(self, name: str) -> Host:
        if name not in self._hosts:
            raise LabFailed(f"there is no machine '{name}'; there are {', '.join(sorted(self._hosts))}")
        return self._hosts[name]
