"""A real guest: it boots, is looked into, ends by itself and on request, and finds its disk again."""

from __future__ import annotations

import asyncio
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.ports.controller import Controller
from reconciler.resources.domains import AttachedDisk, ExitReason, Gone, Observed, StartRequest
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


async def test_a_definition_by_hand_loses_its_permanence_and_the_guest_goes_on(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest], libvirtd: object
) -> None:
    import libvirt

    request = vm("adopted")
    definition = await controller.lifecycle.render(request, timeout=20)
    for element in ET.fromstring(definition.document).iter("log"):
        Path(element.attrib["file"]).parent.mkdir(parents=True, exist_ok=True)
    connection = libvirt.open(libvirtd.uri)  # type: ignore[attr-defined]
    domain = connection.defineXML(definition.document)
    domain.create()
    domain.setAutostart(1)
    domains.started["adopted"] = request.uid
    before = await domains.seen("adopted")
    assert (before.autostart, before.persistent) == (True, True)
    await controller.lifecycle.forget_persistent("adopted", uid=request.uid, timeout=20)  # type: ignore[attr-defined]
    after = await domains.seen("adopted")
    connection.close()
    assert isinstance(after, Observed)
    assert after == replace(before, autostart=False, persistent=False)
