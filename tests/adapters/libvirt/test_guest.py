"""A real guest: it boots, is looked into, ends by itself and on request, and finds its disk again."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.domainxml import metadata
from reconciler.domainxml.parse import parse, serialize
from reconciler.ports.controller import Adopter, Controller
from reconciler.resources.domains import AttachedDisk, ExitReason, Gone, StartRequest
from reconciler.resources.errors import AlreadyExists, NotFound
from reconciler.resources.virtualmachine import CloudInit, DiskFormat
from reconciler.testing.domains import Domains

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]


async def says(controller: Controller, name: str, pattern: str, *, seconds: float = 60.0) -> re.Match[str]:
    """Wait until the console has printed the pattern."""
    assert controller.console is not None
    for _ in range(int(seconds * 5)):
        printed = (await controller.console.tail(name, 1 << 20, timeout=5)).decode(errors="replace")
        if found := re.search(pattern, printed):
            return found
        await asyncio.sleep(0.2)
    raise AssertionError(f"{name} never printed {pattern!r}: {printed[-400:]}")


async def boot(domains: Domains, request: StartRequest) -> None:
    await domains.start(request)
    await domains.resume(request.name)


async def test_a_guest_boots_and_tells_its_address_and_obeys_its_agent(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest]
) -> None:
    request = vm("talks")
    await boot(domains, request)
    assert await says(controller, "talks", r"vcl-guest: booted talks")
    address = (await says(controller, "talks", r"vcl-guest: address ([\d.]+)/"))[1]
    guest = controller.guest
    assert guest is not None

    async def knows_its_address() -> bool | None:
        info = await guest.info("talks", timeout=10)
        return (info.agent_connected is True and address in info.ip_addresses) or None

    assert await domains.eventually(knows_its_address)
    assert (await domains.seen("talks")).agent_connected
    await controller.lifecycle.shutdown("talks", timeout=10)
    assert await domains.gone("talks", request.uid) == Gone(exit=ExitReason.SHUTDOWN)
    printed = await controller.console.tail("talks", 4096, timeout=5) if controller.console else b""
    assert b"vcl-guest: bye" in printed
    assert b"power button" not in printed, "the agent was asked, not the power button"


async def test_a_guest_without_an_agent_obeys_the_power_button(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest]
) -> None:
    request = vm("presses", guest_agent=False)
    await boot(domains, request)
    await says(controller, "presses", "tick 1")
    assert (await domains.seen("presses")).agent_connected is None
    await controller.lifecycle.shutdown("presses", timeout=10)
    assert await domains.gone("presses", request.uid) == Gone(exit=ExitReason.SHUTDOWN)
    assert await says(controller, "presses", "power button")


async def test_a_guest_that_powers_itself_off_has_shut_down_also_when_nobody_listened(
    controller: Controller,
    open_controller: Callable[..., Controller],
    domains: Domains,
    vm: Callable[..., StartRequest],
) -> None:
    request = vm("tired")
    assert request.spec.boot is not None
    boot_spec = replace(request.spec.boot, cmdline=f"{request.spec.boot.cmdline} vcl.poweroff=1")
    request = replace(request, spec=replace(request.spec, boot=boot_spec))
    await boot(domains, request)
    assert await domains.gone("tired", request.uid) == Gone(exit=ExitReason.SHUTDOWN)
    # A daemon that was started afterwards finds the reason in libvirt's log.
    later = open_controller()
    await later.open()
    found = await later.lifecycle.observe("tired", uid=request.uid, timeout=10)
    await later.close()
    assert found == Gone(exit=ExitReason.SHUTDOWN)


async def test_what_a_guest_wrote_is_there_after_a_restart(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest], tmp_path: Path
) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    attached = AttachedDisk(name="data", path=str(disk), format=DiskFormat.RAW)
    request = vm("writes", disks=(attached,), cloud_init=CloudInit(user_data="#cloud-config\n"))
    await boot(domains, request)
    await says(controller, "writes", "tick 2")
    await controller.lifecycle.destroy("writes", uid=request.uid, timeout=40)
    assert await domains.gone("writes", request.uid) == Gone(exit=ExitReason.DESTROYED)
    counted = int(disk.read_bytes().split()[1])
    assert counted >= 2
    await boot(domains, request)
    assert await says(controller, "writes", rf"disk found {counted}\b")


async def test_the_console_is_live_and_for_one(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest]
) -> None:
    request = vm("prints")
    await domains.start(request)
    console = controller.console
    assert console is not None
    stream = await console.open("prints", timeout=10)
    await domains.resume("prints")
    heard = b""
    async with asyncio.timeout(60):
        while b"vcl-guest: booted prints" not in heard:
            heard += await stream.read()
    with pytest.raises(AlreadyExists, match="connected to the console of prints"):
        await console.open("prints", timeout=10)
    await stream.write(b"x" * 100)
    await controller.lifecycle.destroy("prints", uid=request.uid, timeout=40)
    async with asyncio.timeout(20):
        while await stream.read():
            pass
    await stream.close()
    with pytest.raises(NotFound):
        await console.open("prints", timeout=10)


@contextlib.contextmanager
def by_hand(libvirtd: Any, document: str) -> Iterator[Any]:
    """A domain that an operator defined, with autostart, and started: without vcl's mark."""
    import libvirt

    root = parse(document).root
    metadata.clear(root)
    for log in root.iter("log"):
        Path(log.attrib["file"]).parent.mkdir(parents=True, exist_ok=True)
    connection = libvirt.open(libvirtd.uri)
    domain = connection.defineXML(serialize(root))
    domain.create()
    domain.setAutostart(1)
    yield domain
    with contextlib.suppress(libvirt.libvirtError):
        domain.destroy()
    with contextlib.suppress(libvirt.libvirtError):
        domain.undefine()
    connection.close()


