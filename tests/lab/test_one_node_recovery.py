"""A guest that ends by itself, each time in its own way: what is said of it, remembered and done."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]


def booting(node: Any, name: str, words: str) -> dict[str, Any]:
    boot = dict(node.spec(name)["boot"])
    boot["cmdline"] += f" {words}"
    return boot


def reasons(node: Any, name: str) -> str:
    return str(node.vcl("get", "failures", name, "--no-headers").stdout)


def test_a_qemu_that_is_killed_is_told_from_a_panic_and_a_hang_and_each_is_restarted(node: Any) -> None:
    node.start()
    pid = node.boot("killed")
    node.save("panics", boot=booting(node, "panics", "vcl.panic=3"))
    lively = {"periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2}
    node.save("hangs", boot=booting(node, "hangs", "vcl.silent=15"), liveness=lively)
    os.kill(pid, signal.SIGKILL)
    expected = {"killed": "QemuCrashed", "panics": "GuestPanicked", "hangs": "GuestHung"}
    for name, reason in expected.items():
        node.until(lambda n=name, r=reason: r in reasons(node, n), seconds=120.0, what=f"{name}: {reason}")
        node.until_printed(name, f"vcl-guest: booted {name}", times=2)
        assert node.status(name)["restarts"] >= 1
        assert len(node.qemus(name)) <= 1
    assert node.status("killed")["lastExit"] == "Crashed"
    assert node.vcl("retry", "killed").returncode == 0
    node.until(lambda: reasons(node, "killed") == "", what="the failures are forgotten")
