"""docs/safety.md claims no test, scenario or code that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "safety.md").read_text()
ROWS = re.findall(r"^\| (\d+)\. .*$", TEXT, re.MULTILINE)


def test_every_rule_has_its_row() -> None:
    assert [int(number) for number in ROWS] == list(range(1, 21))


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", TEXT)
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or (name and f"def {name}(" not in (ROOT / path).read_text())
    ]
    assert len(named) > 40
    assert missing == []


def test_every_scenario_and_module_that_is_named_exists() -> None:
    scenarios = re.findall(r"scenario `([\w-]+)`", TEXT)
    modules = re.findall(r"`((?:adapters|planning|loops)/[\w/.]+)`", TEXT)
    assert scenarios
    assert modules
    assert [name for name in scenarios if not (ROOT / "tests/scenarios" / name / "script").exists()] == []
    assert [name for name in modules if not (ROOT / "reconciler" / name).exists()] == []
