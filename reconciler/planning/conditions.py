"""Conditions as the merged objects show them: JSON-shaped, one for each type, the first speaker's kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.resources.status import ConditionStatus, ConditionType

Conditions = dict[str, dict[str, Any]]
"""By type."""

_FIELDS = ("type", "status", "reason", "message", "lastTransitionTime", "observedGeneration")


def merged_conditions(*sources: Mapping[str, Any]) -> Conditions:
    """The `conditions` of several reports; of two with one type the earlier report's counts."""
    found: Conditions = {}
    for source in sources:
        listed = source.get("conditions")
        for entry in listed if isinstance(listed, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("type"), str):
                found.setdefault(entry["type"], _in_order(entry))
    return found


def _in_order(entry: dict[str, Any]) -> dict[str, Any]:
    """With its fields in the order in which people read them, whoever wrote it."""
    return {key: entry[key] for key in _FIELDS if key in entry} | entry


def condition(
    kind: ConditionType,
    holds: bool,
    reason: str,
    *,
    message: str = "",
    generation: int = 0,
    since: str = "",
) -> dict[str, Any]:
    """A condition that follows from the records. `since` is empty when nobody noted when it changed."""
    time = {"lastTransitionTime": since} if since else {}
    return {
        "type": kind.value,
        "status": (ConditionStatus.TRUE if holds else ConditionStatus.FALSE).value,
        "reason": reason,
        "message": message,
        **time,
        "observedGeneration": generation,
    }
