"""vcld is killed at random instants of starts and stops, on real libvirt: the next one always finishes, and
there is never a second copy, nor one without a claim."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import pytest

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

ROUNDS = 15
LONGEST = 1.5
"""Seconds; a start takes about one, a forced stop half of one."""


def check(node: Any, runs: bool) -> None:
    """Exactly one copy with a claim that names it, or none and no claim."""
    pids = node.qemus("web")
    claim = node.claim("web")
    if runs:
        assert len(pids) == 1
        assert (claim["node"], claim["phase"]) == ("r1", "Running")
        assert [client.split(":")[1] for client in claim["clients"]] == [str(pids[0])]
    else:
        assert (pids, claim) == ([], {})


def test_killed_at_random_instants_of_starts_and_stops(node: Any) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    node.start()
    # A guest without a system: what matters is its QEMU.
    spec = {"cpu": {"cores": 1}, "memory": "64Mi", "disks": [{"name": "data", "size": "1Mi"}]}
    node.save("web", spec | {"runStrategy": "Manual"})
    node.until_phase("web", "Stopped")
    for number in range(ROUNDS):
        runs = number % 2 == 0
        verb = ("start",) if runs else ("stop", "--force")
        assert node.vcl(*verb, "web").returncode == 0
        time.sleep(chance.uniform(0.0, LONGEST))
        node.end(signal.SIGKILL)
        assert len(node.qemus("web")) <= 1
        node.start()
        node.until_phase("web", "Running" if runs else "Stopped")
        check(node, runs)
    with node.libvirt() as connection:
        assert [domain.name() for domain in connection.listAllDomains()] == ["web"]
