"""What a run can end with. Each says at which virtual second, and how to see it again."""

from __future__ import annotations


class SimulationError(Exception):
    """The world was asked for something that makes no sense."""


class NodeFailed(SimulationError):
    """An exception in a task or callback of a node that nobody handled."""


class NotInTime(SimulationError):
    """A condition did not come true within its limit."""


class BadScript(SimulationError):
    """A line that is no fault."""
