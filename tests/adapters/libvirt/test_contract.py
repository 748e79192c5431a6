"""The controller contract on a real libvirtd and real QEMUs."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from reconciler.ports.controller import Controller
from reconciler.resources.domains import Observed
from reconciler.testing.controller_contract import ControllerContract

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]


class TestLibvirt(ControllerContract):
    """Its guests have no system to boot: they run, and obey no shutdown."""

    patience = 40.0

    @pytest.fixture(autouse=True)
    def equip(
        self,
        libvirtd: Any,
        foreign: Callable[[str], str],
        open_controller: Callable[..., Controller],
    ) -> None:
        self._libvirtd = libvirtd
        self._foreign = foreign
        self._open_controller = open_controller

    @pytest.fixture
    async def controller(self, open_controller: Callable[..., Controller]) -> AsyncIterator[Controller]:
        self._open: list[Controller] = [open_controller()]
        await self._open[0].open()
        yield self._open[0]
        for controller in self._open:
            await controller.close()

    @asynccontextmanager
    async def outage(self, controller: Controller) -> AsyncIterator[None]:
        self._libvirtd.kill()
        yield
        self._libvirtd.start()

    async def kill_guest(self, controller: Controller, domain: Observed) -> None:
        for client in domain.clients:
            os.kill(int(client.split(":")[1]), signal.SIGKILL)

    async def make_foreign(self, controller: Controller, name: str) -> str:
        return self._foreign(name)

    async def reconnect(self, controller: Controller) -> Controller:
        await controller.close()
        again = self._open_controller()
        self._open.append(again)
        await again.open()
        return again
