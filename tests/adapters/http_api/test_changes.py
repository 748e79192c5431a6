"""What changes something over HTTP: verbs, manifests, confirmations, and requests that are wrong."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from typing import Any

import pytest

from reconciler.ports.manifests import ApplyInput, HeldDeletions
from reconciler.resources.errors import InvalidInput, OutcomeUnknown, VclError
from reconciler.sim.store import TxnFault

FILES = {"files": [{"name": "web.yaml", "content": "kind: VirtualMachine # ä\n", "path": None}]}


async def test_a_verb_is_recorded_and_shown(api: Any) -> None:
    await api.desk.vm("web")
    code, body = await api.call("POST", "virtualmachines/web/stop", json={"force": True})
    assert code == 200
    intent = body["status"]["intent"]
    assert (intent["run"], intent["force"]) == ("Stop", True)
    assert body["status"]["phase"] == "Stopped"
    assert "vcl start web" in body["status"]["message"]


async def test_a_verb_needs_no_body(api: Any) -> None:
    await api.desk.vm("web")
    code, body = await api.call("POST", "virtualmachines/web/pause")
    assert (code, body["status"]["intent"]["paused"]) == (200, True)


async def test_a_verb_that_makes_no_sense_is_a_conflict_with_a_cure(api: Any) -> None:
    await api.desk.vm("web", runStrategy="Halted")
    code, body = await api.call("POST", "virtualmachines/web/restart")
    assert (code, body["reason"]) == (409, "Conflict")
    assert body["details"]["cure"] == "`vcl start web` starts it"


async def test_a_verb_for_nobody_is_not_found(api: Any) -> None:
    code, body = await api.call("POST", "virtualmachines/web/start")
    assert (code, body["message"]) == (404, "virtualmachine 'web' not found")


async def test_a_store_that_is_away_is_said_to_be(api: Any) -> None:
    await api.desk.vm("web")
    api.desk.store.arm(TxnFault.REFUSED)
    code, body = await api.call("POST", "virtualmachines/web/stop")
    assert (code, body["reason"]) == (503, "Unavailable")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"force": "yes"}', "force: must be true or false"),
        (b'{"farce": true}', "unknown field 'farce'"),
        (b"[1]", "must be a JSON object"),
        (b"{", "not JSON"),
        (b'{"force": NaN}', "NaN"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"force": ' + b"9" * 10_000 + b"}", "not JSON"),
    ],
)
async def test_a_wrong_body_is_a_bad_request(api: Any, data: bytes, says: str) -> None:
    await api.desk.vm("web")
    code, body = await api.call("POST", "virtualmachines/web/stop", data=data)
    assert (code, body["reason"]) == (400, "BadRequest")
    assert says in json.dumps(body)


async def test_start_takes_no_force(api: Any) -> None:
    await api.desk.vm("web")
    code, _ = await api.call("POST", "virtualmachines/web/start", json={"force": True})
    assert code == 400


async def test_manifests_arrive_byte_for_byte(api: Any) -> None:
    code, body = await api.call("POST", "manifests", json={**FILES, "dryRun": True})
    assert code == 200
    [(inputs, dry_run)] = api.manifests.applied
    assert inputs == (ApplyInput(name="web.yaml", content="kind: VirtualMachine # ä\n".encode()),)
    assert dry_run
    assert body["results"][0]["result"] == "created"
    assert body["problems"] == ["web.yaml:1:1: spec: is missing"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "files: must be a list"),
        ({"files": []}, "files: must be a list"),
        ({"files": ["x"]}, "files[0]: must be an object"),
        ({"files": [{"name": "x"}]}, "files[0].content: must be a text"),
        ({"files": [{"content": "x"}]}, "files[0].name: must be a text"),
        ({"files": [{"name": "x", "content": "\ud800"}]}, "not Unicode text at character 0"),
        ({"files": [{"name": "x", "content": "y", "path": 3}]}, "files[0].path"),
        ({"files": [{"name": "x", "content": "y", "path": "a.yaml", "expect": "ab"}]}, "must be a SHA-256"),
        ({"files": [{"name": "x", "content": "y", "expect": "0" * 64}]}, "files[0].expect: belongs to"),
    ],
)
async def test_a_wrong_apply_names_what_is_wrong(api: Any, data: dict[str, Any], says: str) -> None:
    code, body = await api.call("POST", "manifests", data=json.dumps(data))
    assert code == 400
    assert says in body["message"]
    assert api.manifests.applied == []


async def test_a_change_says_which_bytes_it_began_from(api: Any) -> None:
    entry = {"name": "x", "content": "y", "path": "a.yaml", "expect": "0" * 64}
    await api.call("POST", "manifests", json={"files": [entry]})
    [(inputs, _)] = api.manifests.applied
    assert inputs == (ApplyInput(name="x", content=b"y", path="a.yaml", expect="0" * 64),)


async def test_a_body_over_16_mib_is_refused(api: Any) -> None:
    code, body = await api.call("POST", "manifests", data=io.BytesIO(b" " * (17 * 2**20)))
    assert (code, body["reason"]) == (413, "RequestEntityTooLarge")


async def test_every_problem_of_invalid_input_is_passed_on(api: Any) -> None:
    api.manifests.failure = InvalidInput("2 problems", problems=("a.yaml:1:1: x", "a.yaml:2:1: y"))
    code, body = await api.call("POST", "manifests", json=FILES)
    assert (code, body["reason"]) == (422, "Invalid")
    assert body["details"]["problems"] == ["a.yaml:1:1: x", "a.yaml:2:1: y"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(OutcomeUnknown("perhaps", txn_id="t"), 504), (VclError("broken", cure="mend it"), 500)],
)
async def test_expected_errors_keep_their_words(api: Any, error: VclError, code: int) -> None:
    api.manifests.failure = error
    answered, body = await api.call("POST", "manifests", json=FILES)
    assert (answered, body["message"]) == (code, error.message)


async def test_what_takes_too_long_is_a_timeout(idle_api: Any) -> None:
    await idle_api.start(apply=0.05)
    idle_api.manifests.delay = 5.0
    code, body = await idle_api.call("POST", "manifests", json=FILES)
    assert (code, body["reason"]) == (504, "Timeout")


async def test_files_are_listed_and_read(api: Any) -> None:
    _, body = await api.get("manifests")
    assert body["items"][0]["objects"] == [{"kind": "VirtualMachine", "name": "web"}]
    async with api.session.get("manifests/web.yaml") as response:
        assert await response.read() == b"kind: VirtualMachine # mine\n"
    assert (await api.get("manifests/sub/none.yaml"))[0] == 404


async def test_held_deletions_are_shown_and_confirmed(api: Any) -> None:
    api.manifests.guarded = HeldDeletions(id="3f9c", objects=(("VirtualMachine", "web"),), reason="many")
    _, body = await api.get("status")
    assert body["heldDeletions"]["objects"] == [{"kind": "VirtualMachine", "name": "web"}]
    assert (await api.call("POST", "confirm", json={"id": "nope"}))[0] == 404
    assert (await api.call("POST", "confirm", json={"id": "3f9c"}))[0] == 200
    assert (await api.get("status"))[1]["heldDeletions"] is None


async def test_a_compressed_body_is_not_understood(api: Any) -> None:
    packed = gzip.compress(json.dumps(FILES).encode())
    code, body = await api.call("POST", "manifests", data=packed, headers={"Content-Encoding": "gzip"})
    assert (code, body["reason"]) == (400, "BadRequest")


async def test_a_body_that_breaks_off_harms_nobody(api: Any) -> None:
    _, writer = await asyncio.open_unix_connection(str(api.path))
    head = b"POST /apis/vcl/v1/manifests HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    writer.write(head + b'{"files"')
    await writer.drain()
    writer.close()
    assert (await api.get("status"))[0] == 200
    assert api.manifests.applied == []
