"""Checks of a node of a cluster: its configuration, Ceph and the mesh, as far as they are configured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from reconciler.resources.errors import VclError
from vcl import here
from vcl.checks import ceph, mesh
from vcl.checks.machine import Daemon, Finding, Level, Machine
from vcl.node_config import NodeConfig, read_config

if TYPE_CHECKING:
    from reconciler.adapters.rados.probe import Diagnosis

CLIENTS = {"ceph-mgr": "a Ceph manager", "ceph-mds": "a CephFS metadata server"}


def configuration(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """vcld's configuration can be used, if there is one."""
    try:
        config = read_config(machine.path(machine.config))
    except (VclError, OSError) as error:
        cure = f"`vcld --config {machine.config} --check` names each problem"
        yield Finding(check="config", level=Level.FAIL, message=f"{machine.config} cannot be used", cure=cure)
        if isinstance(error, OSError):
            yield Finding(
                check="config", level=Level.WARN, message=str(error), cure="run this as root to check it"
            )
        return
    if config is not None:
        yield Finding(check="config", level=Level.OK, message=f"{machine.config} is valid")


def cluster(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """What this node shares with the others."""
    config = usable_config(machine)
    if config is None or not (config.in_ceph or config.clustered):
        return
    diagnosis: Diagnosis | None = None
    if config.in_ceph:
        pools = ceph.image_pools(vcld)
        try:
            here.require_rados()
            diagnosis = machine.ceph(ceph.place_of(config), pools)
        except VclError as error:
            yield Finding(check="ceph", level=Level.FAIL, message=error.message, cure=error.cure)
        else:
            yield from ceph.findings(machine, config, diagnosis, pools)
    if config.clustered:
        yield from mesh.findings(machine, vcld, config)
    if config.clustered and diagnosis is not None:
        yield from mesh.peers(machine, config, diagnosis)


def other_clients(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """Fencing a node cuts every Ceph client on its addresses, not only its guests."""
    config = usable_config(machine)
    if config is None or not (config.in_ceph and config.clustered):
        return
    running = {
        (machine.text(f"/proc/{entry.name}/comm") or "").strip()
        for entry in machine.path("/proc").glob("[0-9]*")
    }
    found = [words for name, words in CLIENTS.items() if name in running]
    mounts = [line.split() for line in (machine.text("/proc/mounts") or "").splitlines()]
    found += [f"CephFS at {fields[1]}" for fields in mounts if len(fields) > 2 and fields[2] == "ceph"]
    found += [f"the mapped image rbd{entry.name}" for entry in machine.path("/sys/bus/rbd/devices").glob("*")]
    if found:
        yield Finding(
            check="ceph-clients",
            level=Level.WARN,
            message=f"if this node is ever fenced, these lose Ceph too: {', '.join(found)}",
            cure="have a standby of each on another host; CephFS and mapped images come back with a reboot",
        )


def usable_config(machine: Machine) -> NodeConfig | None:
    """The configuration; `configuration` tells what is wrong with it."""
    try:
        return read_config(machine.path(machine.config))
    except (VclError, OSError):
        return None
