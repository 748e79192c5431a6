"""A product that breaks one safety rule fails the test that is said to prove it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FENCING = "tests/loops/test_fencing_cluster.py::"
AUDIT = "tests/sim/test_writer_audit.py::"
RBD = "tests/loops/test_agent_rbd.py::"
HANG = 120.0

MUTATIONS = {
    "rule 4: a claim does not compare the session": (
        "reconciler.loops.agent_actions",
        "guards=(keys.SCHEMA, keys.session(self._context.node)),",
        "guards=(keys.SCHEMA,),",
        f"{AUDIT}test_a_claim_is_emptied_only_when_the_blocklist_is_in_force",
    ),
    "rule 7: the watchers of a guest that is gone are not read again": (
        "reconciler.loops.agent_clients",
        "        recorded = {client for client in claim.clients if is_network_client(client)}\n",
        "        recorded: set[str] = set()\n",
        f"{RBD}test_a_killed_qemu_is_shut_out_before_another_one_starts",
    ),
    "rule 7: a storage that does not answer counts as no watcher": (
        "reconciler.loops.agent_clients",
        "        found = [await self._read(disk) for disk in claim.disks"
        " if RbdIdentity.parse(disk) is not None]\n",
        "        found = []\n        for disk in claim.disks:\n            try:\n"
        "                found.append(await self._read(disk))\n"
        "            except PoolUnavailable:\n                pass\n",
        f"{RBD}test_a_claim_is_not_emptied_while_the_storage_does_not_answer",
    ),
    "rule 10: a claim is emptied before Ceph has taken the blocklist over": (
        "reconciler.planning.fencing_proofs",
        "if proof.settled and proof.unlocked and not proof.lifted",
        "if not proof.lifted",
        f"{AUDIT}test_a_claim_is_emptied_only_when_the_blocklist_is_in_force",
    ),
    "rule 12: what is written about a fencing does not compare the epoch": (
        "reconciler.loops.fencing_writes",
        "guards=(keys.SCHEMA, keys.EPOCH)",
        "guards=(keys.SCHEMA,)",
        f"{FENCING}test_a_worker_loses_its_power_and_its_vms_run_elsewhere_exactly_once",
    ),
    "rule 13: a judge that was frozen judges at once": (
        "reconciler.planning.judging",
        "if judge.ran_for < needed:",
        "if judge.ran_for < 0:",
        "tests/planning/test_judging.py",
    ),
    "rule 13: a judge does not ask whether its own lease was renewed": (
        "reconciler.planning.judging",
        "if suspect.renewals < OWN_RENEWALS:",
        "if suspect.renewals < 0:",
        "tests/planning/test_judging.py",
    ),
    "rule 15: a node is let in that has not shown that it is empty": (
        "reconciler.planning.fencing",
        "if not settled and not _asks_for_a_way(facts, record):",
        "if not settled and not facts.alive:",
        "tests/planning/test_fencing.py",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_a_product_without_the_rule_fails_its_test(mutation: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "mutant.py"), *mutation],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
