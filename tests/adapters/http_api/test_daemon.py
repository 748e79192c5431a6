"""The daemon about itself."""

from __future__ import annotations

from typing import Any


async def test_version(api: Any) -> None:
    code, body = await api.get("/version")
    assert (code, body["apiVersion"]) == (200, "vcl/v1")


async def test_health_is_ok_or_says_what_is_wrong(api: Any) -> None:
    async with api.session.get("/healthz") as response:
        assert (response.status, await response.text()) == (200, "ok")
    api.problems = ("the store does not answer", "libvirt is away")
    async with api.session.get("/readyz") as response:
        assert response.status == 503
        assert await response.text() == "the store does not answer\nlibvirt is away"


async def test_metrics_count_objects_and_phases(api: Any) -> None:
    await api.desk.vm("web")
    await api.desk.run("web")
    async with api.session.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    assert 'vcl_objects{kind="VirtualMachine"} 1' in lines
    assert 'vcl_virtual_machines{phase="Running"} 1' in lines
    assert "# TYPE process_cpu_seconds_total counter" in lines


async def test_the_placement_is_told_as_the_daemon_finds_it(api: Any) -> None:
    assert await api.get("placement") == (200, {"node": "r1", "vms": [], "nodes": []})
