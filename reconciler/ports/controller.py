"""ResourceController: what runs virtual machines on this node (libvirt, dummy, another package's).

Unknown is never stopped: whatever cannot be read raises ControllerUnavailable. `Gone` is a proof (SAFETY
rule 7): the domain is absent, no call of ours that could still create it is outstanding, and no process of
it lives. Every call takes `timeout` in seconds; calls for one VM are serialised by the caller.
A controller from another package is found through the entry-point group `vcl.controllers`, whose value is a
`ControllerFactory`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from reconciler.resources.changes import LiveChange, Shape
from reconciler.resources.domains import (
    AgentPing,
    ControllerEvent,
    Definition,
    Gone,
    GuestInfo,
    GuestKey,
    HostFacts,
    Observed,
    StartRequest,
    Stranger,
)


class ResourceController(Protocol):
    """Lifecycle of VMs on this node."""

    async def render(self, request: StartRequest, *, timeout: float) -> Definition:
        """The final definition, without side effects. Raises StartFailed when it cannot be made."""
        ...

    async def inventory(self, *, timeout: float) -> tuple[Observed, ...]:
        """Every domain on the node, ours or not, sorted by name: complete, or ControllerUnavailable."""
        ...

    async def observe(self, name: str, *, uid: str = "", timeout: float) -> Observed | Gone:
        """One domain. With `uid`, Gone also proves that no process of that UUID lives."""
        ...

    async def create(self, definition: Definition, *, timeout: float) -> Observed:
        """Start it *paused*. StartFailed: refused, nothing runs; NotOurs: the name is taken by a domain of
        another UUID; ControllerUnavailable: it may yet appear, and `observe` is not Gone until settled."""
        ...

    async def set_paused(self, name: str, paused: bool, *, timeout: float) -> None:
        """Suspend or resume; no-op when it already is. NotFound when there is no such domain."""
        ...

    async def shutdown(self, name: str, *, timeout: float) -> None:
        """Ask the guest to power off (agent or ACPI); returns at once, success says nothing."""
        ...

    async def destroy(self, name: str, *, uid: str, timeout: float) -> None:
        """End it now, if its UUID is `uid` (NotOurs otherwise); no-op when absent. Not proof: `observe`."""
        ...

    def events(self) -> AsyncIterator[ControllerEvent]:
        """Hints, for ever; one with an empty name after every reconnect."""
        ...


class Guest(Protocol):
    """Looking into a running guest; every call has its own deadline."""

    async def info(self, name: str, *, timeout: float) -> GuestInfo:
        """Addresses, agent and VNC address; what is not known is empty. ControllerUnavailable."""
        ...


@runtime_checkable
class GuestPinger(Protocol):
    """A Guest that can ask its agent whether it lives (`spec.liveness`). Others do without it."""

    async def ping(self, name: str, *, timeout: float) -> AgentPing:
        """Ask the agent of a running guest, which has `timeout` seconds to answer; the call may take three
        times as long. Raises ControllerUnavailable, NotFound whenever silence would not be the guest's: the
        hypervisor does not answer, the guest is paused, it has no channel for an agent."""
        ...


@runtime_checkable
class KeyKeeper(Protocol):
    """A controller whose hypervisor needs keys to reach disks on a network. Others do without it."""

    async def keep_key(self, key: GuestKey, *, timeout: float) -> None:
        """Give the hypervisor a key, in its memory only; one that it has under the same UUID is replaced.
        Raises ControllerUnavailable, StartFailed."""
        ...


@runtime_checkable
class Isolator(Protocol):
    """A lifecycle that can tell vcl's own pauses from others'. Guests of one that cannot are not paused."""

    async def isolate(self, name: str, *, timeout: float) -> None:
        """Suspend a running domain; until it is resumed its pause reason is ISOLATED, also for another
        daemon. No-op when it is paused. It may come while another call for the VM is under way. NotFound,
        ControllerUnavailable."""
        ...


@runtime_checkable
class Resetter(Protocol):
    """A lifecycle that can press a guest's reset button. Others do without it."""

    async def reset(self, name: str, *, timeout: float) -> None:
        """Reset a running guest at once, without asking it: it boots again in the same domain, which keeps
        its incarnation and clients. NotFound, ControllerUnavailable (it may have happened)."""
        ...


