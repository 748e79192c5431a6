"""`vcl init`, step by step: Ceph, the secret and the certificates, the store, this node's configuration, and
a bundle for each of the others.

Invariant: a node never gets a second secret or authority. What is there is used; what is there and does not
fit stops it before the first change.
"""

from __future__ import annotations

import secrets
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.resources.errors import InvalidInput
from vcl import here
from vcl.init_plan import SQLITE, InitPlan
from vcl.join_bundle import CA, CERTIFICATE, KEY, SECRET, Bundle, write_bundle
from vcl.node_config import config_text, disagreements
from vcl.node_files import OPEN_MODE, SECRET_MODE, Hand

if TYPE_CHECKING:
    from reconciler.loops.founding import Founded, Known, Seat
    from reconciler.resources.membership import Member


def found_cluster(plan: InitPlan, hand: Hand) -> None:
    """Make what is missing, and say what to do next. Raises VclError, OSError."""
    if plan.store == SQLITE:
        said = plan.config_of(_own_seat(plan), 0)
        _require_config(plan, said)
        _write_config(plan, said, hand)
        print(f"\nNext: start vcld, and see how it does.\n\n  {here.START}\n  vcl doctor")
        return
    here.require_rados()
    from vcl import init_ceph

    init_ceph.prepare(plan.ceph, hand)
    known = _look(plan, hand)
    _require_fit(plan, known)
    _make_secrets(plan, hand)
    founded = _found(plan, hand, known)
    _write_config(plan, _config(plan, founded.members), hand)
    bundles = [_make_bundle(plan, seat, founded, hand) for seat in plan.seats if seat.name != plan.this]
    print(_next_steps(plan, founded, bundles))


def _own_seat(plan: InitPlan) -> Seat:
    from reconciler.loops.founding import Seat

    return Seat(name=plan.this, address=plan.address, port=plan.port)


def _look(plan: InitPlan, hand: Hand) -> Known:
    """What the store says; in a dry run only if there is one."""
    from reconciler.loops.founding import Known, look
    from reconciler.resources.errors import StoreUnavailable
    from vcl.init_ceph import has_state, with_store

    nothing = Known(cluster=None, members={}, revisions={})
    try:
        if not has_state(plan.ceph):
            return nothing
    except StoreUnavailable:
        if not hand.dry:
            raise
        return nothing
    return with_store(plan.ceph, look)


def _require_fit(plan: InitPlan, known: Known) -> None:
    """Raises InvalidInput when what is there is not what is asked for, before the node is changed."""
    from reconciler.loops.founding import seated

    members = seated(known, plan.cluster, plan.seats)
    others = sorted(set(known.members) - {plan.this})
    if others and not plan.files.secret.exists():
        raise InvalidInput(
            f"the cluster '{plan.cluster}' is there already, with {', '.join(others)}, and this host does "
            f"not have its secret ({plan.files.secret})",
            cure="run this on the node on which the cluster was made; to bring this host in, name it there "
            "with --node, copy its bundle here and run `vcl join`",
        )
    _require_config(plan, _config(plan, members))


def _config(plan: InitPlan, members: Mapping[str, Member]) -> dict[str, Any]:
    """This node's whole configuration."""
    mine = members.get(plan.this)
    said = plan.config_of(_own_seat(plan), mine.rank if mine else 0)
    return {**said, "mesh": plan.files.mesh(port=plan.port, tls=plan.tls)}


def _require_config(plan: InitPlan, said: Mapping[str, Any]) -> None:
    """Raises InvalidInput when a configuration is there that says otherwise. A rank in it is its own."""
    if plan.config is None:
        return
    want = {name: value for name, value in said.items() if name != "rank" or "rank" not in plan.config.said}
    wrong = disagreements(plan.config, want)
    if wrong:
        raise InvalidInput(
            f"{plan.files.config} is there and does not fit",
            problems=tuple(wrong),
            cure="write these fields into it (the rest may stay), or move it away; then run this again",
        )


def _make_secrets(plan: InitPlan, hand: Hand) -> None:
    """The secret, the authority and this node's certificate."""
    from reconciler.adapters.pki import make_ca, make_node_certificate

    files = plan.files
    if files.secret.exists():
        hand.kept(f"{files.secret}")
    else:
        hand.put(files.secret, f"{secrets.token_hex(32)}\n".encode(), SECRET_MODE)
    if not plan.tls:
        return
    authority_needed = not (files.ca.exists() and files.certificate.exists() and files.key.exists())
    for path, what in (
        (files.ca, " and ca.key: the cluster's own authority"),
        (files.certificate, " and node.key"),
    ):
        (hand.kept if path.exists() else hand.did)(f"{path}{what}")
    if authority_needed and not hand.dry:
        make_ca(files.directory, plan.cluster)
        make_node_certificate(files.directory, plan.this, [plan.address], into=files.directory)


