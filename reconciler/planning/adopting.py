"""Whether an existing domain may become a VM of the cluster, and the records that make it one.

SAFETY rule 9: spec, binding and claim of a domain that runs are one transaction. Invariant: nothing here ever
replaces a record of another VM: every key that is written is compared with what was looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.planning.desired import Desired, Wish
from reconciler.resources import keys
from reconciler.resources.domains import Stranger
from reconciler.resources.errors import AlreadyExists, ConflictError, InvalidInput, NotFound, VclError
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Binding, Claim, DiskClaim, SpecRecord, dump


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """A domain and the VM that it is to be. `uuid`: the domain's; `running`: so its XML says."""

    vm: str
    domain: str
    uuid: str
    running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the store has under the VM's name. `uids`: of all VMs, by uid."""

    exists: bool
    bound: bool
    claim: Claim | None
    uids: Mapping[str, str] = field(default_factory=dict)


def refuse_name(names: Names, standing: Standing) -> None:
    """Raises AlreadyExists or ConflictError when the name or the UUID is another VM's."""
    if standing.exists:
        raise AlreadyExists(
            f"there is a VM '{names.vm}' already",
            cure=f"adopt it under another name: --rename '{names.domain}=NAME'",
        )
    owner = standing.uids.get(names.uuid) if names.uuid else None
    if owner is not None:
        raise AlreadyExists(
            f"domain '{names.domain}' has the UUID of the VM '{owner}': it is that VM already"
        )
    if standing.bound or (standing.claim is not None and standing.claim.node):
        raise ConflictError(
            f"an earlier VM '{names.vm}' is not quite gone: its records are still there",
            cure="try again in a moment; `vcl cluster placement` shows who owns it",
        )


def runs_here(names: Names, found: Stranger | None, node: str, cluster_uid: str) -> bool:
    """Whether the domain is one of this host that runs, to be taken over; False for one that is off.

    Raises VclError with the cure for a domain that runs and cannot be taken over.
    """
    here = found is not None and found.uuid == names.uuid
    if not here or found is None:
        if names.running:
            raise NotFound(
                f"domain '{names.domain}' runs, and not on node {node}: only a host's own vcld can take over "
                "what runs there",
                cure="run vcl adopt on a node on whose libvirt it runs; or shut it down and adopt it then",
            )
        return False
    _refuse_marked(names, found, node, cluster_uid)
    if found.obstacle:
        raise ConflictError(f"domain '{names.domain}': {found.obstacle}")
    if found.running and names.vm != names.domain:
        raise InvalidInput(
            f"domain '{names.domain}' runs: its name cannot be changed to '{names.vm}'",
            cure=f"shut it down, rename it (virsh domrename '{names.domain}' {names.vm}), then adopt it",
        )
    if names.running and not found.running:
        raise ConflictError(f"domain '{names.domain}' has ended meanwhile", cure="run vcl adopt again")
    return found.running


def refuse_stopped(wanted: Desired) -> None:
    """Raises InvalidInput when vcl would stop the guest as soon as it had taken it over."""
    if wanted.wish is not Wish.RUN:
        raise InvalidInput(
            f"it runs, and vcl would shut it down at once: {wanted.reason}",
            cure="say --run-strategy Always, or RerunOnFailure",
        )


def _refuse_marked(names: Names, found: Stranger, node: str, cluster_uid: str) -> None:
    """A mark of this very node is what an adoption leaves that was cut off; any other is somebody's."""
    if not found.uid or (found.cluster_uid, found.node, found.uid) == (cluster_uid, node, names.uuid):
        return
    whose = f"node {found.node} of this cluster" if found.cluster_uid == cluster_uid else "another cluster"
    raise AlreadyExists(
        f"domain '{names.domain}' carries the mark of vcl: it belongs to {whose}",
        cure="delete the VM there; or shut the domain down before it is adopted",
    )


def compare_images(live: Mapping[str, str], wanted: Iterable[str]) -> None:
    """What the domain writes must be what the VM will be claimed with. `live`: identity -> path as the domain
    has it open; `wanted`: identities of the manifest's images, names in pools among them.

    Raises VclError that names the difference.
    """
    images = {identity for identity in wanted if not identity.startswith("name/")}
    named = (identity for identity in live if not identity.startswith("name/"))
    more = sorted(live[identity] for identity in named if identity not in images)
    if more:
        raise ConflictError(
            f"the running domain writes to {', '.join(more)}, and the manifest does not say so",
            cure="make the manifest from the domain as it runs: vcl adopt without changes to it",
        )
    missing = sorted(images - live.keys())
    if missing:
        raise ConflictError(
            f"the manifest has images that the running domain does not have open: {', '.join(missing)}",
            cure="the definition was changed since the start: shut the domain down, or undo the change",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Of a domain that runs: who owns it from now on. `former`: the revision of an emptied claim, else 0."""

    binding: Binding
    claim: Claim
    former: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """The records of one adopted VM, for one transaction."""

    compares: Mapping[str, int]
    puts: Mapping[str, bytes]
    deletes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Revisions that the transaction compares, 0: no such key. `intent`: what was asked for an earlier VM of
    the name, which goes; `epoch`: the master's."""

    intent: int = 0
    epoch: int = 0


def records(
    record: SpecRecord, content: bytes, ownership: Ownership | None, known: Known, node: str
) -> Adoption:
    """The manifest and the spec, and binding and claims for what runs."""
    name = record.metadata.name
    file, spec = keys.manifest(record.source.path), keys.spec(Kind.VIRTUAL_MACHINE, name)
    asked = keys.intent(Kind.VIRTUAL_MACHINE, name)
    compares = {file: 0, spec: 0, keys.binding(name): 0, asked: known.intent}
    puts = {file: content, spec: dump(record)}
    deletes = (asked,) if known.intent else ()
    if ownership is None:
        return Adoption(compares=compares, puts=puts, deletes=deletes)
    claim = ownership.claim
    holder = dump(DiskClaim(node=node, vm=name, uid=claim.uid))
    disks = {keys.disk(identity): holder for identity in claim.disks}
    compares |= {
        keys.claim(name): ownership.former,
        keys.EPOCH: known.epoch,
        keys.POWER_INTENT: 0,
        keys.fence(node): 0,
        **dict.fromkeys(disks, 0),
    }
    puts |= {keys.binding(name): dump(ownership.binding), keys.claim(name): dump(claim), **disks}
    return Adoption(compares=compares, puts=puts, deletes=deletes)


def lost_to(lost: Iterable[str]) -> VclError:
    """The error of a transaction that others' writes kept from committing."""
    found = sorted(lost)
    if any(key.startswith(keys.DISKS) for key in found):
        return AlreadyExists(
            "an image of it is held by another VM or operation: "
            + ", ".join(key.removeprefix(keys.DISKS) for key in found if key.startswith(keys.DISKS)),
            cure="vcl disk show tells by whom; a VM needs images of its own",
        )
    return ConflictError(f"something changed meanwhile ({', '.join(found)})", cure="run vcl adopt again")
