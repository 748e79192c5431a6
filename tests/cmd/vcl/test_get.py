"""`vcl get`: what people and scripts see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("argv", "golden"),
    [
        (("get", "vms"), "get-vms.txt"),
        (("get", "vm", "-o", "wide"), "get-vms-wide.txt"),
        (("get", "virtualmachines", "--no-headers"), "get-vms-no-headers.txt"),
        (("get", "vms", "--show-labels"), "get-vms-labels.txt"),
        (("get", "vms,nodes"), "get-vms-nodes.txt"),
        (("get", "all"), "get-vms-nodes.txt"),
        (("get", "vms", "-l", "app=web"), "get-web.txt"),
        (("get", "vm/web"), "get-web.txt"),
        (("get", "vms", "-o", "name"), "get-names.txt"),
        (("get", "vms", "--sort-by=.spec.priority"), "get-vms-sorted.txt"),
    ],
)
def test_the_table_is_kubectls(vcl: Any, api: Any, argv: tuple[str, ...], golden: str) -> None:
    api.objects["virtualmachines", "web"]["spec"]["priority"] = 1
    api.objects["virtualmachines", "db"]["spec"]["priority"] = 20
    result = vcl(*argv)
    assert (result.code, result.err) == (0, "")
    assert result.out == (GOLDEN / golden).read_text()


def test_what_exists_is_shown_and_what_does_not_is_an_error(vcl: Any) -> None:
    result = vcl("get", "vms", "web", "nope")
    assert result.code == 1
    assert [line.split()[0] for line in result.out.splitlines()] == ["NAME", "web"]
    assert result.err == (
        "error: virtualmachine 'nope' not found; see those that exist with 'vcl get virtualmachines'\n"
    )


def test_a_missing_object_is_no_error_when_the_user_says_so(vcl: Any) -> None:
    assert vcl("get", "vm", "nope", "--ignore-not-found").code == 0


def test_nothing_is_said_to_be_nothing(vcl: Any) -> None:
    result = vcl("get", "images")
    assert (result.code, result.out, result.err) == (0, "", "No resources found\n")


def test_one_named_object_is_printed_alone_and_several_as_a_list(vcl: Any) -> None:
    alone = yaml.safe_load(vcl("get", "vm", "web", "-o", "yaml").out)
    assert (alone["kind"], alone["metadata"]["name"]) == ("VirtualMachine", "web")
    several = json.loads(vcl("get", "vms", "-o", "json").out)
    assert several["kind"] == "List"
    assert [item["metadata"]["name"] for item in several["items"]] == ["db", "web"]


def test_objects_that_exist_are_printed_beside_errors(vcl: Any) -> None:
    result = vcl("get", "vm", "web", "nope", "-o", "json")
    assert result.code == 1
    assert [item["metadata"]["name"] for item in json.loads(result.out)["items"]] == ["web"]
    assert "'nope' not found" in result.err


def test_jsonpath_and_custom_columns_print_fields(vcl: Any) -> None:
    assert vcl("get", "vms", "-o", "jsonpath={.items[*].metadata.name}").out == "db web"
    assert vcl("get", "vm", "web", "-o", "jsonpath={.status.phase}").out == "Running"
    columns = "custom-columns=NAME:.metadata.name,IP:.status.ipAddresses[0]"
    assert vcl("get", "vms", "-o", columns).out == "NAME   IP\ndb     <none>\nweb    192.0.2.10\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("get",), "error: say what you mean; name a type"),
        (("get", "vmss"), "error: there is no type 'vmss'; did you mean 'vms'?"),
        (("get", "events"), "error: events are not objects; see them with 'vcl events'"),
        (
            ("get", "vm/web", "db"),
            "error: 'db' has no type, but others on the line do; write all as TYPE/NAME",
        ),
        (("get", "vm", "a/../b"), "error: "),
        (("get", "vm", "-x!"), "error: No such option"),
        (("get", "vms", "-o", "xml"), "error: there is no output format 'xml'; use one of wide, yaml"),
        (("get", "vms", "-o", "jsonpath="), "error: -o jsonpath needs a template"),
        (("get", "vms", "-o", "jsonpath={.a"), "error: the JSONPath '{.a' lacks a closing '}'"),
        (("get", "vms", "-o", "custom-columns=NAME"), "error: 'NAME' is not a column; write HEADER:.path"),
        (("get", "vms", "web", "-l", "a=b"), "error: a selector and names cannot be used together"),
        (("get", "vms,nodes", "-w"), "error: a watch follows one type at a time"),
        (("get", "vms", "--sort-by=.spec.nothing"), "error: no object has the field '.spec.nothing'"),
    ],
)
def test_a_mistake_is_named_with_its_cure(vcl: Any, argv: tuple[str, ...], message: str) -> None:
    result = vcl(*argv)
    assert result.code == 1
    assert result.out == ""
    assert result.err.startswith(message)
    assert "Traceback" not in result.err


def test_a_watch_prints_the_list_and_then_changes_in_line(vcl: Any, api: Any) -> None:
    web = api.objects["virtualmachines", "web"]
    row = {
        "columnDefinitions": [{"name": n} for n in ("NAME", "STATUS", "READY", "NODE")]
        + [{"name": "AGE", "format": "date"}],
        "rows": [{"cells": ["web", "Stopping", "False", "r1", None], "object": {"name": "web"}}],
    }
    other = {**row, "rows": [{"cells": ["db", "Gone", "False", "r1", None], "object": {"name": "db"}}]}
    api.watch_lines = [
        {"type": "BOOKMARK", "object": {}},
        {"type": "MODIFIED", "object": row},
        {"type": "MODIFIED", "object": other},
    ]
    result = vcl("get", "vm", web["metadata"]["name"], "-w")
    lines = result.out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["NAME", "STATUS"],
        ["web", "Running"],
        ["web", "Stopping"],
    ]
    assert lines[2].index("Stopping") == lines[0].index("STATUS")
    assert result.code == 1
    assert "the daemon ended the watch" in result.err
    assert ("virtualmachines", {"as": "Table", "watch": "1", "resourceVersion": "7"}, None) in api.requests(
        "GET"
    )


def test_a_watch_of_objects_prints_each_of_them(vcl: Any, api: Any) -> None:
    api.watch_lines = [{"type": "MODIFIED", "object": api.objects["virtualmachines", "db"]}]
    assert vcl("get", "vms", "-w", "-o", "name").out.splitlines() == [
        "virtualmachine/db",
        "virtualmachine/web",
        "virtualmachine/db",
    ]


def test_a_watch_whose_version_is_too_old_lists_again(vcl: Any, api: Any) -> None:
    api.watch_lines = [{"type": "ERROR", "object": {"code": 410, "message": "too old"}}]
    api.on_get = None
    calls = 0

    async def once(request: Any, lines: list[Any]) -> Any:
        nonlocal calls
        calls += 1
        return await type(api)._stream(api, request, lines if calls == 1 else [])

    api._stream = once
    assert vcl("get", "vms", "--watch-only").code == 1
    assert calls == 2


def test_control_characters_of_a_message_do_not_reach_the_terminal(vcl: Any, api: Any) -> None:
    api.objects["virtualmachines", "web"]["status"]["message"] = "a\nb\x1b[2J"
    assert "a\\nb\\x1b[2J" in vcl("get", "vms", "-o", "wide").out


def test_objects_of_a_file_are_found_also_when_the_file_is_broken(vcl: Any, tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(
        "apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata:\n  name: web\nspec:\n  nonsense: 1\n"
    )
    assert vcl("get", "-f", str(path), "-o", "name").out == "virtualmachine/web\n"
