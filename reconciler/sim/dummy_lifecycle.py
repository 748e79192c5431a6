"""Starting, watching and ending the dummy controller's guests: `ResourceController` on a `DummyHypervisor`.

Invariant: like libvirt, it never says Gone while a creation that was accepted is still outstanding.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from xml.etree import ElementTree

from reconciler.resources.changes import LiveChange, Shape
from reconciler.resources.domains import (
    ControllerEvent,
    Definition,
    ExitReason,
    Gone,
    Observed,
    PauseReason,
    StartRequest,
    Stranger,
)
from reconciler.resources.errors import AlreadyExists, ControllerUnavailable, NotFound, NotOurs, StartFailed
from reconciler.resources.virtualmachine import Interface, NicState
from reconciler.sim.dummy_changes import changed
from reconciler.sim.dummy_guests import Guest, Life, end, press_power, reset, resume, suspend
from reconciler.sim.dummy_hypervisor import DummyHypervisor


class DummyLifecycle:
    """`ResourceController` on a `DummyHypervisor`."""

    def __init__(self, hypervisor: DummyHypervisor) -> None:
        self._hypervisor = hypervisor

    async def render(self, request: StartRequest, *, timeout: float) -> Definition:
        await self._hypervisor.gate("render", timeout)
        _check_xml(request)
        machine = request.machine or f"dummy-{request.spec.machine}-1.0"
        nvram = (request.nvram,) if request.nvram is not None else ()
        document = {
            "cluster_uid": request.cluster_uid,
            "node": request.node,
            "generation": request.generation,
            "vcpus": request.spec.cpu.cores,
            "max_vcpus": request.spec.cpu.max_cores or request.spec.cpu.cores,
            "memory": request.spec.memory,
            "max_memory": request.spec.max_memory or request.spec.memory,
            "disks": {disk.name: disk.path for disk in request.disks},
            "nics": {nic.name: _connection(nic) for nic in request.spec.interfaces},
            "machine": machine,
            "agent": request.spec.guest_agent,
        }
        return Definition(
            name=request.name,
            uid=request.uid,
            document=json.dumps(document, sort_keys=True),
            machine=machine,
            writable=tuple(disk.path for disk in (*request.disks, *nvram) if not disk.read_only),
        )

    async def inventory(self, *, timeout: float) -> tuple[Observed, ...]:
        await self._hypervisor.gate("inventory", timeout)
        now = self._hypervisor.now()
        return tuple(guest.observed(now) for guest in self._hypervisor.alive())

    async def observe(self, name: str, *, uid: str = "", timeout: float) -> Observed | Gone:
        await self._hypervisor.gate("observe", timeout)
        guest = self._hypervisor.get(name)
        if guest is not None and guest.life is Life.PENDING:
            raise ControllerUnavailable(f"the creation of '{name}' has not ended yet")
        if guest is not None and guest.life is Life.ALIVE:
            return guest.observed(self._hypervisor.now())
        if uid and (other := self._hypervisor.by_uid(uid)):
            raise ControllerUnavailable(f"'{name}' is absent, but its UUID {uid} lives as '{other.name}'")
        return Gone(exit=guest.exit if guest else ExitReason.UNKNOWN)

    async def create(self, definition: Definition, *, timeout: float) -> Observed:
        await self._hypervisor.gate("create", timeout)
        name, now = definition.name, self._hypervisor.now()
        faults = self._hypervisor.faults.of(name)
        self._refuse_taken(definition)
        if self._hypervisor.failing_start(name):
            raise StartFailed(f"'{name}': {faults.failure_message}", reason=faults.failure_reason)
        number = self._hypervisor.next_number(name)
        fields = json.loads(definition.document)
        guest = Guest(name=name, uid=definition.uid, number=number, incarnation=f"{name}@{now!r}", **fields)
        guest = replace(guest, writable=definition.writable)
        if faults.start_delay <= 0:
            self._hypervisor.put(guest, "Started")
            return guest.observed(now)
        pending = replace(guest, life=Life.PENDING, appears=now + faults.start_delay)
        self._hypervisor.put(pending, "Pending")
        await asyncio.sleep(min(timeout, faults.start_delay))
        current = self._hypervisor.get(name)
        if current is None or current.life is not Life.ALIVE:
            raise ControllerUnavailable(f"the creation of '{name}' took longer than {timeout:g} s")
        return current.observed(self._hypervisor.now())

    def _refuse_taken(self, definition: Definition) -> None:
        known = self._hypervisor.get(definition.name)
        if known is not None and known.life is not Life.ENDED:
            if known.uid != definition.uid:
                raise NotOurs(f"a domain called '{definition.name}' with the UUID {known.uid} exists already")
            raise AlreadyExists(f"'{definition.name}' runs already", cure="observe it before another start")
        if other := self._hypervisor.by_uid(definition.uid):
            raise NotOurs(f"the UUID {definition.uid} is taken by the domain '{other.name}'")

    async def set_paused(self, name: str, paused: bool, *, timeout: float) -> None:
        await self._hypervisor.gate("set_paused", timeout)
        guest = self._living(name)
        if paused and guest.pause is PauseReason.NONE:
            self._hypervisor.put(suspend(guest, PauseReason.USER), "Paused")
        if not paused and guest.pause is not PauseReason.NONE:
            faults = self._hypervisor.faults.of(name)
            self._hypervisor.put(resume(guest, self._hypervisor.now(), faults), "Resumed")

    async def isolate(self, name: str, *, timeout: float) -> None:
        await self._hypervisor.gate("isolate", timeout)
        guest = self._living(name)
        if guest.pause is PauseReason.NONE:
            self._hypervisor.put(suspend(guest, PauseReason.ISOLATED), "Isolated")

    async def reset(self, name: str, *, timeout: float) -> None:
        await self._hypervisor.gate("reset", timeout)
        guest = self._living(name)
        if guest.pause is PauseReason.NONE:
            faults = self._hypervisor.faults.of(name)
            self._hypervisor.put(reset(guest, self._hypervisor.now(), faults), "Reset")

    async def shape(self, name: str, *, timeout: float) -> Shape:
        await self._hypervisor.gate("shape", timeout)
        guest = self._living(name)
        return Shape(vcpus=guest.vcpus, memory=guest.memory, disks=guest.disks)

    async def change(self, definition: Definition, change: LiveChange, *, timeout: float) -> None:
        await self._hypervisor.gate("change", timeout)
        guest = self._living(definition.name)
        if guest.uid != definition.uid:
            raise NotOurs(f"the domain '{guest.name}' has the UUID {guest.uid}, not {definition.uid}")
        faults = self._hypervisor.faults.of(guest.name)
        after = changed(guest, change, definition, faults)
        if after != guest:
            self._hypervisor.put(after, "Changed")

    async def shutdown(self, name: str, *, timeout: float) -> None:
        await self._hypervisor.gate("shutdown", timeout)
        guest = self._living(name)
        self._hypervisor.put(
            press_power(guest, self._hypervisor.now(), self._hypervisor.faults.of(name)), "ShutdownAsked"
        )

    async def destroy(self, name: str, *, uid: str, timeout: float) -> None:
        await self._hypervisor.gate("destroy", timeout)
        guest = self._hypervisor.get(name)
        if guest is None or guest.life is not Life.ALIVE:
            return
        if guest.uid != uid:
            raise NotOurs(f"the domain '{name}' has the UUID {guest.uid}, not {uid}: it is left alone")
        if self._hypervisor.faults.of(name).refuses_destroy:
            await asyncio.sleep(timeout)
            raise ControllerUnavailable(f"'{name}' could not be destroyed within {timeout:g} s: it is busy")
        self._hypervisor.put(end(guest, ExitReason.DESTROYED), "Destroyed")

    async def stranger(self, name: str, *, timeout: float) -> Stranger | None:
        await self._hypervisor.gate("stranger", timeout)
        guest = self._hypervisor.get(name)
        if guest is None or guest.life is not Life.ALIVE:
            return None
        return Stranger(
            name=name,
            uuid=guest.uid,
            running=True,
            writable=guest.writable,
            persistent=guest.defined,
            uid=guest.uid if guest.made_by_vcl else "",
            cluster_uid=guest.cluster_uid,
            node=guest.node,
        )

    async def take_over(self, definition: Definition, *, timeout: float) -> None:
        await self._hypervisor.gate("take_over", timeout)
        guest = self._living(definition.name)
        if guest.uid != definition.uid:
            raise NotOurs(f"the domain '{guest.name}' has the UUID {guest.uid}, not {definition.uid}")
        said = json.loads(definition.document)
        mark = {key: said[key] for key in ("cluster_uid", "node", "generation")}
        self._hypervisor.put(replace(guest, made_by_vcl=True, defined=False, **mark), "Metadata")

    async def give_back(self, name: str, *, uid: str, timeout: float) -> None:
        await self._hypervisor.gate("give_back", timeout)
        guest = self._living(name)
        if guest.uid != uid:
            raise NotOurs(f"the domain '{name}' has the UUID {guest.uid}, not {uid}: it is left alone")
        theirs = replace(guest, made_by_vcl=False, defined=True, cluster_uid="", node="", generation=0)
        self._hypervisor.put(theirs, "Metadata")

    def events(self) -> AsyncIterator[ControllerEvent]:
        return self._hypervisor.feed()

    def _living(self, name: str) -> Guest:
        guest = self._hypervisor.get(name)
        if guest is None or guest.life is not Life.ALIVE:
            raise NotFound(f"there is no domain '{name}'")
        return guest


def _connection(nic: Interface) -> str:
    return f"{nic.bridge or nic.network or 'user'} {nic.state or NicState.UP}"


def _check_xml(request: StartRequest) -> None:
    if request.spec.domain_xml is None:
        return
    try:
        ElementTree.fromstring(request.spec.domain_xml)
    except ElementTree.ParseError as error:
        message = f"'{request.name}': spec.domainXML is not well-formed: {error}"
        raise StartFailed(message, reason="InvalidDomainXML") from error
