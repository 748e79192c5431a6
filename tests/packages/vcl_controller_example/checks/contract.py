"""The package's own tests: it keeps vcl's contract. Run: pytest -o asyncio_mode=auto checks/contract.py"""

import json
import os
import signal
import uuid
from contextlib import asynccontextmanager

import pytest
import vcl_controller_example as example

from reconciler.resources.domains import Observed
from reconciler.testing.controller_contract import ControllerContract
from reconciler.testing.domains import context_for


class TestProcessController(ControllerContract):
    patience = 20.0
    guest_powers_off = True

    @pytest.fixture
    async def controller(self, tmp_path):
        self.directory = tmp_path
        controller = example.create(context_for(tmp_path))
        await controller.open()
        yield controller
        for domain in await controller.lifecycle.inventory(timeout=self.patience):
            os.killpg(int(domain.incarnation.partition(":")[0]), signal.SIGKILL)
        await controller.close()

    @asynccontextmanager
    async def outage(self, controller):
        directory = controller.lifecycle.directory
        directory.rename(directory.with_name("away"))
        yield
        directory.with_name("away").rename(directory)

    async def kill_guest(self, controller, domain: Observed) -> None:
        os.killpg(int(domain.incarnation.partition(":")[0]), signal.SIGKILL)

    async def make_foreign(self, controller, name: str) -> str:
        uid = str(uuid.uuid4())
        definition = await controller.lifecycle.render(self.request(name), timeout=self.patience)
        record = {**json.loads(definition.document), "uid": uid, "cluster_uid": "", "node": ""}
        foreign = type(definition)(
            name=name, uid=uid, document=json.dumps(record), machine=definition.machine
        )
        await controller.lifecycle.create(foreign, timeout=self.patience)
        return uid

    async def reconnect(self, controller):
        await controller.close()
        again = example.create(context_for(self.directory))
        await again.open()
        return again

    async def test_a_process_that_was_never_recorded_is_ended_at_the_next_start(self, controller):
        definition = await controller.lifecycle.render(self.request(), timeout=self.patience)
        created = await controller.lifecycle.create(definition, timeout=self.patience)
        (controller.lifecycle.directory / "contract-a.json").unlink()
        pid = int(created.incarnation.partition(":")[0])
        await controller.open()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
