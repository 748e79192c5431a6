"""What this node reports of itself: readiness, capacity, pools, and domains that vcl did not make."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.loops.agent import Agent
from reconciler.loops.agent_state import NodeContext
from reconciler.ports.controller import Controller
from reconciler.resources import keys
from reconciler.resources.domains import HostFacts
from reconciler.resources.errors import ControllerUnavailable, StoreError, VclError
from reconciler.resources.images import PoolCapacity
from reconciler.resources.kinds import Kind
from reconciler.resources.records import dump
from reconciler.resources.status import (
    Condition,
    ConditionStatus,
    ConditionType,
    NodeStatus,
    PoolStatus,
    merge_conditions,
)

log = logging.getLogger(__name__)

INTERVAL = 10.0
UNREADY_INTERVAL = 1.0
"""Seconds between reports; more often while the node is not ready, since VMs may be waiting for it."""

FREE_STEP = 256 * 2**20
"""A pool's free space is reported in steps of this many bytes, so that a busy disk is not a busy store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the daemon knows of the node besides its hypervisors."""

    version: str
    address: str
    cpus: int
    memory: int


class NodeReporter:
    """Writes status/node/Node/NAME and status/node/StoragePool/NAME when they change."""

    def __init__(self, context: NodeContext, agent: Agent, facts: NodeFacts) -> None:
        self._context = context
        self._agent = agent
        self._facts = facts

    async def run(self) -> None:
        """Report for ever."""
        while True:
            ready = False
            try:
                ready = await self.step()
            except StoreError as error:
                log.warning("node %s: its status is not written: %s", self._context.node, error)
            await asyncio.sleep(INTERVAL if ready else UNREADY_INTERVAL)

    async def step(self) -> bool:
        """One report; whether the node is ready. Raises StoreError."""
        puts: dict[str, bytes] = {}
        node = keys.node_status(Kind.NODE, self._context.node)
        status = await self._node(self._context.views.record(node, NodeStatus))
        if status != self._context.views.record(node, NodeStatus):
            puts[node] = dump(status)
        for name, pool in (await self._pools()).items():
            key = keys.node_status(Kind.STORAGE_POOL, name)
            if pool != self._context.views.record(key, PoolStatus):
                puts[key] = dump(pool)
        if puts:
            guards = (keys.SCHEMA, keys.session(self._context.node))
            await self._context.writer.commit(puts=puts, guards=guards, wait=False)
        return status.ready

    async def _node(self, before: NodeStatus | None) -> NodeStatus:
        answers = {name: await self._ask(c) for name, c in sorted(self._context.controllers.items())}
        facts = _of_the_host(answers)
        down = [f"controller {n}: {why}" for n, why in answers.items() if isinstance(why, str)]
        frozen = self._context.frozen()
        message = "; ".join([*([frozen] if frozen else []), *down])
        usable = any(not isinstance(answer, str) for answer in answers.values())
        ready = usable and not frozen
        condition = Condition(
            type=ConditionType.READY,
            status=ConditionStatus.TRUE if ready else ConditionStatus.FALSE,
            reason="NodeReady" if ready else "NotReady",
            message=message,
        )
        old = before.conditions if before is not None else ()
        return NodeStatus(
            uid=self._context.node,
            ready=ready,
            message=message,
            version=self._facts.version,
            address=self._facts.address,
            cpu=facts.cpus if facts else self._facts.cpus,
            memory=facts.memory if facts else self._facts.memory,
            hypervisor=facts.hypervisor if facts else "",
            architecture=facts.architecture if facts else "",
            virtualization=facts.virtualization if facts else "",
            controllers=self._states(answers),
            migrates=self._context.migrates,
            networks={
                name: answer.networks
                for name, answer in answers.items()
                if isinstance(answer, HostFacts) and answer.networks is not None
            },
            foreign_domains=self._agent.foreign,
            conditions=merge_conditions(old, (condition,), self._context.clock.wall()),
        )

    @staticmethod
    def _states(answers: Mapping[str, HostFacts | str | None]) -> dict[str, str]:
        return {name: "Unavailable" if isinstance(a, str) else "Ready" for name, a in answers.items()}

    async def _ask(self, controller: Controller) -> HostFacts | str | None:
        """Its facts, None when it has none to tell, or why it does not answer."""
        if controller.host is None:
            return None
        try:
            return await controller.host.facts(timeout=self._context.deadlines.observe)
        except ControllerUnavailable as error:
            return error.message

    async def _pools(self) -> dict[str, PoolStatus]:
        backends = self._context.pools.all()
        found = {
            name: PoolStatus(uid=name, ready=False, message=why)
            for name, why in self._context.pools.errors.items()
        }
        for name, backend in sorted(backends.items()):
            try:
                capacity = await backend.capacity(timeout=self._context.deadlines.disk)
            except VclError as error:
                found[name] = PoolStatus(uid=name, ready=False, message=str(error))
                continue
            found[name] = self._pool(name, capacity)
        return found

    def _pool(self, name: str, capacity: PoolCapacity) -> PoolStatus:
        key = keys.node_status(Kind.STORAGE_POOL, name)
        before = self._context.views.record(key, PoolStatus)
        near = near_full(capacity)
        old = before.conditions if before is not None else ()
        return PoolStatus(
            uid=name,
            ready=True,
            message=near.message,
            total=capacity.total,
            free=capacity.free // FREE_STEP * FREE_STEP,
            conditions=merge_conditions(old, (near,), self._context.clock.wall()),
        )


def near_full(capacity: PoolCapacity) -> Condition:
    """NearFull, by what the storage says of itself and by what is left."""
    reason, message = "HasRoom", ""
    if capacity.refuses:
        reason = "Full"
        message = f"full ({capacity.full}): nothing can be written, and guests that try are paused; make room"
    elif capacity.full:
        reason = "NearFull"
        message = f"nearly full ({capacity.full}): make room, or guests will be paused by I/O errors"
    elif capacity.total and capacity.free < capacity.total // 20:
        reason = "NearFull"
        message = "less than 5 % free: make room or guests will be paused by I/O errors"
    status = ConditionStatus.TRUE if message else ConditionStatus.FALSE
    return Condition(type=ConditionType.NEAR_FULL, status=status, reason=reason, message=message)


def _of_the_host(answers: Mapping[str, HostFacts | str | None]) -> HostFacts | None:
    """What is told of the host. The dummy makes its host up: its word counts only where there is no other."""
    told = {name: answer for name, answer in answers.items() if isinstance(answer, HostFacts)}
    return next((facts for name, facts in told.items() if name != "dummy"), told.get("dummy"))
