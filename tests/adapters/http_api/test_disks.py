"""virtualmachines/NAME/disks: what is asked wrongly is told, and nobody is shut out by it."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("clients", [None, [], "10.77.0.1:0/5", [5]])
async def test_an_unlock_names_the_clients_that_were_shown(api: Any, clients: object) -> None:
    path = "virtualmachines/web/disks/root/unlock"
    code, status = await api.call("POST", path, json={"clients": clients})
    assert code == 400
    assert "list of addresses" in status["message"]


async def test_the_disks_of_no_vm_are_not_found(api: Any) -> None:
    code, status = await api.get("virtualmachines/nope/disks")
    assert code == 404
    assert "nope" in status["message"]
