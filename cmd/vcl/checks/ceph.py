"""Checks of Ceph: it answers, is well and has room, and vcl's user may do all that failover needs.

The rights are not read but tried out (reconciler/adapters/rados/probe.py): only that proves them.
"""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vcl.checks.machine import Daemon, Finding, Level, Machine
from vcl.node_config import NodeConfig

if TYPE_CHECKING:
    from reconciler.adapters.rados.link import Place
    from reconciler.adapters.rados.probe import Diagnosis, PoolFacts, Right

FAST = {
    "osd_heartbeat_grace": ("global", 8.0),
    "osd_heartbeat_interval": ("osd", 2.0),
    "mon_lease": ("mon", 2.0),
    "mon_election_timeout": ("mon", 2.0),
    "paxos_propose_interval": ("mon", 0.25),
    "mon_client_ping_interval": ("global", 2.0),
    "mon_client_ping_timeout": ("global", 4.0),
}
"""Settings with which Ceph goes on soon after the death of a host that also ran OSDs or a monitor: whose they
are, and the value; 28 s became 12 s in a trial with three hosts. The monitors' own interval is what every
entry of the blocklist waits for, wherever Ceph runs."""
RECLAIM = "auth_allow_insecure_global_id_reclaim"
RBD_EXPIRY, DEFAULT_EXPIRY = "rbd_blocklist_expire_seconds", "mon_osd_blocklist_default_expire"
LASTING = {
    RBD_EXPIRY: ("client", "an RBD client that takes over a dead one's image"),
    DEFAULT_EXPIRY: ("mon", "`ceph osd blocklist add` by hand"),
}
"""How long an entry of the blocklist lasts, in seconds: whose setting it is, and whose entries these are.
vcl's own and those of its guests last for years whatever is set here; this is about everybody else's."""
YEAR, TEN_YEARS = 365 * 86400, 315360000
COPIES, LEAST_COPIES = 3, 2
MOSTLY_FULL = 0.85
MAKE_ROOM = "add OSDs, or remove data"


def place_of(config: NodeConfig) -> Place:
    """Where the configured store is."""
    from reconciler.adapters.rados.link import Place

    fields = ("conf", "user", "pool", "namespace", "object")
    return Place(**{name: str(config.value("store", name)) for name in fields})


def image_pools(vcld: Daemon) -> list[str]:
    """The Ceph pools of the StoragePools that vcld knows."""
    specs = [pool.get("spec") or {} for pool in vcld.pools]
    return sorted({str(spec["rbd"]["pool"]) for spec in specs if (spec.get("rbd") or {}).get("pool")})


def findings(
    machine: Machine, config: NodeConfig, diagnosis: Diagnosis, images: Sequence[str]
) -> Iterator[Finding]:
    """All that was found, in words."""
    place = place_of(config)
    yield Finding(check="ceph", level=Level.OK, message=f"Ceph {diagnosis.fsid} answers client.{place.user}")
    yield from _keyring(machine, diagnosis)
    yield from _health(diagnosis)
    for name in (place.pool, *images):
        yield from _pool(name, diagnosis.pools.get(name))
    yield from _rights(place, diagnosis, images)
    if diagnosis.state:
        yield Finding(
            check="state",
            level=Level.FAIL,
            message=f"the cluster's state cannot be read: {diagnosis.state}",
            cure="`vcl init` makes it, on the first node; if it was there once, find out who removed it",
        )
    yield from _settings(diagnosis)


def _keyring(machine: Machine, diagnosis: Diagnosis) -> Iterator[Finding]:
    path = machine.path(diagnosis.keyring)
    if diagnosis.keyring and path.is_file() and path.stat().st_mode & 0o077:
        yield Finding(
            check="ceph",
            level=Level.FAIL,
            message=f"{diagnosis.keyring} is open to others (mode {stat.S_IMODE(path.stat().st_mode):04o})",
            cure=f"chmod 600 {diagnosis.keyring}",
        )


