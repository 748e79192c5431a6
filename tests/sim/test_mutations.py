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
RULES = "tests/sim/test_rules.py::"
MIGRATIONS = "tests/loops/test_migrations_cluster.py::"
SHUTDOWN = "tests/loops/test_shutdown_cluster.py::"
STORAGES = "tests/sim/test_two_storages.py::"
HANG = 120.0

MUTATIONS = {
    "rule 1: a lease that is old is a proof": (
        "reconciler.planning.fencing",
        "if over or not unproven(needs_of(claim, facts.pools), record, claim, facts.alive)",
        "if over or not facts.alive",
        f"{RULES}test_a_lease_that_is_old_is_no_proof_while_the_monitors_take_no_command",
    ),
    "rule 2: a daemon trusts the claims without a session of its own": (
        "reconciler.loops.session",
        "session=max(before, after) + 1,",
        "session=max(before, after, 1),",
        f"{AUDIT}test_a_daemon_that_is_started_anew_on_a_fenced_host_is_let_in",
    ),
    "rule 3: a store that shows less than was seen is believed": (
        "reconciler.planning.store_memory",
        "if now.revision < before.revision or now.epoch < before.epoch:",
        "if now.revision < 0:",
        f"{RULES}test_a_store_that_was_set_back_ends_no_guest_and_starts_none",
    ),
    "rule 3: a store that was set back is believed when its numbers have grown again": (
        "reconciler.planning.store_memory",
        "    if then and before.txn:",
        "    if then and not before.txn:",
        f"{RULES}test_a_store_that_was_set_back_is_not_believed_when_others_have_written_to_it_since",
    ),
    "rule 4: a claim does not compare the session": (
        "reconciler.loops.agent_claims",
        "guards=(keys.SCHEMA, keys.session(context.node)),",
        "guards=(keys.SCHEMA,),",
        f"{AUDIT}test_a_claim_is_emptied_only_when_the_blocklist_is_in_force",
    ),
    "rule 5: a guest runs before its client is recorded": (
        "reconciler.loops.agent_clients",
        "        return replace(observed, clients=(*observed.clients, *sorted(clients)))\n",
        "        return observed\n",
        f"{AUDIT}test_a_killed_guests_last_write_is_refused_when_its_link_heals",
    ),
    "rule 6: a claim takes images that another has": (
        "reconciler.loops.agent_actions",
        "**{keys.disk(identity): 0 for identity in held},",
        "",
        f"{RULES}test_one_image_by_two_names_has_one_owner",
    ),
    "rule 7: the watchers of a guest that is gone are not read again": (
        "reconciler.loops.agent_clients",
        "        recorded = {client for client in claim.clients if is_network_client(client)}\n",
        "        recorded: set[str] = set()\n",
        f"{RBD}test_a_killed_qemu_is_shut_out_before_another_one_starts",
    ),
    "rule 7: a storage that does not answer counts as no watcher": (
        "reconciler.loops.agent_clients",
        "            held = await self._read(disk)\n",
        "            try:\n                held = await self._read(disk)\n"
        "            except PoolUnavailable:\n                continue\n",
        f"{RBD}test_a_claim_is_not_emptied_while_the_storage_does_not_answer",
    ),
    "rule 8: the fencer forgets the clients of the claim that it empties": (
        "reconciler.planning.fencing_record",
        'lingering = {c for c in (*claim.former_clients, *claim.clients) if not c.startswith("pid:")}',
        "lingering: set[str] = set()",
        f"{RULES}test_what_a_host_that_was_switched_off_has_locked_keeps_nobody_from_starting",
    ),
    "rule 9: a domain with the id of a VM is ours, wherever it was made": (
        "reconciler.planning.lifecycle",
        "and observed.cluster_uid == view.cluster_uid and observed.node == view.node",
        "",
        f"{RULES}test_a_copy_of_a_domain_that_somebody_started_by_hand_is_left_alone",
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
    "rule 13: the word of one judge is enough": (
        "reconciler.planning.judging",
        "if len(found) < needed:",
        "if len(found) < 1:",
        f"{RULES}test_one_judge_alone_cuts_nobody_off",
    ),
    "rule 14: the blocklist of a Ceph is a proof for files as well": (
        "reconciler.planning.fencing_proofs",
        'return not self.other and self.fsid in ("", fsid)',
        "return True",
        f"{STORAGES}test_the_blocklist_is_no_proof_for_the_file_and_a_word_about_this_boot_is",
    ),
    "rule 14: a person's word stands whatever the host shows": (
        "reconciler.planning.fencing_proofs",
        "return right and not alive",
        "return right",
        f"{STORAGES}test_a_word_is_void_while_the_host_is_heard",
    ),
    "rule 15: a node is let in that has not shown that it is empty": (
        "reconciler.planning.fencing",
        "if not settled and not _asks_for_a_way(facts, record):",
        "if not settled and not facts.alive:",
        f"{RULES}test_a_fenced_host_is_not_let_in_while_a_guest_is_left_on_it",
    ),
    "rule 17: the fence of one host empties the claim of two": (
        "reconciler.loops.fencing_writes",
        "if claim.migration is not None and hosts_of(left):",
        "if not hosts_of(left):",
        "tests/loops/test_fencing_writes.py",
    ),
    "rule 17: the agents do as they always do while a migration is open": (
        "reconciler.planning.lifecycle",
        "migrates_here(view.claim, view.node) and not view.lost",
        "migrates_here(view.claim, view.node) and view.lost",
        f"{MIGRATIONS}test_a_guest_moves_with_its_memory_and_its_downtime_is_short",
    ),
    "rule 17: the target runs although nobody heard how the call ended": (
        "reconciler.planning.migration",
        "return () if there is Look.READY and heard else (moving.target,)",
        "return () if there is Look.READY else (moving.target,)",
        "tests/planning/test_migration_interleavings.py",
    ),
    "rule 20: VMs may run although the cluster is shut down": (
        "reconciler.loops.views",
        "        if self._shut_down() or self.exists(keys.POWER_INTENT):\n",
        "        if False:\n",
        f"{SHUTDOWN}test_after_a_power_loss_nothing_starts_by_itself",
    ),
    "rule 20: an order that was ended comes back with a node that was away": (
        "reconciler.planning.power_orders",
        "        if order.id not in ended:\n",
        "        if order.id:\n",
        f"{SHUTDOWN}test_a_node_that_was_away_takes_no_old_order_along",
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
