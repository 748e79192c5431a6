"""What `vcl start|stop|restart|reset|pause|resume|retry` do to a VM's intent record.

Pure, so that the simulation and the API ask for the same thing. An intent never touches the manifest; a verb
is cleared by its opposite. Asking twice for the same thing changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from reconciler.planning.desired import Wish
from reconciler.resources.errors import ConflictError
from reconciler.resources.records import Intent
from reconciler.resources.virtualmachine import RunStrategy


class Verb(StrEnum):
    """What a person can ask of a VM."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    RESET = "reset"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbRequest:
    """`id` is unique and names this request; `now` is wall-clock time; `force`: do not wait for the guest."""

    verb: Verb
    id: str
    now: str
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The VM as the verb finds it: `wish` and `why` are what `desired()` says before the verb."""

    name: str
    strategy: RunStrategy
    wish: Wish
    why: str = ""


def apply_verb(request: VerbRequest, target: Target, intent: Intent) -> Intent:
    """The intent after the verb; equal to `intent` when there is nothing to change.

    Raises ConflictError when the verb makes no sense now: the message says what does.
    """
    if target.wish is Wish.DELETED:
        raise ConflictError(
            f"virtualmachine '{target.name}' is being deleted",
            cure="wait for `vcl get vm` to show that it is gone, then apply its manifest again",
        )
    changed = _changed(request, target, intent)
    if changed == intent:
        return intent
    return replace(changed, run_strategy=target.strategy.value, requested=request.now)


def is_empty(intent: Intent) -> bool:
    """Whether the record asks for nothing, so that its key can go."""
    return replace(intent, requested="", run_strategy=None) == Intent()


def _changed(request: VerbRequest, target: Target, intent: Intent) -> Intent:
    match request.verb:
        case Verb.START:
            return _started(request, target, intent)
        case Verb.STOP:
            force = request.force or (intent.run == "Stop" and intent.force)
            return replace(
                intent, run="Stop", start=None, restart=None, reset=None, paused=False, force=force
            )
        case Verb.RESTART:
            _require_running(request.verb, target)
            return replace(
                _run(request, target, intent),
                restart=request.id,
                reset=None,
                paused=False,
                force=request.force,
                reset_failures=request.id,
            )
        case Verb.RESET:
            _require_running(request.verb, target)
            if intent.paused:
                raise ConflictError(
                    f"virtualmachine '{target.name}' is paused by `vcl pause`, so it cannot be reset",
                    cure=f"`vcl resume {target.name}` first, or `vcl restart --force {target.name}`",
                )
            return replace(intent, reset=request.id)
        case Verb.PAUSE:
            _require_running(request.verb, target)
            return replace(intent, paused=True)
        case Verb.RESUME:
            return replace(intent, paused=False)
        case Verb.RETRY:
            return replace(intent, reset_failures=request.id)


def _started(request: VerbRequest, target: Target, intent: Intent) -> Intent:
    """A VM that is to run already is not given a second run for when this one ends; a start always means
    "now", so failures are forgotten."""
    if target.wish is Wish.RUN:
        return replace(intent, reset_failures=request.id)
    return replace(_run(request, target, intent), force=False, reset_failures=request.id)


def _run(request: VerbRequest, target: Target, intent: Intent) -> Intent:
    """One more run: with Always the manifest asks for it, else the intent has to."""
    if target.strategy is RunStrategy.ALWAYS:
        return replace(intent, run=None, start=None)
    return replace(intent, run="Start", start=request.id)


def _require_running(verb: Verb, target: Target) -> None:
    if target.wish is Wish.RUN:
        return
    why = f" ({target.why})" if target.why else ""
    raise ConflictError(
        f"virtualmachine '{target.name}' is not to run{why}, so there is nothing to {verb}",
        cure=f"`vcl start {target.name}` starts it",
    )