def _health(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Ceph's own complaints; those about room stand apart."""
    full = {name: words for name, words in diagnosis.health.items() if "FULL" in name}
    for name, words in sorted(full.items()):
        level = Level.WARN if "NEAR" in name else Level.FAIL
        yield Finding(
            check="ceph-space",
            level=level,
            message=f"Ceph: {words} ({name})",
            cure=MAKE_ROOM,
        )
    if not full:
        yield Finding(check="ceph-space", level=Level.OK, message="no OSD and no pool of Ceph is nearly full")
    rest = [f"{words} ({name})" for name, words in sorted(diagnosis.health.items()) if name not in full]
    if rest:
        level = Level.FAIL if diagnosis.status == "HEALTH_ERR" else Level.WARN
        yield Finding(
            check="ceph-health",
            level=level,
            message=f"Ceph says {diagnosis.status}: {'; '.join(rest)}",
            cure="`ceph health detail` says more",
        )
    elif not full:
        yield Finding(check="ceph-health", level=Level.OK, message=f"Ceph says {diagnosis.status}")


def _pool(name: str, pool: PoolFacts | None) -> Iterator[Finding]:
    if pool is None:
        yield Finding(
            check="ceph-pool",
            level=Level.FAIL,
            message=f"Ceph has no pool {name}",
            cure="run `vcl init` again on the first node, or look at the configured name",
        )
    elif pool.erasure:
        yield Finding(
            check="ceph-pool",
            level=Level.FAIL,
            message=f"the pool {name} is erasure-coded, which cannot hold what vcl keeps in it",
            cure="use a replicated pool",
        )
    elif pool.size < COPIES or pool.min_size < LEAST_COPIES:
        yield Finding(
            check="ceph-pool",
            level=Level.WARN,
            message=f"the pool {name} keeps {pool.size} copies and writes with {pool.min_size}: one failure "
            "can lose data or stop it",
            cure=f"ceph osd pool set {name} size {COPIES}; ceph osd pool set {name} min_size {LEAST_COPIES}",
        )
    elif pool.used >= MOSTLY_FULL:
        yield Finding(
            check="ceph-pool",
            level=Level.WARN,
            message=f"the pool {name} is {pool.used:.0%} full",
            cure=MAKE_ROOM,
        )
    else:
        yield Finding(check="ceph-pool", level=Level.OK, message=f"the pool {name} keeps {pool.size} copies")


def _rights(place: Place, diagnosis: Diagnosis, images: Sequence[str]) -> Iterator[Finding]:
    """Each thing that was refused, with the command that allows it."""
    from reconciler.adapters.rados.caps import vcl_caps

    refused = [right for right in _needed(diagnosis, images) if right.refused]
    caps = vcl_caps(place.pool, place.namespace, images or _images_of(diagnosis))
    command = " ".join(f"{service} {shlex.quote(clauses)}" for service, clauses in caps.items())
    for right in refused:
        yield Finding(
            check="ceph-rights",
            level=Level.FAIL,
            message=f"client.{place.user} may not do '{right.name}', which failover needs: {right.refused}",
            cure="run `vcl init` again where client.admin's keyring is, or: "
            f"ceph auth caps client.{place.user} {command}",
        )
    if not refused:
        tried = ", ".join(right.name for right in _needed(diagnosis, images))
        yield Finding(check="ceph-rights", level=Level.OK, message=f"client.{place.user} can do: {tried}")


def _needed(diagnosis: Diagnosis, images: Sequence[str]) -> list[Right]:
    """What counts. As long as no StoragePool names a pool, one of Ceph's pools for images must do."""
    locks = [right for right in diagnosis.rights if right.name.startswith("lock break")]
    others = [right for right in diagnosis.rights if right not in locks]
    allowed = [right for right in locks if not right.refused]
    return [*others, *(locks if images or not allowed else allowed)]


def _images_of(diagnosis: Diagnosis) -> list[str]:
    return sorted(name for name, pool in diagnosis.pools.items() if "rbd" in pool.applications)


def _settings(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Advice: what Ceph could be told to notice a dead host sooner."""
    slow = [name for name, (_, value) in FAST.items() if _number(diagnosis.settings.get(name)) > value]
    if slow:
        now = ", ".join(f"{name} {_number(diagnosis.settings[name]):g} ({FAST[name][1]:g})" for name in slow)
        commands = "; ".join(f"ceph config set {FAST[name][0]} {name} {FAST[name][1]:g}" for name in slow)
        yield Finding(
            check="ceph-settings",
            level=Level.WARN,
            message="where hosts run VMs and OSDs, Ceph stalls for long after a host's death: "
            f"{now}; in brackets what is faster",
            cure=f"{commands} (docs/operations.md says what that costs)",
        )
    if diagnosis.settings.get(RECLAIM) in ("true", "1"):
        yield Finding(
            check="ceph-settings",
            level=Level.WARN,
            message=f"{RECLAIM} is true: a client could take another one's place",
            cure=f"once all clients are of this century: ceph config set mon {RECLAIM} false",
        )
    yield from _lasting(diagnosis)
    if not slow and diagnosis.settings.get(RECLAIM) not in ("true", "1"):
        yield Finding(check="ceph-settings", level=Level.OK, message="Ceph is set to notice a dead host soon")


def _lasting(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Advice: a client that outlives its entry writes again (SAFETY rule 11)."""
    known = {name: _number(diagnosis.settings[name]) for name in LASTING if diagnosis.settings.get(name)}
    if known.get(RBD_EXPIRY) == 0.0:  # Ceph's own default: the monitors' time
        known = {name: known.get(DEFAULT_EXPIRY, YEAR) for name in known}
    short = [name for name, seconds in sorted(known.items()) if seconds < YEAR]
    for name in short:
        section, who = LASTING[name]
        yield Finding(
            check="ceph-blocklist",
            level=Level.WARN,
            message=f"{who} shuts a client out for {known[name]:g} s only, and then it writes again ({name})",
            cure=f"ceph config set {section} {name} {TEN_YEARS}",
        )
    if known and not short:
        message = "whoever shuts a client out does it for years, by Ceph's configuration too"
        yield Finding(check="ceph-blocklist", level=Level.OK, message=message)


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
