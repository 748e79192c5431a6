"""The dummy controller: behaves like a hypervisor, runs nothing, and fails on request.

It is the twin of the libvirt controller in simulations, and the entry point `dummy` for a real daemon
(`spec.controller: dummy`), with options in the configuration's `controllers.dummy` section:

    controllers:
      dummy: {cpus: 64, memory: 256Gi, faults: {web1: {startFailures: 2}, "*": {bootDelay: 1.5}}}

Invariant: like libvirt, it never says Gone while a creation that was accepted is still outstanding.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from reconciler.ports.controller import Console, Controller, ControllerContext, Host, ResourceController
from reconciler.ports.controller import Guest as GuestPort
from reconciler.resources.codec import camel, decode, quantity
from reconciler.resources.domains import HostFacts, host_networks
from reconciler.resources.errors import ControllerUnavailable, InvalidInput
from reconciler.sim.dummy_console import DummyConsole, DummyGuest
from reconciler.sim.dummy_guests import Faults, GuestFaults
from reconciler.sim.dummy_hypervisor import DummyHypervisor
from reconciler.sim.dummy_lifecycle import DummyLifecycle
from reconciler.sim.dummy_migration import DummyMigrator
from reconciler.sim.dummy_shelf import DirectoryShelf, MemoryShelf, boot_id
from reconciler.sim.guest_wire import GuestWire

TIB = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class DummyOptions:
    """The section `controllers.dummy`. `memory` in bytes; `faults` by VM name or `*`; `persistent`: keep
    the guests in the state directory, so that they outlive the daemon; `nvram_template`: as of libvirt.
    `bridges`, `networks`: what the host has; None: it does not tell."""

    cpus: int = 256
    memory: int = quantity("bytes", default=TIB)
    persistent: bool = True
    nvram_template: str = ""
    bridges: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None
    faults: Mapping[str, GuestFaults] = field(default_factory=dict)
    unavailable: tuple[str, ...] = ()
    hang: tuple[str, ...] = ()


class DummyHost:
    """A node of the size that the options say."""

    def __init__(self, hypervisor: DummyHypervisor, options: DummyOptions) -> None:
        self._hypervisor = hypervisor
        self._options = options

    async def facts(self, *, timeout: float) -> HostFacts:
        await self._hypervisor.gate("facts", timeout)
        return HostFacts(
            cpus=self._options.cpus,
            memory=self._options.memory,
            hypervisor="dummy 1.0",
            architecture="x86_64",
            virtualization="dummy",
            nvram_template=self._options.nvram_template,
            networks=host_networks(self._options.bridges, self._options.networks),
        )


class DummyController:
    """A whole controller. Two of them on one hypervisor are a daemon before and after its restart."""

    name: str = "dummy"

    def __init__(
        self,
        *,
        hypervisor: DummyHypervisor | None = None,
        options: DummyOptions | None = None,
        wire: tuple[GuestWire, str] | None = None,
    ) -> None:
        """`wire`: by which guests are migrated, and the host's name on it; without one none are."""
        options = options or DummyOptions()
        self.hypervisor = hypervisor or DummyHypervisor(faults=_faults(options))
        plain = DummyLifecycle(self.hypervisor)
        self.lifecycle: ResourceController = DummyMigrator(self.hypervisor, *wire) if wire else plain
        self.guest: GuestPort | None = DummyGuest(self.hypervisor)
        self.console: Console | None = DummyConsole(self.hypervisor)
        self.host: Host | None = DummyHost(self.hypervisor, options)

    async def open(self) -> None:
        try:
            self.hypervisor.start()
        except ControllerUnavailable:
            return  # every call tries again, and says why

    async def close(self) -> None:
        self.hypervisor.stop()


def create(context: ControllerContext) -> Controller:
    """The entry point `dummy`. Raises InvalidInput for options that it does not know."""
    options = parse_options(context.options)
    kept = DirectoryShelf(context.state_dir / "dummy", boot_id=boot_id())
    shelf = kept if options.persistent else MemoryShelf()
    return DummyController(hypervisor=DummyHypervisor(shelf=shelf, faults=_faults(options)), options=options)


def parse_options(options: Mapping[str, object]) -> DummyOptions:
    """The section `controllers.dummy`. Raises InvalidInput that names what is wrong in it."""
    _known("controllers.dummy", options, DummyOptions)
    faults = options.get("faults") or {}
    for name, section in sorted(faults.items()) if isinstance(faults, Mapping) else ():
        if isinstance(section, Mapping):
            _known(f"controllers.dummy.faults.{name}", section, GuestFaults)
    return decode(DummyOptions, options, "controllers.dummy")


def _known(where: str, section: Mapping[str, object], cls: type[DummyOptions | GuestFaults]) -> None:
    allowed = [camel(field.name) for field in fields(cls)]
    for key in section:
        if key not in allowed:
            close = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(allowed)}"
            raise InvalidInput(f"{where}.{key}: unknown option; {hint}")


def _faults(options: DummyOptions) -> Faults:
    return Faults(guests=options.faults, unavailable=options.unavailable, hang=options.hang)
