"""The command that switches the host off is run, and told of when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.adapters.host_switch import CommandSwitch
from reconciler.resources.errors import VclError


async def test_the_command_is_run(tmp_path: Path) -> None:
    await CommandSwitch(["touch", str(tmp_path / "off")]).off()
    assert (tmp_path / "off").exists()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["/nowhere/shutdown", "-h", "now"], "`/nowhere/shutdown -h now`: "),
        (["sh", "-c", "echo not allowed >&2; exit 3"], "exit status 3: not allowed"),
    ],
)
async def test_one_that_fails_says_how_and_where_it_is_set(command: list[str], told: str) -> None:
    with pytest.raises(VclError) as met:
        await CommandSwitch(command).off()
    assert told in str(met.value)
    assert "power.offCommand" in met.value.cure
