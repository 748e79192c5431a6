"""Decisions: a snapshot in, a plan with its reasons out. Pure: same input, same plan."""
