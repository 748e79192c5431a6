"""What failed of a VM on one node, as the store keeps it (failure/VM/NODE).

Invariant: a record speaks only of the VM, the spec and the `vcl retry` that it names; all others are void, so
that nobody has to delete another node's record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Blame(StrEnum):
    """Whose failure it is. NODE: another node may do better (also when it is not known)."""

    NODE = "Node"
    VM = "VirtualMachine"
    STORAGE = "Storage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """What failed here: `count` in a row, the last `reason` and `message`, and when it is tried again.

    `on_node` of them may be the node's fault; `given_up`: enough of these to look for another node.
    """

    count: int = 0
    reason: str = ""
    message: str = ""
    first_time: str = ""
    last_time: str = ""
    retry_time: str = ""
    on_node: int = 0
    given_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRecord:
    """`reset`: the `vcl retry` (Intent.reset_failures) that was in force when it was written."""

    uid: str
    generation: int
    reset: str | None = None
    failures: Failures = field(default_factory=Failures)
