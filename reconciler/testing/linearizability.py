"""Was a recorded history of a store possible with one copy of the data and one call at a time?

The search of Wing and Gong ("Testing and verifying concurrent objects", 1993) with the memory of visited
configurations that Lowe added: repeatedly pick, among the calls that no other call strictly precedes, one
whose answer fits the state, and go on from the state it leaves. A call whose outcome is unknown may take
effect at any time after it was made, or never.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from reconciler.resources.transactions import Committed, Conflict, KeyValue, Listing, Txn, TxnResult


@dataclass(frozen=True, slots=True, kw_only=True)
class TxnCall:
    """A transaction and its answer. None: OutcomeUnknown. StoreUnavailable is not recorded: no effect."""

    txn: Txn
    result: TxnResult | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListCall:
    """A list of everything with a prefix, and its answer."""

    prefix: str
    result: Listing


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A call between two instants of one clock, in any unit; one of unknown outcome never `returned`."""

    process: str
    call: TxnCall | ListCall
    invoked: float
    returned: float = math.inf


@dataclass(frozen=True, slots=True)
class _State:
    revision: int = 0
    items: frozenset[KeyValue] = field(default_factory=frozenset)

    def revision_of(self, key: str) -> int:
        return next((item.revision for item in self.items if item.key == key), 0)


_Configuration = tuple[frozenset[int], _State]


def explain(history: Sequence[Operation]) -> str:
    """Empty when the history is linearizable; otherwise which calls could not be put in any order."""
    operations = sorted(history, key=lambda each: (each.invoked, each.returned, each.process))
    best = _search(operations)
    if best is None:
        return ""
    stuck = [operation for index, operation in enumerate(operations) if index not in best]
    lines = [f"no order explains these calls ({len(best)} of {len(operations)} could be ordered):"]
    lines += [f"  {each.process} [{each.invoked:g}, {each.returned:g}] {each.call}" for each in stuck[:10]]
    return "\n".join(lines)


def _search(operations: Sequence[Operation]) -> frozenset[int] | None:
    """None when an order exists, else the largest set of calls that could be ordered."""
    observed = _observed_revisions(operations)
    start = (frozenset[int](), _State())
    seen = {start}
    pending = [start]
    best = start[0]
    while pending:
        done, state = pending.pop()
        if all(index in done or _unknown(each) for index, each in enumerate(operations)):
            return None
        best = max(best, done, key=len)
        for following in _following(operations, done, state, observed):
            if following not in seen:
                seen.add(following)
                pending.append(following)
    return best


def _following(
    operations: Sequence[Operation], done: frozenset[int], state: _State, observed: frozenset[int]
) -> list[_Configuration]:
    """The configurations one call further, the most promising last.

    Two shortcuts that lose no order: an answer that fits and changes nothing may as well be taken now, and
    a state past the revision that an open call was answered with leads nowhere.
    """
    found: list[_Configuration] = []
    for index in reversed(list(_candidates(operations, done))):
        taken = done | {index}
        for after in _steps(state, operations[index].call, observed):
            if after == state:
                return [(taken, after)]
            if after.revision <= _limit(operations, taken):
                found.append((taken, after))
    return found


def _limit(operations: Sequence[Operation], done: frozenset[int]) -> float:
    """The smallest revision among the answers of the calls that are still open: revisions only grow."""
    answers = (each.call.result for index, each in enumerate(operations) if index not in done)
    pinned = (each.revision for each in answers if isinstance(each, Committed | Listing))
    return min(pinned, default=math.inf)


def _unknown(operation: Operation) -> bool:
    return isinstance(operation.call, TxnCall) and operation.call.result is None


def _candidates(operations: Sequence[Operation], done: frozenset[int]) -> Iterator[int]:
    """Calls that began before every call that is still open had returned. Sorted by invocation."""
    first_return = min(each.returned for index, each in enumerate(operations) if index not in done)
    for index, operation in enumerate(operations):
        if operation.invoked > first_return:
            return
        if index not in done:
            yield index


def _steps(state: _State, call: TxnCall | ListCall, observed: frozenset[int]) -> Iterator[_State]:
    """The states after a call with its recorded answer; none when the answer does not fit."""
    if isinstance(call, ListCall):
        expected = sorted((item for item in state.items if item.key.startswith(call.prefix)), key=_key)
        if call.result == Listing(items=tuple(expected), revision=state.revision):
            yield state
        return
    failed = {each.key for each in call.txn.compares if state.revision_of(each.key) != each.revision}
    writes = bool(call.txn.puts or call.txn.deletes)
    match call.result:
        case Conflict(keys=keys):
            if failed and set(keys) == failed:
                yield state
        case Committed(revision=revision):
            if not failed and writes and revision > state.revision:
                yield _apply(state, call.txn, revision)
            elif not failed and not writes and revision == state.revision:
                yield state
        case None:
            if not failed and writes:
                for revision in sorted({*observed, state.revision + 1}):
                    if revision > state.revision:
                        yield _apply(state, call.txn, revision)


def _apply(state: _State, txn: Txn, revision: int) -> _State:
    written = {put.key for put in txn.puts} | set(txn.deletes)
    kept = {item for item in state.items if item.key not in written}
    put = {KeyValue(key=each.key, value=each.value, revision=revision) for each in txn.puts}
    return _State(revision, frozenset(kept | put))


def _observed_revisions(operations: Sequence[Operation]) -> frozenset[int]:
    """Revisions that somebody saw and no known commit made: the unknown calls' own, if they happened."""
    read: set[int] = set()
    made: set[int] = set()
    for operation in operations:
        match operation.call:
            case ListCall(result=listing):
                read |= {listing.revision, *(item.revision for item in listing.items)}
            case TxnCall(txn=txn, result=result):
                if isinstance(result, Committed):
                    made.add(result.revision)
                read |= {compare.revision for compare in txn.compares}
    return frozenset(read - made)


def _key(item: KeyValue) -> str:
    return item.key
