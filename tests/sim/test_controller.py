"""The dummy controller keeps the contract, its guests outlive the daemon, and it fails when told to."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.ports.controller import Controller
from reconciler.resources.domains import (
    DomainPhase,
    ExitReason,
    Gone,
    Observed,
    PauseReason,
)
from reconciler.resources.errors import ControllerUnavailable, InvalidInput, StartFailed
from reconciler.sim.controller import DummyController, create, parse_options
from reconciler.sim.dummy_guests import ALL, Faults, GuestFaults
from reconciler.testing.controller_contract import ControllerContract
from reconciler.testing.domains import Domains, context_for


class DummyContract(ControllerContract):
    patience = 5.0
    guest_powers_off = True

    @asynccontextmanager
    async def outage(self, controller: Controller) -> AsyncIterator[None]:
        hypervisor = _dummy(controller).hypervisor
        hypervisor.faults = Faults(unavailable=(ALL,))
        yield
        hypervisor.faults = Faults()

    async def kill_guest(self, controller: Controller, domain: Observed) -> None:
        _dummy(controller).hypervisor.end(domain.name)

    async def make_foreign(self, controller: Controller, name: str) -> str:
        uid = str(uuid.uuid4())
        _dummy(controller).hypervisor.foreign(name, uid)
        return uid


class TestInMemory(DummyContract):
    @pytest.fixture
    async def controller(self) -> AsyncIterator[Controller]:
        controller = DummyController()
        await controller.open()
        yield controller
        await controller.close()

    async def reconnect(self, controller: Controller) -> Controller:
        await controller.close()
        again = DummyController(hypervisor=_dummy(controller).hypervisor)
        await again.open()
        return again


class TestOnDisk(DummyContract):
    @pytest.fixture
    async def controller(self, tmp_path: Path) -> AsyncIterator[Controller]:
        controller = create(context_for(tmp_path))
        await controller.open()
        yield controller
        await controller.close()

    async def reconnect(self, controller: Controller) -> Controller:
        await controller.close()
        again = create(context_for(self.directory))
        await again.open()
        return again

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path


@pytest.fixture
async def dummy() -> AsyncIterator[DummyController]:
    controller = DummyController()
    await controller.open()
    yield controller
    await controller.close()


async def start(dummy: Controller, name: str = "web", *, timeout: float = 1.0) -> Observed:
    request = ControllerContract().request(name)
    definition = await dummy.lifecycle.render(request, timeout=1.0)
    return await dummy.lifecycle.create(definition, timeout=timeout)


async def run(dummy: Controller, name: str = "web") -> None:
    await start(dummy, name)
    await dummy.lifecycle.set_paused(name, False, timeout=1.0)


async def gone(dummy: Controller, name: str = "web") -> Gone:
    uid = ControllerContract().request(name).uid
    return await Domains(lifecycle=dummy.lifecycle, patience=5.0).gone(name, uid)


async def test_a_start_fails_so_often_and_then_works(dummy: DummyController) -> None:
    faults = GuestFaults(start_failures=2, failure_reason="NoCpus", failure_message="no free CPUs")
    dummy.hypervisor.faults = Faults(guests={"web": faults})
    for _ in range(2):
        with pytest.raises(StartFailed, match="no free CPUs") as failed:
            await start(dummy)
        assert failed.value.reason == "NoCpus"
        assert isinstance(await dummy.lifecycle.observe("web", timeout=1.0), Gone)
    assert (await start(dummy)).pause_reason is PauseReason.STARTING


async def test_a_slow_start_ends_within_its_deadline(dummy: DummyController) -> None:
    dummy.hypervisor.faults = Faults(guests={ALL: GuestFaults(start_delay=0.05)})
    assert (await start(dummy, timeout=5.0)).phase is DomainPhase.PAUSED


async def test_a_start_that_misses_its_deadline_is_unknown_and_appears_late(dummy: DummyController) -> None:
    dummy.hypervisor.faults = Faults(guests={"web": GuestFaults(start_delay=0.2)})
    with pytest.raises(ControllerUnavailable, match="longer than"):
        await start(dummy, timeout=0.01)
    with pytest.raises(ControllerUnavailable, match="not ended"):
        await dummy.lifecycle.observe("web", timeout=1.0)
    assert await dummy.lifecycle.inventory(timeout=1.0) == ()
    found = await Domains(lifecycle=dummy.lifecycle, patience=5.0).settled("web", "")
    assert isinstance(found, Observed)
    assert found.pause_reason is PauseReason.STARTING


async def test_a_late_start_appears_although_the_daemon_was_killed(tmp_path: Path) -> None:
    options = {"faults": {"web": {"startDelay": 0.2}}}
    first = create(context_for(tmp_path, **options))
    with pytest.raises(ControllerUnavailable):
        await start(first, timeout=0.01)
    second = create(context_for(tmp_path))
    with pytest.raises(ControllerUnavailable, match="not ended"):
        await second.lifecycle.observe("web", timeout=1.0)
    found = await Domains(lifecycle=second.lifecycle, patience=5.0).settled("web", "")
    assert isinstance(found, Observed)


async def test_a_guest_vanishes_and_the_event_says_so(dummy: DummyController) -> None:
    dummy.hypervisor.faults = Faults(guests={"web": GuestFaults(vanish_after=0.05)})
    await run(dummy)
    events = dummy.lifecycle.events()
    while (event := await asyncio.wait_for(anext(events), 5.0)).what != "Ended":
        assert event.name in ("", "web")
    assert await gone(dummy) == Gone(exit=ExitReason.CRASHED)


async def test_a_guest_that_refuses_to_stop_needs_a_destroy(dummy: DummyController) -> None:
    dummy.hypervisor.faults = Faults(guests={"web": GuestFaults(refuses_shutdown=True)})
    await run(dummy)
    await dummy.lifecycle.shutdown("web", timeout=1.0)
    assert isinstance(await dummy.lifecycle.observe("web", timeout=1.0), Observed)
    uid = ControllerContract().request("web").uid
    await dummy.lifecycle.destroy("web", uid=uid, timeout=1.0)
    assert await gone(dummy) == Gone(exit=ExitReason.DESTROYED)


async def test_a_busy_guest_survives_its_destroy(dummy: DummyController) -> None:
    dummy.hypervisor.faults = Faults(guests={"web": GuestFaults(refuses_destroy=True)})
    await run(dummy)
    uid = ControllerContract().request("web").uid
    with pytest.raises(ControllerUnavailable, match="busy"):
        await dummy.lifecycle.destroy("web", uid=uid, timeout=0.02)
    assert isinstance(await dummy.lifecycle.observe("web", timeout=1.0), Observed)


async def test_a_hanging_call_fails_at_its_deadline(dummy: DummyController) -> None:
    dummy.hypervisor.faults = Faults(hang=("observe",))
    with pytest.raises(ControllerUnavailable, match="did not answer"):
        await dummy.lifecycle.observe("web", timeout=0.02)
    assert await dummy.lifecycle.inventory(timeout=0.02) == ()


async def test_the_power_button_of_a_paused_guest_works_after_its_resume(dummy: DummyController) -> None:
    await start(dummy)
    await dummy.lifecycle.shutdown("web", timeout=1.0)
    assert isinstance(await dummy.lifecycle.observe("web", timeout=1.0), Observed)
    await dummy.lifecycle.set_paused("web", False, timeout=1.0)
    assert await gone(dummy) == Gone(exit=ExitReason.SHUTDOWN)


async def test_a_booted_guest_has_an_address_and_a_login_prompt(dummy: DummyController) -> None:
    await run(dummy)
    assert dummy.guest is not None
    assert dummy.console is not None
    while not (info := await dummy.guest.info("web", timeout=1.0)).agent_connected:
        await asyncio.sleep(0.01)
    assert info.ip_addresses == ("192.0.2.1",)
    stream = await dummy.console.open("web", timeout=1.0)
    assert b"web login:" in await stream.read()
    await stream.write(b"root\n")
    assert await stream.read() == b"root\n"
    await stream.close()
    assert await stream.read() == b""
    assert (await dummy.console.tail("web", 5, timeout=1.0)) == b"root\n"


async def test_guests_of_another_boot_are_dead(tmp_path: Path) -> None:
    await run(create(context_for(tmp_path)))
    (boot,) = (tmp_path / "state" / "dummy").iterdir()
    boot.rename(boot.with_name("an-earlier-boot"))
    again = create(context_for(tmp_path))
    assert await again.lifecycle.inventory(timeout=1.0) == ()
    assert not boot.with_name("an-earlier-boot").exists()


async def test_an_unreadable_record_is_unknown_not_gone(tmp_path: Path) -> None:
    await run(create(context_for(tmp_path)))
    (record,) = (tmp_path / "state" / "dummy").rglob("*.json")
    record.write_bytes(b"{")
    again = create(context_for(tmp_path))
    await again.open()
    with pytest.raises(ControllerUnavailable, match="unreadable"):
        await again.lifecycle.observe("web", timeout=1.0)


async def test_the_options_set_the_size_of_the_node() -> None:
    options = parse_options({"cpus": 4, "memory": "8Gi", "persistent": False})
    host = DummyController(options=options).host
    assert host is not None
    facts = await host.facts(timeout=1.0)
    assert (facts.cpus, facts.memory) == (4, 8 << 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpu": 4}, "controllers.dummy.cpu: unknown option; did you mean 'cpus'"),
        ({"faults": {"web": {"startFailure": 1}}}, "faults.web.startFailure.*did you mean 'startFailures'"),
        ({"faults": {"web": {"startFailures": "x"}}}, "faults.web.startFailures: must be int"),
        ({"faults": ["web"]}, "controllers.dummy.faults: must be a map"),
        ({"memory": "8Gb"}, "controllers.dummy.memory"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_options(options)


async def test_events_of_one_guest_are_merged_while_nobody_reads(dummy: DummyController) -> None:
    events = dummy.lifecycle.events()
    await run(dummy)
    await run(dummy, "db")
    heard = [(await anext(events)).name for _ in range(3)]
    assert heard == ["", "web", "db"]


async def test_a_thousand_guests_start_quickly(tmp_path: Path) -> None:
    dummy = create(context_for(tmp_path))
    template = ControllerContract().request("template")
    async with asyncio.timeout(20):
        for number in range(1000):
            request = replace(template, name=f"vm{number}", uid=str(uuid.UUID(int=number)))
            definition = await dummy.lifecycle.render(request, timeout=1.0)
            await dummy.lifecycle.create(definition, timeout=1.0)
    assert len(await dummy.lifecycle.inventory(timeout=1.0)) == 1000


def _dummy(controller: Controller) -> DummyController:
    assert isinstance(controller, DummyController)
    return controller
