"""The store's key layout. Separate keys have separate writers, so nobody overwrites anybody.

schema, cluster, epoch          one value each
manifest/PATH                   the exact bytes of a user's file               manifest sync
spec/KIND/NAME                  derived from it in the same transaction        manifest sync, master
intent/KIND/NAME                what a verb asked for on top of the manifest   API
binding/VM                      which node is to run it                        master
claim/VM, disk/KEY              who owns the VM and each of its images         the owning node
pin/VM                          what must not change between starts            the owning node
volume/POOL/IMAGE               that an image was created once, and its id     the owning node
member/NODE                     that the node belongs to the cluster           the node
session/NODE                    grows at every daemon start                    the node
status/node/KIND/NAME           what the node sees                             the node
status/master/KIND/NAME         why it is placed where it is                   master
status/manifest/KIND/NAME       what is wrong with the manifest that defines it manifest sync
lease/NODE                      its lease, in stores that have no better place the node
fence/NODE                      a fencing under way, until the node's return   master
confirm/NODE                    that a person says it is down                  API
failure/VM/NODE                 what failed of the VM on the node, in a row    the node
return/NODE                     that nothing was left on it when it came back  the node
failover/INCIDENT               the timeline of a fencing and its VMs, for people  master
migration/NAME                  a live migration: asked for, and how far it is API, master
migrating/NAME/NODE             what one of its two hosts says of it           the node
cancel/NAME                     that somebody wants it to end                  API
intent/power                    that the cluster is shut down: by which orders any node
power/ended                     the orders that a start has ended, for ever    any node
power/start                     the last start, and when all was up            API, master
power/flags                     Ceph's flags that a shutdown has set           any node
rebalance                       the moves of a rebalancing, and how far it is   API, master
event/NODE/SLOT                 a ring buffer                                  the node
tombstone/KIND/NAME             a finished deletion                            master
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from reconciler.resources.kinds import Kind

SCHEMA = "schema"
CLUSTER = "cluster"
EPOCH = "epoch"
POWER_INTENT = "intent/power"
POWER_ENDED = "power/ended"
POWER_START = "power/start"
POWER_FLAGS = "power/flags"
REBALANCE = "rebalance"
LEASES = "lease/"

MANIFESTS = "manifest/"
SPECS = "spec/"
INTENTS = "intent/"
BINDINGS = "binding/"
CLAIMS = "claim/"
DISKS = "disk/"
PINS = "pin/"
VOLUMES = "volume/"
MEMBERS = "member/"
SESSIONS = "session/"
NODE_STATUS = "status/node/"
MASTER_STATUS = "status/master/"
MANIFEST_STATUS = "status/manifest/"
FENCES = "fence/"
CONFIRMS = "confirm/"
RETURNS = "return/"
FAILOVERS = "failover/"
FAILURES = "failure/"
MIGRATIONS = "migration/"
MIGRATING = "migrating/"
CANCELS = "cancel/"
EVENTS = "event/"
TOMBSTONES = "tombstone/"


def manifest(path: str) -> str:
    """The key of a manifest file; `path` is relative to the manifest directory, with '/' separators."""
    return MANIFESTS + quote(path, safe="/")


def manifest_path(key: str) -> str:
    """The path that `manifest()` made the key from."""
    return unquote(key.removeprefix(MANIFESTS))


def spec(kind: Kind, name: str) -> str:
    return f"{SPECS}{kind}/{name}"


def intent(kind: Kind, name: str) -> str:
    return f"{INTENTS}{kind}/{name}"


def binding(vm: str) -> str:
    return BINDINGS + vm


def claim(vm: str) -> str:
    return CLAIMS + vm


def disk(identity: str) -> str:
    """`identity` names the image itself, never a path to it: <fsid>/<inode> or <fsid>/<pool>/<ns>/<id>."""
    return DISKS + quote(identity, safe="/:|@")


def pin(vm: str) -> str:
    return PINS + vm


def volume(pool: str, image: str) -> str:
    return f"{VOLUMES}{pool}/{quote(image, safe='')}"


def member(node: str) -> str:
    return MEMBERS + node


def lease(node: str) -> str:
    return LEASES + node


def session(node: str) -> str:
    return SESSIONS + node


def node_status(kind: Kind, name: str) -> str:
    return f"{NODE_STATUS}{kind}/{name}"


def master_status(kind: Kind, name: str) -> str:
    return f"{MASTER_STATUS}{kind}/{name}"


def manifest_status(kind: Kind, name: str) -> str:
    return f"{MANIFEST_STATUS}{kind}/{name}"


def fence(node: str) -> str:
    return FENCES + node


def confirm(node: str) -> str:
    return CONFIRMS + node


def returned(node: str) -> str:
    return RETURNS + node


def failover(incident: str) -> str:
    return FAILOVERS + incident


def migration(name: str) -> str:
    return MIGRATIONS + name


def migrating(name: str, node: str) -> str:
    """What a host says of a migration."""
    return f"{MIGRATING}{name}/{node}"


def cancel(name: str) -> str:
    """That a migration is to end early."""
    return CANCELS + name


def failures(vm: str) -> str:
    """The prefix of what failed of a VM, on all nodes."""
    return f"{FAILURES}{vm}/"


def failure(vm: str, node: str) -> str:
    return failures(vm) + node


def events(node: str) -> str:
    """The prefix of a node's events."""
    return f"{EVENTS}{node}/"


def event(node: str, slot: int) -> str:
    return f"{events(node)}{slot:05d}"


def tombstone(kind: Kind, name: str) -> str:
    return f"{TOMBSTONES}{kind}/{name}"


def split_object(key: str, prefix: str) -> tuple[Kind, str] | None:
    """(kind, name) of a key `PREFIX KIND/NAME`, or None when it is not of that form."""
    if not key.startswith(prefix):
        return None
    kind, _, name = key.removeprefix(prefix).partition("/")
    try:
        return Kind(kind), name
    except ValueError:
        return None