async def ticks(controller: Controller, name: str) -> int:
    """The last tick that the guest has printed."""
    assert controller.console is not None
    printed = (await controller.console.tail(name, 1 << 20, timeout=5)).decode(errors="replace")
    return max((int(found) for found in re.findall(r"tick (\d+)", printed)), default=0)


async def test_a_domain_made_by_hand_is_taken_over_while_its_guest_counts_on(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest], libvirtd: Any
) -> None:
    request, lifecycle = vm("adopted"), controller.lifecycle
    assert isinstance(lifecycle, Adopter)
    definition = await lifecycle.render(request, timeout=20)
    with by_hand(libvirtd, definition.document) as domain:
        await says(controller, "adopted", "tick 2")
        before, count = await domains.seen("adopted"), await ticks(controller, "adopted")
        assert (before.autostart, before.persistent, before.uid) == (True, True, "")
        await lifecycle.take_over(definition, timeout=20)
        after = await domains.seen("adopted")
        assert (after.incarnation, after.clients) == (before.incarnation, before.clients)
        assert (after.autostart, after.persistent) == (False, False)
        assert (after.uid, after.node) == (request.uid, request.node)
        assert metadata.ownership(domain.XMLDesc()) == metadata.ownership(definition.document)
        await says(controller, "adopted", f"tick {count + 3}")

        await lifecycle.give_back("adopted", uid=request.uid, timeout=20)
        assert await domains.seen("adopted") == before
        await says(controller, "adopted", f"tick {count + 5}")


async def test_a_domain_that_is_off_loses_its_definition_and_can_have_it_back(
    controller: Controller, vm: Callable[..., StartRequest], libvirtd: Any
) -> None:
    request, lifecycle = vm("resting"), controller.lifecycle
    assert isinstance(lifecycle, Adopter)
    definition = await lifecycle.render(request, timeout=20)
    with by_hand(libvirtd, definition.document) as domain:
        domain.destroy()
        found = await lifecycle.stranger("resting", timeout=20)
        assert found is not None
        assert (found.running, found.persistent, found.obstacle) == (False, True, "")
        await lifecycle.take_over(replace(definition, document=""), timeout=20)
        assert await lifecycle.stranger("resting", timeout=20) is None
        await lifecycle.give_back("resting", uid=request.uid, timeout=20)
        assert (domain.isPersistent(), domain.autostart()) == (1, 1)


async def test_snapshots_and_saved_memory_are_not_thrown_away(
    controller: Controller, vm: Callable[..., StartRequest], libvirtd: Any
) -> None:
    lifecycle = controller.lifecycle
    assert isinstance(lifecycle, Adopter)
    definition = await lifecycle.render(vm("kept"), timeout=20)
    with by_hand(libvirtd, definition.document) as domain:
        domain.managedSave(0)
        found = await lifecycle.stranger("kept", timeout=20)
        domain.managedSaveRemove(0)
        assert found is not None
        assert "its memory is saved on the host" in found.obstacle
