"""Objects over HTTP: lists, tables, single objects, and errors that are Status objects."""

from __future__ import annotations

import json
from typing import Any

import pytest


async def test_a_list_has_items_and_the_version_to_watch_from(api: Any) -> None:
    await api.desk.vm("web")
    await api.desk.vm("db")
    code, body = await api.get("virtualmachines")
    assert code == 200
    assert body["kind"] == "VirtualMachineList"
    assert [item["metadata"]["name"] for item in body["items"]] == ["db", "web"]
    assert body["metadata"]["resourceVersion"] == str(api.desk.cache.revision)


async def test_one_object_is_what_the_user_wrote_and_what_everybody_reports(api: Any) -> None:
    await api.desk.vm("web")
    await api.desk.run("web")
    _, body = await api.get("virtualmachines/web")
    assert body["spec"] == {"cpu": {"cores": 2}, "memory": "2Gi"}
    assert body["status"]["phase"] == "Running"
    assert body["status"]["claim"]["node"] == "r1"


async def test_a_table_has_a_row_for_each_object(api: Any) -> None:
    await api.desk.vm("web")
    await api.desk.run("web")
    _, body = await api.get("virtualmachines?as=Table")
    columns = {column["name"]: column for column in body["columnDefinitions"]}
    assert list(columns) == ["NAME", "STATUS", "READY", "NODE", "AGE", "IP", "CPU", "MEMORY", "MESSAGE"]
    assert columns["AGE"]["format"] == "date"
    assert [name for name, column in columns.items() if column["priority"]] == [
        "IP",
        "CPU",
        "MEMORY",
        "MESSAGE",
    ]
    expected = ["web", "Running", "True", "r1", "2026-01-31T12:00:00Z", "192.0.2.7", "2", "2Gi", ""]
    assert body["rows"] == [{"cells": expected, "object": {"name": "web"}}]


async def test_one_object_can_be_asked_for_as_a_table(api: Any) -> None:
    await api.desk.vm("web")
    _, body = await api.get("virtualmachines/web?as=Table")
    assert [row["object"]["name"] for row in body["rows"]] == ["web"]


async def test_labels_select(api: Any) -> None:
    await api.desk.vm("web", labels={"app": "shop"})
    await api.desk.vm("db")
    _, body = await api.get("virtualmachines?labelSelector=app%3Dshop")
    assert [item["metadata"]["name"] for item in body["items"]] == ["web"]


@pytest.mark.parametrize("word", ["vm", "vms", "VirtualMachine", "virtualmachines"])
async def test_any_name_of_a_kind_will_do(api: Any, word: str) -> None:
    code, body = await api.get(word)
    assert (code, body["items"]) == (200, [])


@pytest.mark.parametrize(
    ("path", "code", "reason", "says"),
    [
        ("virtualmachines/web", 404, "NotFound", "virtualmachine 'web' not found"),
        ("virtualmachin", 404, "NotFound", "there is no kind 'virtualmachin'"),
        ("/nowhere", 404, "NotFound", "/nowhere"),
        ("virtualmachines/web/explode", 404, "NotFound", "explode"),
        ("virtualmachines?labelSelector=a%20b", 400, "BadRequest", "label selector"),
        ("virtualmachines?as=Chair", 400, "BadRequest", "as=Table"),
        ("virtualmachines?watch=maybe", 400, "BadRequest", "watch"),
        ("virtualmachines?watch=1&resourceVersion=x", 400, "BadRequest", "resourceVersion"),
        ("virtualmachines/%ff%00", 404, "NotFound", "not found"),
    ],
)
async def test_errors_are_status_objects(api: Any, path: str, code: int, reason: str, says: str) -> None:
    answered, body = await api.get(path)
    assert (answered, body["code"], body["kind"], body["reason"]) == (code, code, "Status", reason)
    assert says in json.dumps(body)


async def test_a_wrong_method_names_the_right_ones(api: Any) -> None:
    code, body = await api.call("PATCH", "virtualmachines/web")
    assert code == 405
    assert "DELETE, GET" in body["message"]


async def test_before_the_store_is_read_nothing_is_said_to_be_missing(api: Any) -> None:
    api.desk.cache.revision = -1
    code, body = await api.get("virtualmachines/web")
    assert (code, body["reason"]) == (503, "Unavailable")


async def test_an_unexpected_error_tells_nothing_of_our_insides_and_ends_one_request(
    api: Any, caplog: pytest.LogCaptureFixture
) -> None:
    api.mistake = ZeroDivisionError("division of secrets")
    code, body = await api.get("status")
    assert (code, body["reason"]) == (500, "InternalError")
    assert "division" not in json.dumps(body)
    assert "ZeroDivisionError: division of secrets" in caplog.text
    assert (await api.get("virtualmachines"))[0] == 200


async def test_delete_asks_the_manifest_loop_and_returns_the_object(api: Any) -> None:
    await api.desk.vm("web")
    code, body = await api.call("DELETE", "virtualmachines/web?purge=1")
    assert (code, body["metadata"]["name"]) == (200, "web")
    assert api.manifests.deleted == [("VirtualMachine", "web", True)]


async def test_what_no_manifest_defines_cannot_be_deleted(api: Any) -> None:
    await api.desk.put({"status/node/Node/r1": {"uid": "n", "ready": True}})
    code, body = await api.call("DELETE", "nodes/r1")
    assert (code, body["reason"]) == (409, "Conflict")
    assert api.manifests.deleted == []
