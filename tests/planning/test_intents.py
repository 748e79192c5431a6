"""What verbs do to an intent, together with what `desired` then makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.planning.desired import Wish, desired
from reconciler.planning.intents import Target, Verb, VerbRequest, apply_verb, is_empty
from reconciler.resources.codec import decode
from reconciler.resources.domains import ExitReason
from reconciler.resources.errors import ConflictError
from reconciler.resources.records import Claim, Intent, ObjectMeta, Source, SpecRecord
from reconciler.resources.virtualmachine import RunStrategy, VirtualMachineSpec

ALL = tuple(RunStrategy)


def wish(strategy: RunStrategy, intent: Intent, claim: Claim | None = None) -> Wish:
    spec = {"cpu": {"cores": 1}, "memory": "1Gi", "runStrategy": strategy.value}
    meta = ObjectMeta(name="web", uid="u")
    record = SpecRecord(kind="VirtualMachine", metadata=meta, spec=spec, source=Source(path="web.yaml"))
    return desired(record, decode(VirtualMachineSpec, spec), intent, claim, power_on=True).wish


def ask(
    verb: Verb,
    strategy: RunStrategy,
    intent: Intent | None = None,
    claim: Claim | None = None,
    *,
    id: str = "id1",
    force: bool = False,
) -> Intent:
    intent = intent or Intent()
    target = Target(name="web", strategy=strategy, wish=wish(strategy, intent, claim))
    return apply_verb(VerbRequest(verb=verb, id=id, now="now", force=force), target, intent)


def ended(claim: Claim, exit: ExitReason = ExitReason.SHUTDOWN) -> Claim:
    return replace(claim, node="", exit=exit.value)


@pytest.mark.parametrize("strategy", ALL)
def test_start_after_stop_makes_it_run_whatever_its_strategy(strategy: RunStrategy) -> None:
    stopped = ask(Verb.STOP, strategy)
    assert wish(strategy, stopped) is Wish.STOP
    assert wish(strategy, ask(Verb.START, strategy, stopped)) is Wish.RUN


def test_start_runs_again_what_the_guest_powered_off() -> None:
    strategy = RunStrategy.RERUN_ON_FAILURE
    claim = Claim(node="", uid="u", exit=ExitReason.SHUTDOWN.value)
    assert wish(strategy, Intent(), claim) is Wish.STOP
    assert wish(strategy, ask(Verb.START, strategy, Intent(), claim), claim) is Wish.RUN


def test_a_second_start_does_not_make_a_second_run() -> None:
    strategy = RunStrategy.MANUAL
    once = ask(Verb.START, strategy, id="first")
    claim = Claim(node="r1", uid="u", start=once.start)
    twice = ask(Verb.START, strategy, once, claim, id="second")
    assert wish(strategy, twice, ended(claim)) is Wish.STOP


@pytest.mark.parametrize("strategy", ALL)
def test_a_restart_starts_again_after_the_guest_powered_off_for_it(strategy: RunStrategy) -> None:
    started = ask(Verb.START, strategy, id="first")
    claim = Claim(node="r1", uid="u", start=started.start)
    again = ask(Verb.RESTART, strategy, started, claim, id="second")
    assert again.restart == "second"
    assert wish(strategy, again, ended(claim)) is Wish.RUN


def test_a_restart_of_what_is_stopped_is_refused() -> None:
    with pytest.raises(ConflictError) as refused:
        ask(Verb.RESTART, RunStrategy.ALWAYS, Intent(run="Stop"))
    assert refused.value.cure == "`vcl start web` starts it"


def test_resume_is_the_opposite_of_pause() -> None:
    paused = ask(Verb.PAUSE, RunStrategy.ALWAYS)
    assert paused.paused
    assert is_empty(ask(Verb.RESUME, RunStrategy.ALWAYS, paused))


def test_stop_forgets_pause_and_restart() -> None:
    before = Intent(paused=True, restart="r")
    after = ask(Verb.STOP, RunStrategy.ALWAYS, before)
    assert (after.paused, after.restart, after.run) == (False, None, "Stop")


def test_a_stop_becomes_forced_and_stays_so() -> None:
    stopped = ask(Verb.STOP, RunStrategy.ALWAYS)
    forced = ask(Verb.STOP, RunStrategy.ALWAYS, stopped, force=True)
    assert forced.force
    assert ask(Verb.STOP, RunStrategy.ALWAYS, forced) == forced


def test_a_stop_after_a_forced_restart_waits_for_the_guest() -> None:
    restarted = ask(Verb.RESTART, RunStrategy.ALWAYS, force=True)
    assert not ask(Verb.STOP, RunStrategy.ALWAYS, restarted).force


def test_retry_forgets_failures_and_nothing_else() -> None:
    before = Intent(run="Start", start="s", paused=True)
    after = ask(Verb.RETRY, RunStrategy.MANUAL, before)
    assert after == replace(before, reset_failures="id1", run_strategy="Manual", requested="now")


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.PAUSE, Verb.RESUME])
def test_asking_twice_changes_nothing(verb: Verb) -> None:
    once = ask(verb, RunStrategy.ALWAYS, id="first")
    assert ask(verb, RunStrategy.ALWAYS, once, id="second") is once


@pytest.mark.parametrize("verb", Verb)
def test_nothing_can_be_asked_of_a_vm_that_is_being_deleted(verb: Verb) -> None:
    target = Target(name="web", strategy=RunStrategy.ALWAYS, wish=Wish.DELETED)
    with pytest.raises(ConflictError, match="being deleted"):
        apply_verb(VerbRequest(verb=verb, id="i", now="n"), target, Intent())


def test_each_reset_is_one_of_its_own_and_a_stop_forgets_it() -> None:
    once = ask(Verb.RESET, RunStrategy.ALWAYS, id="first")
    again = ask(Verb.RESET, RunStrategy.ALWAYS, once, id="second")
    assert (once.reset, again.reset) == ("first", "second")
    assert ask(Verb.STOP, RunStrategy.ALWAYS, again).reset is None
    assert ask(Verb.RESTART, RunStrategy.ALWAYS, again).reset is None


def test_what_a_person_paused_is_not_reset() -> None:
    with pytest.raises(ConflictError, match="paused by `vcl pause`"):
        ask(Verb.RESET, RunStrategy.ALWAYS, Intent(paused=True))


def test_what_does_not_run_is_not_reset() -> None:
    with pytest.raises(ConflictError, match="nothing to reset"):
        ask(Verb.RESET, RunStrategy.ALWAYS, Intent(run="Stop"))
