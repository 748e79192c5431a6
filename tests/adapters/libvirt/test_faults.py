"""libvirtd killed, frozen and restarted at the worst moments; QEMU killed; starts that cannot work."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.ports.controller import Controller
from reconciler.resources.domains import (
    AttachedDisk,
    Definition,
    DomainPhase,
    ExitReason,
    Gone,
    Observed,
    PauseReason,
    StartRequest,
)
from reconciler.resources.errors import AlreadyExists, ControllerUnavailable, NotOurs, StartFailed
from reconciler.resources.virtualmachine import Boot, Cpu, DiskFormat, Interface
from reconciler.testing.domains import Domains, is_unavailable

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]


async def test_a_creation_that_libvirtd_froze_in_appears_late_and_paused(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest], libvirtd: Any
) -> None:
    request = vm("late")
    definition = await controller.lifecycle.render(request, timeout=20)
    domains.started["late"] = request.uid
    creation = asyncio.create_task(controller.lifecycle.create(definition, timeout=1.0))
    while not libvirtd.guests():
        await asyncio.sleep(0.001)
    libvirtd.freeze()
    await is_unavailable(creation, 10)
    await is_unavailable(controller.lifecycle.observe("late", uid=request.uid, timeout=0.5), 10)
    await is_unavailable(controller.lifecycle.create(definition, timeout=0.5), 10)
    libvirtd.thaw()
    found = await domains.settled("late", request.uid)
    assert isinstance(found, Observed)
    assert (found.phase, found.pause_reason) == (DomainPhase.PAUSED, PauseReason.STARTING)
    await _until_it_is_there(controller, definition)
    seen = await domains.seen("late")
    assert (seen.phase, seen.pause_reason) == (DomainPhase.PAUSED, PauseReason.STARTING)
    assert seen.uid == request.uid


async def test_a_creation_that_had_not_begun_by_its_deadline_never_does(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest], libvirtd: Any
) -> None:
    request = vm("never")
    definition = await controller.lifecycle.render(request, timeout=20)
    domains.started["never"] = request.uid
    libvirtd.freeze()
    await is_unavailable(controller.lifecycle.create(definition, timeout=0.5), 10)
    libvirtd.thaw()
    assert await domains.settled("never", request.uid) == Gone()


async def test_a_creation_whose_connection_was_given_up_is_not_forgotten(
    open_controller: Callable[..., Controller], vm: Callable[..., StartRequest], libvirtd: Any
) -> None:
    controller = open_controller(keepaliveSeconds=1)
    await controller.open()
    domains = Domains(lifecycle=controller.lifecycle, patience=40)
    request = vm("cut-off")
    definition = await controller.lifecycle.render(request, timeout=20)
    domains.started["cut-off"] = request.uid
    creation = asyncio.create_task(controller.lifecycle.create(definition, timeout=20))
    while not libvirtd.guests():
        await asyncio.sleep(0.001)
    libvirtd.freeze()
    with pytest.raises(ControllerUnavailable, match="connection to libvirtd broke"):
        await creation  # keep-alive has given up
    await is_unavailable(controller.lifecycle.observe("cut-off", uid=request.uid, timeout=0.5), 10)
    libvirtd.thaw()
    found = await domains.settled("cut-off", request.uid)
    assert isinstance(found, Observed), "the frozen libvirtd carried it out after we had gone"
    assert found.phase is DomainPhase.PAUSED
    await _until_it_is_there(controller, definition)
    await domains.end_all()
    await controller.close()


async def test_a_new_daemon_waits_for_what_the_old_one_had_asked_of_a_frozen_libvirtd(
    controller: Controller,
    open_controller: Callable[..., Controller],
    vm: Callable[..., StartRequest],
    libvirtd: Any,
) -> None:
    import libvirt

    request = vm("inherited")
    definition = await controller.lifecycle.render(request, timeout=20)
    document = re.sub(r"<log file=.*?/>", "", definition.document)  # its directory is not there yet
    before = libvirt.open(libvirtd.uri)
    libvirtd.freeze()
    old_daemon = asyncio.create_task(
        asyncio.to_thread(before.createXML, document, libvirt.VIR_DOMAIN_START_PAUSED)
    )
    await asyncio.sleep(0.2)  # until it has been sent
    again = open_controller()
    await again.open()
    libvirtd.thaw()
    domains = Domains(lifecycle=again.lifecycle, patience=40, started={"inherited": request.uid})
    assert isinstance(await domains.settled("inherited", request.uid), Observed), "never said to be gone"
    await old_daemon
    before.close()
    await domains.end_all()
    await again.close()


async def test_a_creation_in_a_libvirtd_that_was_killed_is_gone_or_paused(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest], libvirtd: Any
) -> None:
    request = vm("cut")
    definition = await controller.lifecycle.render(request, timeout=20)
    domains.started["cut"] = request.uid
    for delay in (0.15, 0.3):
        creation = asyncio.create_task(controller.lifecycle.create(definition, timeout=20))
        await asyncio.sleep(delay)
        await asyncio.to_thread(libvirtd.kill)
        answer = (await asyncio.gather(creation, return_exceptions=True))[0]
        assert isinstance(answer, ControllerUnavailable | Observed)
        await asyncio.to_thread(libvirtd.start)
        found = await domains.settled("cut", request.uid)
        if isinstance(found, Observed):
            assert found.phase is DomainPhase.PAUSED
        assert len([g for g in libvirtd.guests() if _is(g.pid, request.uid)]) == isinstance(found, Observed)
        await domains.end_all()


async def test_a_frozen_libvirtd_stops_no_event_loop_and_eats_no_threads(
    controller: Controller, vm: Callable[..., StartRequest], libvirtd: Any
) -> None:
    await controller.lifecycle.inventory(timeout=20)
    libvirtd.freeze()
    threads = threading.active_count()
    started = time.monotonic()
    calls = [controller.lifecycle.observe(f"vm-{n}", timeout=0.5) for n in range(200)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, ControllerUnavailable) for answer in answers)
    assert time.monotonic() - started < 5, "all of them give up near their own deadline"
    assert threading.active_count() <= threads + 12
    libvirtd.thaw()
    assert await _listed(controller) == ()


async def test_guests_and_controller_survive_a_restart_of_libvirtd(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest], libvirtd: Any
) -> None:
    request = vm("survives")
    await domains.start(request)
    await domains.resume("survives")
    before = await domains.seen("survives")
    await asyncio.to_thread(libvirtd.kill)
    await is_unavailable(controller.lifecycle.inventory(timeout=0.5), 10)
    await asyncio.to_thread(libvirtd.start)
    found = await domains.settled("survives", request.uid)
    assert isinstance(found, Observed)
    assert (found.phase, found.incarnation) == (DomainPhase.RUNNING, before.incarnation)
    assert await _listed(controller) == (await domains.seen("survives"),)


async def test_a_guest_killed_while_libvirtd_was_down_has_crashed(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest], libvirtd: Any
) -> None:
    request = vm("killed")
    await domains.start(request)
    await domains.resume("killed")
    seen = await domains.seen("killed")
    await asyncio.to_thread(libvirtd.kill)
    os.kill(int(seen.clients[0].split(":")[1]), signal.SIGKILL)
    await asyncio.to_thread(libvirtd.start)
    gone = await domains.gone("killed", request.uid)
    assert gone.exit in (ExitReason.CRASHED, ExitReason.FAILED)


async def test_a_killed_guest_has_crashed(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest]
) -> None:
    request = vm("shot")
    await domains.start(request)
    await domains.resume("shot")
    os.kill(int((await domains.seen("shot")).clients[0].split(":")[1]), signal.SIGKILL)
    assert await domains.gone("shot", request.uid) == Gone(exit=ExitReason.CRASHED)


async def test_a_name_that_is_only_defined_by_somebody_else_is_not_ours(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest], libvirtd: Any
) -> None:
    import libvirt

    connection = libvirt.open(libvirtd.uri)
    defined = connection.defineXML(
        "<domain type='qemu'><name>taken</name><memory>32768</memory>"
        "<os><type arch='x86_64'>hvm</type></os></domain>"
    )
    try:
        definition = await controller.lifecycle.render(vm("taken"), timeout=20)
        with pytest.raises(NotOurs, match="another domain called taken"):
            await controller.lifecycle.create(definition, timeout=20)
        assert await controller.lifecycle.inventory(timeout=20) == ()
        assert connection.lookupByName("taken").UUIDString() == defined.UUIDString()
    finally:
        defined.undefine()
        connection.close()


async def test_every_refusal_has_a_reason_and_a_cure(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest], tmp_path: Path
) -> None:
    absent = AttachedDisk(name="d", path=str(tmp_path / "absent.raw"), format=DiskFormat.RAW)
    garbage = tmp_path / "garbage.qcow2"
    garbage.write_bytes(b"no image" * 1000)
    wrong = AttachedDisk(name="d", path=str(garbage), format=DiskFormat.QCOW2)
    cases = {
        "ImageMissing": vm("refused", disks=(absent,)),
        "ImageInvalid": vm("refused", disks=(wrong,)),
        "BridgeMissing": vm("refused", interfaces=(Interface(name="n", bridge="vclnobr0"),)),
        "NetworkMissing": vm("refused", interfaces=(Interface(name="n", network="absent"),)),
        "BootFileMissing": vm("refused", boot=Boot(kernel="/absent/vmlinuz")),
        "InsufficientMemory": vm("refused", memory=1 << 50),
        "UnsupportedConfiguration": vm("refused", machine="pc-q35-99.0"),
    }
    for reason, request in cases.items():
        with pytest.raises(StartFailed) as refused:
            await domains.start(request)
        assert refused.value.reason == reason, refused.value.message
        assert refused.value.cure
        assert "refused" in refused.value.message
        assert "\n" not in refused.value.message
        assert isinstance(await domains.gone("refused", request.uid), Gone)


async def test_an_image_in_use_is_named_and_its_user_goes_on(
    controller: Controller, domains: Domains, vm: Callable[..., StartRequest], tmp_path: Path
) -> None:
    image = tmp_path / "shared.raw"
    image.write_bytes(bytes(1 << 20))
    disk = AttachedDisk(name="d", path=str(image), format=DiskFormat.RAW)
    await domains.start(vm("first", disks=(disk,)))
    with pytest.raises(StartFailed, match=r"shared\.raw") as refused:
        await domains.start(vm("second", disks=(disk,)))
    assert refused.value.reason == "ImageInUse"
    assert (await domains.seen("first")).phase is DomainPhase.PAUSED


async def test_what_the_host_is_follows_the_proof(
    open_controller: Callable[..., Controller], tmp_path: Path
) -> None:
    from reconciler.adapters.libvirt import prove

    controller = open_controller(virtualization="auto")
    await controller.open()
    assert controller.host is not None
    facts = await controller.host.facts(timeout=40)
    kept = tmp_path / "state/libvirt/kvm-proof.json"
    assert kept.exists(), "the next start of the daemon need not prove it again"
    proof = prove.kvm("/usr/bin/qemu-system-x86_64", kept)
    assert facts.virtualization == ("kvm" if proof.works else "qemu")
    assert facts.cpus >= 1
    assert facts.hypervisor.startswith("QEMU ")
    await controller.close()


async def test_two_cores_and_their_memory_are_what_is_observed(
    domains: Domains, vm: Callable[..., StartRequest]
) -> None:
    await domains.start(vm("sized", cpu=Cpu(cores=2), memory=192 << 20))
    seen = await domains.seen("sized")
    assert (seen.vcpus, seen.memory) == (2, 192 << 20)


async def _until_it_is_there(controller: Controller, definition: Definition) -> None:
    """Asked again, it is made no second time: unknown at first, and then running already."""
    async with asyncio.timeout(40):
        while True:
            try:
                await controller.lifecycle.create(definition, timeout=5)
            except AlreadyExists:
                return
            except ControllerUnavailable:
                await asyncio.sleep(0.05)
            else:
                raise AssertionError("it was made a second time")


async def _listed(controller: Controller) -> tuple[Observed, ...]:
    """The inventory, once libvirtd answers again."""
    async with asyncio.timeout(40):
        while True:
            try:
                return await controller.lifecycle.inventory(timeout=5)
            except ControllerUnavailable:
                await asyncio.sleep(0.1)


def _is(pid: int, uid: str) -> bool:
    return uid.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
