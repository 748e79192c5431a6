"""Typed reads from the node's copy of the store, decoded once for each revision of a key.

A record that cannot be read is None plus a log line, never an empty default: unknown is not absent, so the
callers that must tell the two apart ask `exists`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from reconciler.loops.cache import StoreCache
from reconciler.planning import failures
from reconciler.planning.node_intents import InForce, in_force, in_this_boot
from reconciler.resources import keys
from reconciler.resources.codec import decode
from reconciler.resources.errors import InvalidInput
from reconciler.resources.failures import FailureRecord, Failures
from reconciler.resources.infrastructure import ClusterSpec, ImageSpec, NodeSpec, Power, StoragePoolSpec
from reconciler.resources.kinds import Kind
from reconciler.resources.placementconstraint import PlacementConstraintSpec
from reconciler.resources.records import Binding, Claim, Epoch, Intent, NodeIntent, Session, SpecRecord, load
from reconciler.resources.status import VmNodeStatus
from reconciler.resources.virtualmachine import VirtualMachineSpec

log = logging.getLogger(__name__)

T = TypeVar("T")

_SPECS: dict[Kind, type[Any]] = {
    Kind.VIRTUAL_MACHINE: VirtualMachineSpec,
    Kind.PLACEMENT_CONSTRAINT: PlacementConstraintSpec,
    Kind.NODE: NodeSpec,
    Kind.CLUSTER: ClusterSpec,
    Kind.STORAGE_POOL: StoragePoolSpec,
    Kind.IMAGE: ImageSpec,
}


class Views:
    """The cache, typed."""

    def __init__(self, cache: StoreCache, shut_down: Callable[[], bool] = lambda: False) -> None:
        """`shut_down()`: whether this node knows of an order to shut down, also past the store."""
        self.cache = cache
        self._shut_down = shut_down
        self._decoded: dict[str, tuple[int, Any]] = {}
        self._specs: dict[str, tuple[int, Any]] = {}

    def record(self, key: str, cls: type[T]) -> T | None:
        """The record at `key`, or None when there is none or it cannot be read."""
        item = self.cache.get(key)
        if item is None:
            self._decoded.pop(key, None)
            return None
        known = self._decoded.get(key)
        if known is not None and known[0] == item.revision:
            value: T | None = known[1]
            return value
        decoded: T | None
        try:
            decoded = load(cls, item.value)
        except (InvalidInput, ValueError) as error:
            log.error("store key %s cannot be read: %s", key, error)
            decoded = None
        self._decoded[key] = (item.revision, decoded)
        return decoded

    def exists(self, key: str) -> bool:
        """Whether the store has the key, readable or not."""
        return self.cache.get(key) is not None

    def spec_record(self, kind: Kind, name: str) -> SpecRecord | None:
        return self.record(keys.spec(kind, name), SpecRecord)

    def spec(self, kind: Kind, name: str, cls: type[T]) -> T | None:
        """The decoded spec of an object, or None (no such object, or it cannot be read)."""
        key = keys.spec(kind, name)
        record = self.record(key, SpecRecord)
        if record is None:
            return None
        revision = self.cache.revision_of(key)
        known = self._specs.get(key)
        if known is not None and known[0] == revision:
            value: T | None = known[1]
            return value
        spec: T | None
        try:
            spec = decode(cls, record.spec, "spec")
        except InvalidInput as error:
            log.error("the spec of %s %s cannot be read: %s", kind, name, error)
            spec = None
        self._specs[key] = (revision, spec)
        return spec

    def names(self, kind: Kind) -> list[str]:
        """The names of all objects of a kind that have a spec, sorted."""
        prefix = keys.spec(kind, "")
        return [item.key.removeprefix(prefix) for item in self.cache.prefix(prefix)]

    def specs(self, kind: Kind) -> dict[str, Any]:
        """Every readable spec of a kind by name."""
        found = ((name, self.spec(kind, name, _SPECS[kind])) for name in self.names(kind))
        return {name: spec for name, spec in found if spec is not None}

    def vm(self, name: str) -> VirtualMachineSpec | None:
        return self.spec(Kind.VIRTUAL_MACHINE, name, VirtualMachineSpec)

    def node_in_force(self, name: str, spec: NodeSpec | None = None) -> InForce:
        """What counts of a node: its manifest (or `spec` instead of it), and what verbs asked for."""
        said = spec or self.spec(Kind.NODE, name, NodeSpec) or NodeSpec()
        intent = self.record(keys.intent(Kind.NODE, name), NodeIntent) or NodeIntent()
        return in_force(said, in_this_boot(intent, self.boot_id(name)))

    def boot_id(self, node: str) -> str:
        """The boot of the host in which its daemon began its last session; empty when it had none."""
        session = self.record(keys.session(node), Session)
        return session.boot_id if session is not None else ""

    def binding(self, name: str) -> Binding | None:
        return self.record(keys.binding(name), Binding)

    def claim(self, name: str) -> Claim | None:
        return self.record(keys.claim(name), Claim)

    def intent(self, name: str) -> Intent:
        return self.record(keys.intent(Kind.VIRTUAL_MACHINE, name), Intent) or Intent()

    def failures(self, name: str, now: str) -> dict[str, Failures]:
        """What of the VM failed on which node, as far as it still counts at `now` (wall-clock time)."""
        record, prefix = self.spec_record(Kind.VIRTUAL_MACHINE, name), keys.failures(name)
        if record is None:
            return {}
        meta, reset = record.metadata, self.intent(name).reset_failures
        found = {}
        for item in self.cache.prefix(prefix):
            failed = self.record(item.key, FailureRecord)
            if failed and failures.in_force(
                failed, uid=meta.uid, generation=meta.generation, reset=reset, now=now
            ):
                found[item.key.removeprefix(prefix)] = failed.failures
        return found

    def node_status(self, name: str) -> VmNodeStatus | None:
        return self.record(keys.node_status(Kind.VIRTUAL_MACHINE, name), VmNodeStatus)

    def session_over(self, node: str, session: int) -> bool:
        """Whether the store says that a later session of the node has begun, or a fence has ended this one.
        A store that shows less, or nothing, says no such thing (SAFETY rule 3)."""
        known = self.record(keys.session(node), Session)
        return known is not None and known.session > session

    def epoch(self) -> Epoch | None:
        """Who was the last to become master."""
        return self.record(keys.EPOCH, Epoch)

    def cluster_spec(self) -> ClusterSpec:
        specs = self.specs(Kind.CLUSTER)
        return specs[min(specs)] if specs else ClusterSpec()

    def power_on(self) -> bool:
        """Whether VMs may run: the Cluster's `power`, and no `cluster shutdown` in force."""
        if self._shut_down() or self.exists(keys.POWER_INTENT):
            return False
        return self.cluster_spec().power is Power.ON

    def forget(self, key: str) -> None:
        """Drop what was decoded of a key that is gone."""
        self._decoded.pop(key, None)
        self._specs.pop(key, None)
