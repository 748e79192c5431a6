"""What `vcl init` is to do: the command line, completed by the configuration that is there, and checked.

Every problem that can be seen beforehand is named at once, before anything is written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.loops.founding import Seat
from reconciler.resources.errors import InvalidInput
from reconciler.resources.kinds import valid_name
from vcl import here
from vcl.node_config import NodeConfig, default, read_config
from vcl.node_files import NodeFiles

RADOS, SQLITE = "rados", "sqlite"
IMAGE_POOL = "vms"
"""Where images live unless said otherwise; only for a node that is not set up yet."""
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]+|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command line. None and empty: not said."""

    name: str | None = None
    nodes: Sequence[str] = ()
    this: str | None = None
    store: str | None = None
    pool: str | None = None
    namespace: str | None = None
    user: str | None = None
    conf: str | None = None
    port: int | None = None
    tls: str | None = None
    images: Sequence[str] = ()
    qemu_user: str = "qemu"
    admin: str = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class CephAsked:
    """Where the state is to be, and as whom; users without `client.`."""

    conf: str
    pool: str
    namespace: str
    object: str
    user: str
    qemu_user: str
    admin: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InitPlan:
    """`seats`: the nodes as named, in their order; `this` is the one on which it runs, at `address`.
    `config`: the configuration that is there already."""

    cluster: str
    seats: tuple[Seat, ...]
    this: str
    address: str
    store: str
    tls: bool
    port: int
    ceph: CephAsked
    files: NodeFiles
    config: NodeConfig | None

    def config_of(self, seat: Seat, rank: int) -> dict[str, Any]:
        """A node's vcld.yaml, but for the paths of the mesh's files."""
        said = {"node": seat.name, "cluster": self.cluster, "address": seat.address, "rank": rank}
        if self.store == SQLITE:
            return {"node": seat.name, "cluster": self.cluster, "store": {"type": SQLITE}}
        store = {
            "type": RADOS,
            "conf": self.ceph.conf,
            "user": self.ceph.user,
            "pool": self.ceph.pool,
            "namespace": self.ceph.namespace,
        }
        if self.ceph.object != default("store", "object"):
            store["object"] = self.ceph.object
        return {**said, "store": store, "mesh": {"port": seat.port, "tls": "on" if self.tls else "off"}}


def make_plan(asked: Asked, files: NodeFiles) -> InitPlan:
    """The plan. Raises InvalidInput with every problem."""
    config = read_config(files.config)
    port = asked.port or _configured(config, "mesh", "port")
    seats = tuple(_seats(asked.nodes, port))
    this = asked.this or (config.value("node") if config else None) or here.name()
    mine = [seat.address for seat in seats if seat.name == this]
    address = mine[0] if mine else str(_configured(config, "address"))
    store = asked.store or (RADOS if config is None else config.value("store", "type"))
    plan = InitPlan(
        cluster=asked.name or _configured(config, "cluster"),
        seats=seats,
        this=this,
        address=address,
        store=store,
        tls=(asked.tls or _configured(config, "mesh", "tls")) == "on",
        port=port,
        ceph=_ceph(asked, config),
        files=files,
        config=config,
    )
    problems = tuple(_problems(plan, asked))
    if problems:
        many = f"{len(problems)} things are in the way" if len(problems) > 1 else problems[0]
        raise InvalidInput(
            f"{many}; nothing was changed", problems=problems if len(problems) > 1 else (), cure=_CURE
        )
    return plan


def _ceph(asked: Asked, config: NodeConfig | None) -> CephAsked:
    return CephAsked(
        conf=asked.conf or _configured(config, "store", "conf"),
        pool=asked.pool or _configured(config, "store", "pool"),
        namespace=asked.namespace or _configured(config, "store", "namespace"),
        object=_configured(config, "store", "object"),
        user=asked.user or _configured(config, "store", "user"),
        qemu_user=asked.qemu_user,
        admin=asked.admin,
        images=tuple(dict.fromkeys(asked.images or (() if config else (IMAGE_POOL,)))),
    )


def _configured(config: NodeConfig | None, *names: str) -> Any:
    return default(*names) if config is None else config.value(*names)


def _seats(nodes: Sequence[str], port: int) -> Iterator[Seat]:
    for text in nodes:
        name, equals, address = text.partition("=")
        if not equals or not valid_name(name) or not _ADDRESS.fullmatch(address):
            raise InvalidInput(
                f"--node {text} says no node", cure="write --node NAME=IP-ADDRESS, such as r1=10.0.0.1"
            )
        yield Seat(name=name, address=address, port=port)


def _problems(plan: InitPlan, asked: Asked) -> Iterator[str]:
    names = Counter(seat.name for seat in plan.seats)
    addresses = Counter(seat.address for seat in plan.seats)
    yield from (f"node {name} is named {count} times" for name, count in names.items() if count > 1)
    yield from (f"{count} nodes have the address {where}" for where, count in addresses.items() if count > 1)
    if not plan.seats and plan.config is None:
        yield "no node is named: write --node NAME=ADDRESS for each, this one among them"
    elif plan.this not in names and plan.config is None:
        yield (
            f"this host is called {plan.this}, which is none of the nodes {', '.join(names)}: run this on "
            "the first of them, or say which one it is with --this NAME"
        )
    if not valid_name(plan.cluster):
        yield f"'{plan.cluster}' cannot be a cluster's name: use letters, digits, '-' and '.'"
    if plan.store not in (RADOS, SQLITE):
        yield f"--store {plan.store}: use rados or sqlite"
    if asked.tls not in (None, "on", "off"):
        yield f"--tls {asked.tls}: use on or off"
    if plan.store == SQLITE and len(names | Counter([plan.this])) > 1:
        yield "a sqlite store is a file of one host: several nodes need --store rados, a Ceph cluster"
    if plan.store == RADOS:
        yield from _cluster_problems(plan)


def _cluster_problems(plan: InitPlan) -> Iterator[str]:
    """What is in the way of a node with Ceph and a mesh."""
    if plan.ceph.pool in plan.ceph.images:
        yield (
            f"images cannot live in the pool {plan.ceph.pool}, which holds the cluster's state: QEMU's user "
            "could write to it; name another one with --image-pool"
        )
    if plan.ceph.user == plan.ceph.qemu_user:
        yield f"vcl and QEMU need different Ceph users, not both {plan.ceph.user}"
    if plan.tls and not here.has("openssl"):
        yield "the command openssl is missing: install the package openssl"
    mine = [seat for seat in plan.seats if seat.name == plan.this]
    if not mine:
        return
    wrong = here.address_problem(plan.address)
    if wrong:
        yield f"{wrong}, which is to be node {plan.this}"
    elif plan.config is None and (taken := here.port_problem(plan.address, plan.port)):
        yield f"{taken}: stop that, or choose another one for all nodes with --port"


_CURE = "see `vcl init --help`"
