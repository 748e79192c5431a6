"""The promises of a controller, as tests: vcl's own controllers pass them, and yours must too.

    class TestMyController(ControllerContract):
        patience = 10.0

        @pytest.fixture
        async def controller(self, tmp_path):
            controller = my_package.create(domains.context_for(tmp_path))
            await controller.open()
            yield controller
            await controller.close()

        ...and the four hooks below.

Needs pytest and pytest-asyncio (`asyncio_mode = auto`). Call
`pytest.register_assert_rewrite("reconciler.testing.controller_contract")` first for readable failures.
Nothing here needs a guest operating system, unless `guest_powers_off` is true.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.ports.controller import (
    Adopter,
    Controller,
    GuestPinger,
    Isolator,
    LiveChanger,
    Resetter,
)
from reconciler.resources.changes import AttachDisk, GrowDisk, Memory, Vcpus
from reconciler.resources.domains import (
    AttachedDisk,
    DomainPhase,
    ExitReason,
    Gone,
    Observed,
    PauseReason,
    StartRequest,
)
from reconciler.resources.errors import (
    ChangeRefused,
    ControllerUnavailable,
    NotFound,
    NotOurs,
    StartFailed,
    VclError,
)
from reconciler.resources.virtualmachine import Cpu, Disk, DiskFormat, VirtualMachineSpec
from reconciler.testing.domains import CLUSTER, NODE, Domains, Heard, is_unavailable


class ControllerContract:
    """Subclass it, give it a `controller` fixture (opened) and the hooks. `patience`: how long the slowest
    call may take, in seconds. `guest_powers_off`: a guest of `request` obeys `shutdown`; when false, it
    must ignore it."""

    patience: float = 60.0
    guest_powers_off: bool = False

    # What a subclass provides.

    def outage(self, controller: Controller) -> AbstractAsyncContextManager[None]:
        """While entered, the hypervisor does not answer; its domains live on."""
        raise AssertionError("the contract needs a way to make the hypervisor unavailable")

    async def lose_connection(self, controller: Controller) -> None:
        """Break the connection to the hypervisor, and let it come back. Default: a short outage."""
        async with self.outage(controller):
            await is_unavailable(controller.lifecycle.inventory(timeout=1.0), self.patience)
            await asyncio.sleep(0.5)

    async def kill_guest(self, controller: Controller, domain: Observed) -> None:
        """Kill the domain behind the controller's back, as the kernel's OOM killer would."""
        raise AssertionError("the contract needs a way to kill a guest")

    async def make_foreign(self, controller: Controller, name: str) -> str:
        """Start a domain called `name` by hand, without vcl; its UUID. The subclass removes it."""
        raise AssertionError("the contract needs a way to make a domain by hand")

    async def reconnect(self, controller: Controller) -> Controller:
        """Close this controller and open a new one on the same hypervisor, as a restarted daemon does.
        The `controller` fixture closes it."""
        raise AssertionError("the contract needs a way to restart the daemon")

    def request(self, name: str = "contract-a", *, disks: tuple[AttachedDisk, ...] = ()) -> StartRequest:
        """A small VM. Override it when yours needs more, such as a kernel."""
        return StartRequest(
            name=name,
            uid=str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
            cluster_uid=CLUSTER,
            node=NODE,
            generation=3,
            spec=VirtualMachineSpec(cpu=Cpu(cores=1), memory=128 << 20),
            disks=disks,
        )

    def broken_request(self) -> StartRequest:
        """One that `render` must refuse."""
        request = self.request("contract-broken")
        return replace(request, spec=replace(request.spec, domain_xml="<domain><not closed"))

    @pytest.fixture
    async def domains(self, controller: Controller) -> AsyncIterator[Domains]:
        domains = Domains(lifecycle=controller.lifecycle, patience=self.patience)
        yield domains
        await domains.end_all()

    # render

    async def test_rendering_twice_gives_the_same_and_starts_nothing(
        self, controller: Controller, domains: Domains
    ) -> None:
        before = await controller.lifecycle.inventory(timeout=self.patience)
        request = self.request()
        first = await controller.lifecycle.render(request, timeout=self.patience)
        again = await controller.lifecycle.render(request, timeout=self.patience)
        assert first == again
        assert (first.name, first.uid) == (request.name, request.uid)
        assert await controller.lifecycle.inventory(timeout=self.patience) == before
        assert await domains.gone(request.name, request.uid) == Gone()

    async def test_the_machine_type_is_pinned_once_it_is_known(self, controller: Controller) -> None:
        first = await controller.lifecycle.render(self.request(), timeout=self.patience)
        assert first.machine
        pinned = replace(self.request(), machine=first.machine)
        assert (await controller.lifecycle.render(pinned, timeout=self.patience)).machine == first.machine

    async def test_every_path_that_the_guest_may_write_is_named(
        self, controller: Controller, tmp_path: Path
    ) -> None:
        for name in ("root", "template"):
            (tmp_path / name).write_bytes(bytes(1 << 20))
        root = AttachedDisk(name="root", path=str(tmp_path / "root"), format=DiskFormat.RAW)
        template = AttachedDisk(
            name="template", path=str(tmp_path / "template"), format=DiskFormat.RAW, read_only=True
        )
        request = self.request(disks=(root, template))
        definition = await controller.lifecycle.render(request, timeout=self.patience)
        assert root.path in definition.writable
        assert template.path not in definition.writable

    async def test_what_cannot_be_rendered_is_refused_with_a_reason(self, controller: Controller) -> None:
        with pytest.raises(StartFailed) as refused:
            await controller.lifecycle.render(self.broken_request(), timeout=self.patience)
        assert refused.value.reason.isalnum()
        assert "contract-broken" in refused.value.message

    # create

    async def test_a_new_domain_is_paused_and_says_whose_it_is(self, domains: Domains) -> None:
        request = self.request()
        created = await domains.start(request)
        seen = await domains.seen(request.name)
        assert created.incarnation == seen.incarnation != ""
        assert (seen.phase, seen.pause_reason) == (DomainPhase.PAUSED, PauseReason.STARTING)
        assert (seen.name, seen.uid) == (request.name, request.uid)
        assert (seen.cluster_uid, seen.node, seen.generation) == (CLUSTER, NODE, 3)
        assert (seen.vcpus, seen.memory) == (request.spec.cpu.cores, request.spec.memory)
        assert seen.machine
        assert seen.virtualization
        assert seen.clients, "what may write to its images must be known before it is resumed"
        assert not seen.autostart, "nothing may start it again behind vcl's back"
        assert not seen.persistent

    async def test_a_second_creation_makes_no_second_copy(self, domains: Domains) -> None:
        request = self.request()
        first = await domains.start(request)
        with pytest.raises(VclError) as refused:
            await domains.start(request)
        assert not isinstance(refused.value, StartFailed), "StartFailed means that nothing runs"
        assert (await domains.seen(request.name)).incarnation == first.incarnation

    async def test_a_uid_that_lives_under_another_name_is_not_started_again(self, domains: Domains) -> None:
        request = self.request()
        first = await domains.start(request)
        with pytest.raises(VclError) as refused:
            await domains.lifecycle.create(
                await domains.lifecycle.render(
                    replace(request, name="contract-other"), timeout=self.patience
                ),
                timeout=self.patience,
            )
        assert not isinstance(refused.value, StartFailed)
        assert (await domains.seen(request.name)).incarnation == first.incarnation
        with pytest.raises(ControllerUnavailable):
            await domains.lifecycle.observe("contract-other", uid=request.uid, timeout=self.patience)

    async def test_a_name_taken_by_hand_is_not_ours(self, controller: Controller, domains: Domains) -> None:
        await self.make_foreign(controller, "contract-foreign")
        before = await domains.seen("contract-foreign")
        request = self.request("contract-foreign")
        definition = await controller.lifecycle.render(request, timeout=self.patience)
        with pytest.raises(NotOurs):
            await controller.lifecycle.create(definition, timeout=self.patience)
        with pytest.raises(NotOurs):
            await controller.lifecycle.destroy(request.name, uid=request.uid, timeout=self.patience)
        assert (await domains.seen("contract-foreign")).incarnation == before.incarnation

    async def test_a_domain_made_by_hand_is_listed_without_an_identity(
        self, controller: Controller, domains: Domains
    ) -> None:
        await self.make_foreign(controller, "contract-foreign")
        seen = await domains.seen("contract-foreign")
        assert (seen.uid, seen.cluster_uid, seen.node) == ("", "", "")
        assert seen in await controller.lifecycle.inventory(timeout=self.patience)

    async def test_a_domain_made_by_hand_is_taken_over_and_given_back_as_it_runs(
        self, controller: Controller, domains: Domains
    ) -> None:
        lifecycle, name = controller.lifecycle, "contract-foreign"
        if not isinstance(lifecycle, Adopter):
            return
        uuid = await self.make_foreign(controller, name)
        before, request = await domains.seen(name), replace(self.request(name), uid=uuid)
        found = await lifecycle.stranger(name, timeout=self.patience)
        assert found is not None
        assert (found.uuid, found.running, found.uid, found.obstacle) == (uuid, True, "", "")
        definition = await lifecycle.render(request, timeout=self.patience)
        for _ in range(2):
            await lifecycle.take_over(definition, timeout=self.patience)
            seen = await domains.seen(name)
            assert (seen.uid, seen.cluster_uid, seen.node) == (uuid, CLUSTER, NODE)
            assert (seen.incarnation, seen.phase) == (before.incarnation, before.phase)
        for _ in range(2):
            await lifecycle.give_back(name, uid=uuid, timeout=self.patience)
            assert await domains.seen(name) == before

    async def test_a_domain_that_is_not_there_or_another_is_not_taken_over(
        self, controller: Controller, domains: Domains
    ) -> None:
        lifecycle, name = controller.lifecycle, "contract-foreign"
        if not isinstance(lifecycle, Adopter):
            return
        assert await lifecycle.stranger(name, timeout=self.patience) is None
        definition = await lifecycle.render(self.request(name), timeout=self.patience)
        with pytest.raises(NotFound):
            await lifecycle.take_over(definition, timeout=self.patience)
        await self.make_foreign(controller, name)
        before = await domains.seen(name)
        with pytest.raises(NotOurs):
            await lifecycle.take_over(definition, timeout=self.patience)
        assert await domains.seen(name) == before

    async def test_each_start_is_an_incarnation_of_its_own(self, domains: Domains) -> None:
        request = self.request()
        first = await domains.start(request)
        await domains.lifecycle.destroy(request.name, uid=request.uid, timeout=self.patience)
        await domains.gone(request.name, request.uid)
        second = await domains.start(request)
        assert second.incarnation != first.incarnation

    # pause and resume

    async def test_resume_and_pause_can_be_repeated(self, domains: Domains) -> None:
        request = self.request()
        created = await domains.start(request)
        for _ in range(2):
            await domains.resume(request.name)
            running = await domains.seen(request.name)
            assert (running.phase, running.pause_reason) == (DomainPhase.RUNNING, PauseReason.NONE)
        for _ in range(2):
            await domains.lifecycle.set_paused(request.name, True, timeout=self.patience)
            paused = await domains.seen(request.name)
            assert (paused.phase, paused.pause_reason) == (DomainPhase.PAUSED, PauseReason.USER)
        assert paused.incarnation == created.incarnation

    async def test_a_pause_by_an_isolated_node_is_told_from_others_also_by_the_next_daemon(
        self, controller: Controller, domains: Domains
    ) -> None:
        lifecycle = controller.lifecycle
        if not isinstance(lifecycle, Isolator):
            return
        request = self.request()
        await domains.start(request)
        await domains.resume(request.name)
        for _ in range(2):
            await lifecycle.isolate(request.name, timeout=self.patience)
            seen = await domains.seen(request.name)
            assert (seen.phase, seen.pause_reason) == (DomainPhase.PAUSED, PauseReason.ISOLATED)
        domains.lifecycle = (await self.reconnect(controller)).lifecycle
        assert (await domains.seen(request.name)).pause_reason is PauseReason.ISOLATED
        await domains.resume(request.name)
        await domains.lifecycle.set_paused(request.name, True, timeout=self.patience)
        assert (await domains.seen(request.name)).pause_reason is PauseReason.USER

    async def test_isolating_a_paused_domain_leaves_the_pause_somebody_elses(
        self, controller: Controller, domains: Domains
    ) -> None:
        lifecycle = controller.lifecycle
        if not isinstance(lifecycle, Isolator):
            return
        request = self.request()
        await domains.start(request)
        await domains.resume(request.name)
        await lifecycle.set_paused(request.name, True, timeout=self.patience)
        await lifecycle.isolate(request.name, timeout=self.patience)
        assert (await domains.seen(request.name)).pause_reason is PauseReason.USER

    async def test_a_reset_guest_boots_again_in_the_same_domain(self, domains: Domains) -> None:
        lifecycle = domains.lifecycle
        if not isinstance(lifecycle, Resetter):
            return
        request = self.request()
        created = await domains.start(request)
        await domains.resume(request.name)
        for _ in range(2):
            await lifecycle.reset(request.name, timeout=self.patience)
        seen = await domains.seen(request.name)
        assert (seen.phase, seen.incarnation) == (DomainPhase.RUNNING, created.incarnation)
        assert seen.clients == created.clients
        with pytest.raises(NotFound):
            await lifecycle.reset("contract-absent", timeout=self.patience)

    # changes of a running domain, by a controller that can

    def roomy(self) -> StartRequest:
        """A VM with room to grow."""
        request = self.request()
        spec = replace(request.spec, cpu=Cpu(cores=1, max_cores=3), max_memory=256 << 20)
        return replace(request, spec=spec)

    async def test_vcpus_come_while_it_runs_and_never_go(self, domains: Domains) -> None:
        changer, request = domains.lifecycle, self.roomy()
        if not isinstance(changer, LiveChanger):
            return  # every change waits for a restart
        await domains.start(request)
        await domains.resume(request.name)
        definition = await domains.lifecycle.render(request, timeout=self.patience)
        for count, then in ((3, 3), (3, 3), (2, 3)):
            await changer.change(definition, Vcpus(count=count), timeout=self.patience)
            assert (await changer.shape(request.name, timeout=self.patience)).vcpus == then
        with pytest.raises(ChangeRefused, match="room for 3 vCPUs"):
            await changer.change(definition, Vcpus(count=4), timeout=self.patience)

    async def test_memory_beyond_the_maximum_is_refused(self, domains: Domains) -> None:
        changer, request = domains.lifecycle, self.roomy()
        if not isinstance(changer, LiveChanger):
            return
        await domains.start(request)
        await domains.resume(request.name)
        definition = await domains.lifecycle.render(request, timeout=self.patience)
        with pytest.raises(ChangeRefused, match="room for 256 MiB"):
            await changer.change(definition, Memory(size=300 << 20), timeout=self.patience)
        assert (await changer.shape(request.name, timeout=self.patience)).memory == 128 << 20
        assert (await domains.seen(request.name)).memory == 128 << 20

    async def test_a_disk_comes_grows_and_is_then_there(self, domains: Domains, tmp_path: Path) -> None:
        changer, request = domains.lifecycle, self.request()
        if not isinstance(changer, LiveChanger):
            return
        await domains.start(request)
        await domains.resume(request.name)
        (tmp_path / "data").write_bytes(bytes(1 << 20))
        data = AttachedDisk(name="data", path=str(tmp_path / "data"), format=DiskFormat.RAW)
        wanted = replace(request, spec=replace(request.spec, disks=(Disk(name="data"),)), disks=(data,))
        definition = await domains.lifecycle.render(wanted, timeout=self.patience)
        assert "data" not in (await changer.shape(request.name, timeout=self.patience)).disks
        for _ in range(2):
            await changer.change(definition, AttachDisk(disk="data"), timeout=self.patience)
            shape = await changer.shape(request.name, timeout=self.patience)
            assert shape.disks["data"] == data.path
        for size in (2 << 20, 1 << 20):
            await changer.change(definition, GrowDisk(disk="data", size=size), timeout=self.patience)
        with pytest.raises(ChangeRefused):
            await changer.change(definition, GrowDisk(disk="none", size=size), timeout=self.patience)

    async def test_changing_what_is_not_there_is_not_found(self, controller: Controller) -> None:
        changer, request = controller.lifecycle, self.request("contract-absent")
        if not isinstance(changer, LiveChanger):
            return
        definition = await controller.lifecycle.render(request, timeout=self.patience)
        with pytest.raises(NotFound):
            await changer.change(definition, Vcpus(count=2), timeout=self.patience)
        with pytest.raises(NotFound):
            await changer.shape("contract-absent", timeout=self.patience)

    async def test_pausing_what_is_not_there_is_not_found(self, controller: Controller) -> None:
        for paused in (True, False):
            with pytest.raises(NotFound):
                await controller.lifecycle.set_paused("contract-absent", paused, timeout=self.patience)

    # the end

    async def test_shutdown_returns_at_once_and_is_not_proof(self, domains: Domains) -> None:
        request = self.request()
        await domains.start(request)
        await domains.resume(request.name)
        await domains.lifecycle.shutdown(request.name, timeout=self.patience)
        if self.guest_powers_off:
            assert await domains.gone(request.name, request.uid) == Gone(exit=ExitReason.SHUTDOWN)
        else:
            assert (await domains.seen(request.name)).uid == request.uid

    async def test_a_destroyed_domain_is_gone_and_says_how(self, domains: Domains) -> None:
        request = self.request()
        await domains.start(request)
        await domains.resume(request.name)
        await domains.lifecycle.destroy(request.name, uid=request.uid, timeout=self.patience)
        gone = await domains.gone(request.name, request.uid)
        assert gone.exit in (ExitReason.DESTROYED, ExitReason.UNKNOWN)
        assert all(d.name != request.name for d in await domains.lifecycle.inventory(timeout=self.patience))

    async def test_a_paused_domain_can_be_destroyed(self, domains: Domains) -> None:
        request = self.request()
        await domains.start(request)
        await domains.lifecycle.destroy(request.name, uid=request.uid, timeout=self.patience)
        await domains.gone(request.name, request.uid)

    async def test_destroying_under_another_uid_is_refused(self, domains: Domains) -> None:
        request = self.request()
        created = await domains.start(request)
        with pytest.raises(NotOurs):
            await domains.lifecycle.destroy(request.name, uid=str(uuid.uuid4()), timeout=self.patience)
        assert (await domains.seen(request.name)).incarnation == created.incarnation

    async def test_destroying_what_is_not_there_does_nothing(self, controller: Controller) -> None:
        uid = str(uuid.uuid4())
        await controller.lifecycle.destroy("contract-absent", uid=uid, timeout=self.patience)
        gone = await controller.lifecycle.observe("contract-absent", uid=uid, timeout=self.patience)
        assert isinstance(gone, Gone)

    async def test_a_killed_guest_is_gone_and_did_not_shut_down(
        self, controller: Controller, domains: Domains
    ) -> None:
        request = self.request()
        await domains.start(request)
        await domains.resume(request.name)
        await self.kill_guest(controller, await domains.seen(request.name))
        gone = await domains.gone(request.name, request.uid)
        assert gone.exit in (ExitReason.CRASHED, ExitReason.FAILED, ExitReason.UNKNOWN)

    # what is there

    async def test_the_inventory_is_complete_and_sorted(self, domains: Domains) -> None:
        for name in ("contract-c", "contract-a", "contract-b"):
            await domains.start(self.request(name))
        await domains.resume("contract-b")
        listed = await domains.lifecycle.inventory(timeout=self.patience)
        names = [domain.name for domain in listed]
        assert names == sorted(names)
        assert {"contract-a", "contract-b", "contract-c"} <= set(names)
        for domain in listed:
            if domain.name in domains.started:
                assert domain == await domains.seen(domain.name)

    async def test_domains_outlive_the_daemon(self, controller: Controller, domains: Domains) -> None:
        request = self.request()
        created = await domains.start(request)
        await domains.resume(request.name)
        again = await self.reconnect(controller)
        domains.lifecycle = again.lifecycle
        seen = await domains.seen(request.name)
        assert (seen.phase, seen.incarnation) == (DomainPhase.RUNNING, created.incarnation)
        assert (seen.uid, seen.cluster_uid, seen.node, seen.generation) == (request.uid, CLUSTER, NODE, 3)

    # outages

    async def test_unknown_is_never_gone(self, controller: Controller, domains: Domains) -> None:
        request, absent = self.request(), str(uuid.uuid4())
        await domains.start(request)
        lifecycle = controller.lifecycle
        async with self.outage(controller):
            for call in (
                lambda: lifecycle.inventory(timeout=1.0),
                lambda: lifecycle.observe(request.name, timeout=1.0),
                lambda: lifecycle.observe("contract-absent", uid=absent, timeout=1.0),
                lambda: lifecycle.set_paused(request.name, False, timeout=1.0),
                lambda: lifecycle.shutdown(request.name, timeout=1.0),
            ):
                await is_unavailable(call(), self.patience)
        found = await domains.settled(request.name, request.uid)
        assert isinstance(found, Observed), "an outage of the hypervisor ends no guest"

    async def test_a_destroy_during_an_outage_proves_nothing(
        self, controller: Controller, domains: Domains
    ) -> None:
        request = self.request()
        await domains.start(request)
        async with self.outage(controller):
            await is_unavailable(
                controller.lifecycle.destroy(request.name, uid=request.uid, timeout=1.0), self.patience
            )
        found = await domains.settled(request.name, request.uid)
        assert isinstance(found, Gone) or found.uid == request.uid, "carried out late, or not at all"

    async def test_a_creation_during_an_outage_is_unknown(
        self, controller: Controller, domains: Domains
    ) -> None:
        request = self.request()
        definition = await controller.lifecycle.render(request, timeout=self.patience)
        domains.started[request.name] = request.uid
        async with self.outage(controller):
            await is_unavailable(controller.lifecycle.create(definition, timeout=1.0), self.patience)
            await is_unavailable(
                controller.lifecycle.observe(request.name, uid=request.uid, timeout=1.0), self.patience
            )

        found = await domains.settled(request.name, request.uid)
        if isinstance(found, Observed):
            assert found.phase is DomainPhase.PAUSED, "a creation that arrives late stays paused"

    # events

    async def test_events_hint_at_starts_and_ends(self, controller: Controller, domains: Domains) -> None:
        request = self.request()
        heard = Heard(controller.lifecycle.events())
        try:
            await domains.start(request)
            await heard.wait_for(request.name, self.patience)
            await domains.resume(request.name)
            heard.forget()
            await self.kill_guest(controller, await domains.seen(request.name))
            await heard.wait_for(request.name, self.patience)
        finally:
            await heard.stop()

    async def test_two_readers_both_hear_the_events(self, controller: Controller, domains: Domains) -> None:
        request = self.request()
        readers = [Heard(controller.lifecycle.events()) for _ in range(2)]
        try:
            await domains.start(request)
            for reader in readers:
                await reader.wait_for(request.name, self.patience)
        finally:
            for reader in readers:
                await reader.stop()

    async def test_a_new_connection_calls_for_a_look_at_everything(self, controller: Controller) -> None:
        heard = Heard(controller.lifecycle.events())
        try:
            await heard.wait_for("", self.patience)
            heard.forget()
            await self.lose_connection(controller)
            await heard.wait_for("", self.patience)
        finally:
            await heard.stop()

    # the other parts

    async def test_a_console_has_one_reader_and_what_it_printed_is_kept(
        self, controller: Controller, domains: Domains
    ) -> None:
        if controller.console is None:
            return  # it has no consoles
        request = self.request()
        await domains.start(request)
        await domains.resume(request.name)
        stream = await controller.console.open(request.name, timeout=self.patience)
        await stream.write(b"\r")
        await stream.close()
        await (await controller.console.open(request.name, timeout=self.patience)).close()
        tail = await controller.console.tail(request.name, 4096, timeout=self.patience)
        assert len(tail) <= 4096
        assert await controller.console.tail("contract-absent", 4096, timeout=self.patience) == b""

    async def test_a_guest_that_says_nothing_gives_empty_facts(
        self, controller: Controller, domains: Domains
    ) -> None:
        if controller.guest is None:
            return  # it cannot look into guests
        request = self.request()
        await domains.start(request)
        info = await controller.guest.info(request.name, timeout=self.patience)
        assert info.ip_addresses == ()
        assert not info.agent_connected

    async def test_a_paused_guest_is_never_said_to_be_silent(
        self, controller: Controller, domains: Domains
    ) -> None:
        if not isinstance(controller.guest, GuestPinger):
            return  # it cannot ask guests
        request = self.request()
        await domains.start(request)
        with pytest.raises(ControllerUnavailable):
            await controller.guest.ping(request.name, timeout=1.0)
        with pytest.raises(NotFound):
            await controller.guest.ping("contract-absent", timeout=1.0)

    async def test_the_node_has_cpus_and_memory(self, controller: Controller) -> None:
        if controller.host is None:
            return  # it knows nothing of the node
        facts = await controller.host.facts(timeout=self.patience)
        assert facts.cpus >= 1
        assert facts.memory >= 1 << 20
        assert facts.hypervisor
        assert facts.architecture