def _found(plan: InitPlan, hand: Hand, known: Known) -> Founded:
    """Write the members, and say so."""
    from reconciler.adapters.clock import SystemClock, SystemIds
    from reconciler.loops.founding import Founded, found, seated
    from reconciler.resources.records import ClusterRecord
    from vcl.init_ceph import place_of, with_store

    seats = plan.seats
    if hand.dry:
        members = seated(known, plan.cluster, seats)
        cluster = known.cluster or ClusterRecord(uid="", name=plan.cluster, created="")
        added = tuple(name for name in members if name not in known.members)
        founded = Founded(cluster=cluster, members=members, added=added)
    else:
        founded = with_store(
            plan.ceph, lambda store: found(store, plan.cluster, seats, SystemClock(), SystemIds())
        )
    where = place_of(plan.ceph)
    for seat in seats:
        (hand.did if seat.name in founded.added else hand.kept)(f"member {seat.name} in the store {where}")
    return founded


def _write_config(plan: InitPlan, said: Mapping[str, Any], hand: Hand) -> None:
    if plan.config is not None:
        hand.kept(str(plan.files.config))
    else:
        hand.put(plan.files.config, config_text(said, "vcl init").encode(), OPEN_MODE)


def _make_bundle(plan: InitPlan, seat: Seat, founded: Founded, hand: Hand) -> Path:
    """The bundle of another node, unless it is there."""
    path = plan.files.bundle(seat.name)
    if path.exists():
        hand.kept(str(path))
        return path
    if hand.dry:
        hand.did(str(path))
        return path
    from vcl.init_ceph import keyrings

    bundle = Bundle(
        node=seat.name,
        cluster=plan.cluster,
        uid=founded.cluster.uid,
        config=plan.config_of(seat, founded.members[seat.name].rank),
        files=_bundle_files(plan, seat),
        ceph_conf=Path(plan.ceph.conf).read_text(encoding="utf-8"),
        keyrings=keyrings(plan.ceph),
    )
    path.parent.mkdir(exist_ok=True, mode=0o700)
    hand.put(path, write_bundle(bundle), SECRET_MODE)
    return path


def _bundle_files(plan: InitPlan, seat: Seat) -> dict[str, str]:
    """The secret, and with TLS a new key and certificate, which stay nowhere but in the bundle."""
    from reconciler.adapters.pki import make_ca, make_node_certificate

    found = {SECRET: plan.files.secret.read_text(encoding="utf-8")}
    if not plan.tls:
        return found
    make_ca(plan.files.directory, plan.cluster)
    with tempfile.TemporaryDirectory(prefix="vcl-init-") as name:
        pair = make_node_certificate(plan.files.directory, seat.name, [seat.address], into=Path(name))
        found[CA] = plan.files.ca.read_text(encoding="ascii")
        found[CERTIFICATE] = pair.certificate.read_text(encoding="ascii")
        found[KEY] = pair.key.read_text(encoding="ascii")
    return found


def _next_steps(plan: InitPlan, founded: Founded, bundles: list[Path]) -> str:
    members = sorted(founded.members, key=lambda name: (founded.members[name].rank, name))
    majority = len(members) // 2 + 1
    lines = [
        "",
        f"Cluster {plan.cluster}: {', '.join(members)}. A majority is {majority} of {len(members)}: with "
        "fewer nodes there is no master, and nothing is started or moved.",
    ]
    if len(members) == 2:
        lines.append(
            "Two nodes have NO AUTOMATIC FAILOVER: a majority of two is two, so when one fails the other "
            "starts nothing by itself. A third node, however small, changes that."
        )
    lines += ["", "Next:"]
    if bundles:
        lines.append("  * Bring each bundle to its node, on a safe way: there are keys in it. For example:")
        for seat, path in zip((s for s in plan.seats if s.name != plan.this), bundles, strict=True):
            lines.append(f"      scp {shlex.quote(str(path))} root@{seat.address}:")
        lines.append("  * There: `vcl join NODE.vcl`. Then remove the bundle, there and here.")
    lines += [f"  * Here: {here.START}", "  * On each node: vcl doctor"]
    if plan.tls:
        lines.append(f"  * Keep a copy of {plan.files.directory / 'ca.key'} in a safe place.")
    return "\n".join(lines)
