"""What a host remembers of its last run, and whether a guest is on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reconciler.adapters.host import has_guests
from reconciler.adapters.last_run_file import LastRunFile
from reconciler.planning.homecoming import LastRun
from reconciler.resources.membership import Member

RUN = LastRun(boot_id="boot-1", machine_id="machine-1")


def test_the_last_run_is_what_was_saved_last(tmp_path: Path) -> None:
    file = LastRunFile(tmp_path / "last-run.json")
    file.save(LastRun(boot_id="boot-0", machine_id="machine-1"))
    file.save(RUN)
    assert LastRunFile(tmp_path / "last-run.json").load() == RUN


def test_nothing_is_known_at_the_first_start_and_of_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "last-run.json"
    assert LastRunFile(path).load() is None
    path.write_text("{")
    assert LastRunFile(path).load() is None


def test_a_guest_is_known_by_its_process(tmp_path: Path) -> None:
    (tmp_path / "12").mkdir()
    (tmp_path / "12/comm").write_text("libvirtd\n")
    (tmp_path / "13").mkdir()  # it has ended
    (tmp_path / "net").mkdir()
    assert has_guests(tmp_path) is False
    (tmp_path / "13/comm").write_text("qemu-system-x86\n")
    assert has_guests(tmp_path) is True
    assert has_guests(tmp_path / "away") is None


def test_the_last_run_includes_whom_it_knew_and_those_of_older_releases_know_nobody(tmp_path: Path) -> None:
    file = LastRunFile(tmp_path / "last-run.json")
    run = replace(RUN, cluster_uid="c", session=3, members={"r2": Member(address="10.0.0.2", rank=1)})
    file.save(run)
    assert file.load() == run
    (tmp_path / "last-run.json").write_text('{"bootId": "boot-1", "machineId": "machine-1"}')
    assert file.load() == RUN
