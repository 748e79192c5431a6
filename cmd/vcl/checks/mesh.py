"""Checks of the mesh: its files are private and fit together, the port works, the others answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.resources.errors import InvalidInput, VclError
from vcl import here
from vcl.checks.machine import Daemon, Finding, Level, Machine
from vcl.node_config import NodeConfig

if TYPE_CHECKING:
    from reconciler.adapters.rados.probe import Diagnosis

SOON = timedelta(days=60)


def findings(machine: Machine, vcld: Daemon, config: NodeConfig) -> Iterator[Finding]:
    """What can be told without the others."""
    yield from _secret(machine, config)
    if config.value("mesh", "tls") == "on":
        yield from _certificate(machine, config)
    yield from _listening(machine, vcld, config)


def peers(machine: Machine, config: NodeConfig, diagnosis: Diagnosis) -> Iterator[Finding]:
    """Every other member can be reached from here, and this node is one."""
    from reconciler.resources.membership import Member
    from reconciler.resources.records import load

    me = _node(machine, config)
    if diagnosis.members and me not in diagnosis.members:
        yield Finding(
            check="members",
            level=Level.WARN,
            message=f"this node, {me}, is none of the members {', '.join(sorted(diagnosis.members))}",
            cure="it becomes one when its vcld starts; if it has another name there, set `node`",
        )
    for name, value in sorted(diagnosis.members.items()):
        if name == me:
            continue
        try:
            member = load(Member, value)
        except (InvalidInput, ValueError):
            continue
        yield _peer(name, f"{member.address}:{member.port}", machine.dial(member.address, member.port))
    if len(diagnosis.members) == 2:
        yield Finding(
            check="members",
            level=Level.WARN,
            message="the cluster has two nodes: when one fails, one is no majority, and nothing fails over",
            cure="add a third node with `vcl init --node NAME=ADDRESS`; it need not run VMs",
        )


def _peer(name: str, where: str, problem: str) -> Finding:
    if not problem:
        return Finding(check="peers", level=Level.OK, message=f"{name} answers on {where}")
    if problem == here.REFUSED:
        return Finding(
            check="peers",
            level=Level.WARN,
            message=f"{name} ({where}) is there, but nobody listens",
            cure=f"start vcld on {name}",
        )
    return Finding(
        check="peers",
        level=Level.WARN,
        message=f"{name} ({where}) cannot be reached: {problem}",
        cure="look at the host, the network in between, and at firewalls on both ends",
    )


def _secret(machine: Machine, config: NodeConfig) -> Iterator[Finding]:
    from reconciler.adapters.mesh.files import load_secret

    try:
        load_secret(_path(machine, config, "secretFile"))
    except VclError as error:
        yield _failed("mesh-secret", error, machine)
    else:
        yield Finding(
            check="mesh-secret", level=Level.OK, message="the cluster's secret is there, and private"
        )


def _certificate(machine: Machine, config: NodeConfig) -> Iterator[Finding]:
    """Key, certificate and authority fit, for this node, today and for a while."""
    from reconciler.adapters.mesh.options import TlsFiles
    from reconciler.adapters.mesh.tls import load_contexts
    from reconciler.adapters.pki import read_certificate

    node = _node(machine, config)
    files = TlsFiles(
        ca=_path(machine, config, "caFile"),
        cert=_path(machine, config, "certFile"),
        key=_path(machine, config, "keyFile"),
    )
    try:
        load_contexts(files, node)
    except VclError as error:
        yield _failed("mesh-certificate", error, machine)
        return
    try:
        until = min(read_certificate(path).valid_until for path in (files.cert, files.ca))
    except VclError as error:
        yield _failed("mesh-certificate", error, machine, Level.WARN)
        return
    if until - machine.now() < SOON:
        yield Finding(
            check="mesh-certificate",
            level=Level.WARN,
            message=f"this node's certificate ends on {until:%Y-%m-%d}; then the others refuse it",
            cure="make a new one in time: docs/operations.md, 'Certificates'",
        )
    else:
        yield Finding(
            check="mesh-certificate",
            level=Level.OK,
            message=f"the certificate is this node's ({node}), and valid until {until:%Y-%m-%d}",
        )


def _listening(machine: Machine, vcld: Daemon, config: NodeConfig) -> Iterator[Finding]:
    """The address is this host's; vcld listens, or could."""
    address, port = str(config.value("address")), int(config.value("mesh", "port"))
    wrong = machine.address(address)
    if wrong:
        yield Finding(
            check="mesh-port",
            level=Level.FAIL,
            message=f"{wrong}, and `address` in {machine.config} says so",
            cure="give it to this host, or correct `address`",
        )
        return
    problem = machine.dial(address, port) if vcld.answers else machine.port(address, port)
    if not problem:
        state = "vcld listens" if vcld.answers else "vcld can listen"
        yield Finding(check="mesh-port", level=Level.OK, message=f"{state} on {address}:{port}")
    elif vcld.answers:
        yield Finding(
            check="mesh-port",
            level=Level.FAIL,
            message=f"vcld runs, but nobody answers on {address}:{port}: {problem}",
            cure="look at `vcl logs` for the mesh, and at this host's firewall",
        )
    else:
        yield Finding(
            check="mesh-port",
            level=Level.FAIL,
            message=problem,
            cure="stop that program (`ss -ltnp` names it), or change `mesh.port` on all nodes",
        )


def _failed(check: str, error: VclError, machine: Machine, level: Level = Level.FAIL) -> Finding:
    root = "" if machine.root == Path("/") else str(machine.root)
    return Finding(
        check=check, level=level, message=error.message.replace(root, ""), cure=error.cure.replace(root, "")
    )


def _node(machine: Machine, config: NodeConfig) -> str:
    return str(config.value("node") or machine.name())


def _path(machine: Machine, config: NodeConfig, name: str) -> Path:
    return machine.path(str(config.value("mesh", name)))
