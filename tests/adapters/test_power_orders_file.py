"""An order to shut down outlives the daemon and the power, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.adapters.power_orders_file import PowerOrdersFile
from reconciler.planning.power_orders import in_force, started
from reconciler.resources.errors import VclError
from reconciler.resources.shutdowns import PowerMemory, PowerOrders, ShutdownOrder

ORDER = ShutdownOrder(id="a", deadline=300.0, reason="battery", power_off=True)
KNOWN = PowerMemory(known=PowerOrders(orders=(ORDER,)), under_way=("a",), boot_id="b")
ENDED = PowerMemory(known=started(KNOWN.known))


async def test_an_order_is_there_after_a_restart_and_so_is_its_end(tmp_path: Path) -> None:
    path = tmp_path / "power.json"
    assert PowerOrdersFile(path).load() == PowerMemory()
    await PowerOrdersFile(path).save(KNOWN)
    assert in_force(PowerOrdersFile(path).load().known) == ORDER
    await PowerOrdersFile(path).save(ENDED)
    assert PowerOrdersFile(path).load() == PowerMemory(known=PowerOrders(ended=("a",)))


async def test_a_save_that_was_cut_leaves_what_was_there(tmp_path: Path) -> None:
    file = PowerOrdersFile(tmp_path / "power.json")
    await file.save(KNOWN)
    (tmp_path / "power.new").write_text('{"orders": [')
    assert file.load() == KNOWN
    await file.save(ENDED)
    assert file.load() == ENDED


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"known": {"orders": [{"id": 1}]}}', "\x00" * 40])
def test_a_damaged_file_never_says_that_vms_may_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "power.json"
    path.write_text(text)
    with pytest.raises(VclError, match="whether the cluster was shut down"):
        PowerOrdersFile(path).load()


async def test_a_disk_that_refuses_is_told_of_and_the_old_file_stays(tmp_path: Path) -> None:
    file = PowerOrdersFile(tmp_path / "power.json")
    await file.save(KNOWN)
    (tmp_path / "power.new").mkdir()
    with pytest.raises(VclError, match=r"cannot write .*power\.json"):
        await file.save(PowerMemory())
    assert file.load() == KNOWN
