"""The store's SQL stays fast however much there is: every call finds its rows by an index."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from reconciler.adapters import sqlite_tables as tables
from reconciler.adapters.sqlite_file import prepare
from reconciler.resources.transactions import Committed
from reconciler.testing.store_harness import txn


def test_no_call_reads_a_whole_table(tmp_path: Path) -> None:
    file = prepare(tmp_path / "store.db", timeout=1)
    statements: set[str] = set()
    with closing(file.connect(writer=True)) as connection:
        connection.set_trace_callback(statements.add)
        transaction = txn({"a": b"1", "b": b"2"}, compares={"c": 0}, deletes=("d",))
        result, meta = tables.apply(connection, tables.read_meta(connection), transaction)
        tables.write_meta(connection, meta)
        tables.resolve(connection, meta, "unknown", after=0)
        tables.get(connection, ["a"])
        tables.listing(connection, "")
        tables.listing(connection, "a")
        tables.changes_since(connection, 0)
        tables.trim(connection, meta, 1)
        connection.set_trace_callback(None)
        plans = {
            statement: [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
            for statement in statements
            if statement.startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))
        }
    assert result == Committed(revision=1)
    assert len(plans) >= 10
    scans = {statement: plan for statement, plan in plans.items() if "SCAN" in " ".join(plan)}
    assert all(" meta" in statement or statement.startswith("UPDATE meta") for statement in scans), scans