@runtime_checkable
class LiveChanger(Protocol):
    """A lifecycle that can change a running domain. With others every change waits for a restart."""

    async def shape(self, name: str, *, timeout: float) -> Shape:
        """What the domain has now. NotFound; ControllerUnavailable, also while a change that was asked for
        may still come about: what is not in a shape then comes no more."""
        ...

    async def change(self, definition: Definition, change: LiveChange, *, timeout: float) -> None:
        """Bring one change to the running domain, and see that it is there; nothing when it is so already.
        `definition`: the wanted one, with none but the disk concerned. ChangeRefused: it cannot, and nothing
        has changed; ChangeWaits: the guest has not done its part yet; NotFound; ControllerUnavailable: it may
        have happened, or happen yet."""
        ...


@runtime_checkable
class Adopter(Protocol):
    """A lifecycle that can make a domain vcl's that somebody else made. Others take over nothing."""

    async def stranger(self, name: str, *, timeout: float) -> Stranger | None:
        """The domain of that name, running or only defined, whoever made it; None when there is none."""
        ...

    async def take_over(self, definition: Definition, *, timeout: float) -> None:
        """Mark the running domain as `create` of the definition would, and take away what could start a
        second copy: autostart and the persistent definition, of which a copy is kept. The guest goes on. A
        domain that is only defined loses its definition. May be repeated. NotFound, NotOurs (another UUID),
        ControllerUnavailable: parts of it may be done, and it stays that nobody but a person starts or ends
        the domain."""
        ...

    async def give_back(self, name: str, *, uid: str, timeout: float) -> None:
        """Undo `take_over` of a domain that was not adopted after all. May be repeated. ControllerError."""
        ...


@runtime_checkable
class GuestClock(Protocol):
    """A `Guest` that can set the guest's clock."""

    async def set_clock(self, name: str, *, timeout: float) -> None:
        """Tell the guest the time, after a pause. ControllerUnavailable when it does not take it."""
        ...


class ConsoleStream(Protocol):
    """A byte stream to a serial console."""

    async def read(self) -> bytes:
        """Some bytes; empty at the end."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


class Console(Protocol):
    """Serial consoles."""

    async def open(self, name: str, *, timeout: float) -> ConsoleStream:
        """Connect; somebody already connected is AlreadyExists unless forced off by the hypervisor."""
        ...

    async def tail(self, name: str, limit: int, *, timeout: float) -> bytes:
        """The last `limit` bytes that the console printed, also of a VM that ended; empty when none."""
        ...


class Host(Protocol):
    """The node itself."""

    async def facts(self, *, timeout: float) -> HostFacts: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerContext:
    """What the daemon gives a controller factory. Directories exist. `options`: the configuration's
    `controllers.NAME` section. `address`: by which the other nodes reach this one; empty without any."""

    node: str
    cluster_uid: str
    state_dir: Path
    run_dir: Path
    address: str = ""
    options: Mapping[str, object] = field(default_factory=dict)


class Controller(Protocol):
    """A whole controller: the parts it has (None where it has none) and its life."""

    name: str
    lifecycle: ResourceController
    guest: Guest | None
    console: Console | None
    host: Host | None

    async def open(self) -> None:
        """Connect. An unreachable hypervisor is no error here: calls raise ControllerUnavailable until
        it answers."""
        ...

    async def close(self) -> None:
        """Disconnect; running VMs are left running."""
        ...


class ControllerFactory(Protocol):
    """The value of an entry point in the group `vcl.controllers`."""

    def __call__(self, context: ControllerContext) -> Controller: ...
