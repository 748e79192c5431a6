"""POST adopt: what it takes, and what it refuses before anything is looked at."""

from __future__ import annotations

from typing import Any

import pytest

DOMAIN = {"name": "web.xml", "content": "kind: x", "domain": "web", "uuid": None, "running": False}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "at least one domain"),
        ({"domains": []}, "at least one domain"),
        ({"domains": ["web"]}, "domains[0]: must be an object"),
        ({"domains": [{**DOMAIN, "uuid": "7"}]}, "domains[0].uuid: '7' is no UUID"),
        ({"domains": [{**DOMAIN, "running": "yes"}]}, "running: must be true or false"),
        ({"domains": [{**DOMAIN, "content": 7}]}, "domains[0].content: must be a text"),
        ({"domains": [DOMAIN], "force": True}, "unknown field 'force'"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(api: Any, body: dict[str, Any], said: str) -> None:
    status, answer = await api.call("POST", "adopt", json=body)
    assert status == 400
    assert said in answer["message"]


async def test_a_daemon_without_domains_says_so(api: Any) -> None:
    status, answer = await api.call("POST", "adopt", json={"domains": [DOMAIN]})
    assert status == 409
    assert "ask another node" in answer["message"] + str(answer)
