"""Scripts of scenarios: errors name the line, and a run ends where something is not as expected."""

from __future__ import annotations

import pytest

from reconciler.adapters.schema_files import load_schemas
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.sim.scenario import ScenarioFailed, parse_script, run
from reconciler.sim.world import BadScript

SCHEMAS = load_schemas()


def parse(path: str, data: bytes) -> ParsedFile:
    return parse_manifest(path, data, SCHEMAS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 power-on\n5 pwoer-off r1", "line 2: 'pwoer-off' is no verb"),
        ("5 expect mastr r1", "did you mean master"),
        ("5 expect master r1 within soon", "'soon' is no number of seconds"),
        ("5 save r1 web.yaml", "write: save NODE PATH CONTENT"),
        ("5 save r1 web.yaml vm web colour=red", "colour=red"),
        ("soon power-on", "line 1"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(BadScript, match=words):
        parse_script(text)


def test_a_scenario_ends_where_it_is_not_as_expected() -> None:
    script = parse_script("0 power-on\n0 expect master r3 within 2")
    with pytest.raises(ScenarioFailed, match=r"line 2: at 2\.000 s: .*: master is r1"):
        run(script, parse)


def test_what_has_to_last_is_looked_at_all_the_time() -> None:
    script = parse_script("0 power-on\n2 expect master r1 for 20\n10 power-off r1")
    with pytest.raises(ScenarioFailed, match=r"line 2: at 10\.000 s"):
        run(script, parse)


def test_the_same_script_gives_the_same_log() -> None:
    script = parse_script(
        "nodes r1 r2\nseed 7\n0 power-on\n1 save r2 web.yaml vm web\n5 power-off r1\n12 end"
    )
    assert run(script, parse) == run(script, parse)
