"""Options, errors, files, endings, addresses and hints: the parts that need no libvirtd."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import libvirt
import pytest

from reconciler.adapters.libvirt import doors, endings, failures, options
from reconciler.adapters.libvirt.details import marked_starting
from reconciler.adapters.libvirt.files import LOG_LIMIT, Files
from reconciler.adapters.libvirt.guest import usable
from reconciler.adapters.libvirt.hints import Ends, Hints
from reconciler.adapters.libvirt.options import Options, Virtualization
from reconciler.resources.domains import ControllerEvent, Definition, ExitReason
from reconciler.resources.errors import (
    ControllerUnavailable,
    InvalidInput,
    MigrationRefused,
    NotFound,
    StartFailed,
)


def error(code: int, domain: int, message: str) -> libvirt.libvirtError:
    made = libvirt.libvirtError("call failed")
    made.err = (code, domain, message, 2, "", None, None, -1, -1)
    return made


# options


def test_a_host_is_reached_for_migrations_by_its_address_unless_told_otherwise() -> None:
    plain = options.parse({}).migration
    assert plain.reached_at("") == plain
    reached = plain.reached_at("10.0.0.1")
    assert (reached.connect, reached.data) == ("qemu+tcp://10.0.0.1/system", "tcp://10.0.0.1")
    wide = options.parse({"migration": {"tls": True, "data": "tcp://10.9.0.1"}}).migration.reached_at(
        "fd00::1"
    )
    assert (wide.connect, wide.data) == ("qemu+tls://[fd00::1]/system", "tcp://10.9.0.1")


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("tcp", "migration: must be a mapping"),
        ({"port": 1}, "migration.port: unknown option"),
        ({"connect": "10.0.0.1"}, "migration.connect: must be a URI"),
        ({"data": "qemu+tcp://10.0.0.1"}, "migration.data: must be a URI"),
        ({"tls": "yes"}, "migration.tls: must be true or false"),
    ],
)
def test_wrong_options_of_migrations_are_named(section: object, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        options.parse({"migration": section})
    assert problem in str(caught.value.problems)


def test_the_texts_of_a_migration_come_back_as_they_were_and_others_are_refused() -> None:
    door = doors.Door(connect="qemu+tcp://a/system", data="tcp://a", tls=False, node="r2", root="/x")
    assert doors.door(doors.text(door)) == door
    offer = doors.Offer(document="<domain/>", host_cpu="<cpu/>")
    assert doors.offer(doors.text(offer)) == offer
    for wrong in ("", "[]", '{"connect": "x"}'):
        with pytest.raises(MigrationRefused):
            doors.door(wrong)


def test_options_have_defaults_and_every_wrong_one_is_named() -> None:
    assert options.parse({}) == Options()
    assert options.parse({"virtualization": "qemu"}).virtualization is Virtualization.QEMU
    section = {"uri": 7, "virtualization": "xen", "logDir": "logs", "keepaliveSeconds": 0, "urii": "x"}
    with pytest.raises(InvalidInput) as wrong:
        options.parse(section)
    named = [problem.split(":")[0].rpartition(".")[2] for problem in wrong.value.problems]
    assert sorted(named) == sorted(section)


def test_a_session_libvirtd_logs_below_the_users_cache(tmp_path: Path) -> None:
    assert options.parse({"uri": "qemu:///session"}).log_dir.name == "log"
    assert options.parse({"logDir": str(tmp_path)}).log_dir == tmp_path


# errors

QEMU_SAID = (
    "internal error: process exited while connecting to monitor: 2026-11-22T19:15:28.961660Z "
    'qemu-system-x86_64: -device {"driver":"virtio-blk-pci","bus":"pci.3"}: Failed to get "write" lock\n'
    "Is another process using the image [/images/a.raw]?"
)


def test_qemus_own_words_are_left_over() -> None:
    made = failures.refused(error(1, 10, QEMU_SAID), name="web1")
    assert isinstance(made, StartFailed)
    assert made.reason == "ImageInUse"
    assert made.message == (
        'cannot start web1: Failed to get "write" lock Is another process using the image [/images/a.raw]?'
    )


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        (38, "Cannot access storage file '/a': No such file or directory", "ImageMissing"),
        (
            38,
            "Cannot access storage file '/a' (as uid:64055, gid:107): Permission denied",
            "PermissionDenied",
        ),
        (43, "Network not found: no network with matching name 'x'", "NetworkMissing"),
        (55, "network 'default' is not active", "NetworkMissing"),
        (38, "Cannot get interface MTU on 'br9': No such device", "BridgeMissing"),
        (1, "internal error: could not open kernel file '/k': No such file or directory", "BootFileMissing"),
        (
            1,
            "internal error: cannot set up guest memory 'pc.ram': Cannot allocate memory",
            "InsufficientMemory",
        ),
        (
            67,
            "unsupported configuration: Emulator does not support machine type 'x'",
            "UnsupportedConfiguration",
        ),
        (8, "invalid argument: could not find capabilities for domain type 'kvm'", "KVMUnavailable"),
        (1, "internal error: Image is not in qcow2 format", "ImageInvalid"),
        (
            1,
            "internal error: process exited: Unknown driver 'rbd'",
            "RbdDriverMissing",
        ),
        (1, "internal error: error connecting: Operation not permitted", "CephRefused"),
        (66, "Secret not found: no secret with matching uuid '5157a111'", "CephRefused"),
        (9, "operation failed: something nobody has seen", "StartFailed"),
    ],
)
def test_each_refusal_has_its_reason(code: int, message: str, reason: str) -> None:
    made = failures.refused(error(code, libvirt.VIR_FROM_QEMU, message), name="web1")
    assert isinstance(made, StartFailed)
    assert made.reason == reason
    assert made.cure or reason == "StartFailed"


def test_a_busy_libvirtd_has_refused_nothing() -> None:
    busy = error(libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_FROM_QEMU, "cannot acquire state change lock")
    assert isinstance(failures.refused(busy, name="web1"), ControllerUnavailable)


def test_a_broken_connection_is_no_answer() -> None:
    broken = error(1, libvirt.VIR_FROM_RPC, "internal error: client socket is closed")
    gone = error(libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_FROM_QEMU, "Domain not found")
    assert not failures.is_answer(broken)
    assert failures.is_answer(gone)
    assert isinstance(failures.translate(broken, what="pause web1"), ControllerUnavailable)
    assert isinstance(failures.translate(gone, what="pause web1"), NotFound)


# files


def definition(**seed: str) -> Definition:
    return Definition(name="web1", uid="u", document="<domain/>", machine="q35", seed=seed)


def test_a_seed_is_an_iso_with_the_label_that_cloud_init_looks_for(tmp_path: Path) -> None:
    files = Files(root=tmp_path / "state")
    files.prepare(definition(**{"user-data": "#cloud-config\n", "meta-data": "instance-id: u\n"}))
    image = Path(files.paths("web1").seed_image)
    content = image.read_bytes()
    assert content[32769:32774] == b"CD001"
    assert content[32808:32814].lower() == b"cidata"
    assert b"#cloud-config" in content
    assert image.stat().st_mode & 0o077 == 0, "user data may hold passwords"
    assert [path.name for path in image.parent.iterdir()] == ["web1.iso"]


def test_without_a_program_for_it_the_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("xorriso") is None
    with pytest.raises(StartFailed, match="install xorriso") as refused:
        Files(root=tmp_path / "state").prepare(definition(**{"user-data": ""}))
    assert refused.value.reason == "SeedToolMissing"


def test_a_state_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StartFailed, match="state") as refused:
        Files(root=tmp_path / "state").prepare(definition())
    assert refused.value.reason == "StateDirectory"


def test_directories_of_the_definition_are_made_below_the_state_only(tmp_path: Path) -> None:
    root = tmp_path / "state"
    document = (
        f"<domain><os><nvram>{root}/nvram/web1.fd</nvram></os><log file='{tmp_path}/else/x.log'/></domain>"
    )
    Files(root=root).prepare(Definition(name="web1", uid="u", document=document, machine=""))
    assert (root / "nvram").is_dir()
    assert not (tmp_path / "else").exists()


def test_a_long_console_log_keeps_its_end(tmp_path: Path) -> None:
    files = Files(root=tmp_path)
    files.console_log("web1").parent.mkdir()
    files.console_log("web1").write_bytes(b"x" * LOG_LIMIT + b"the end")
    files.trim_log("web1")
    assert files.console_log("web1").stat().st_size == LOG_LIMIT // 4
    assert files.tail("web1", 7) == b"the end"
    assert files.tail("absent", 7) == b""


def test_the_mark_of_a_start_stands_beside_other_metadata() -> None:
    marked = marked_starting("<domain><metadata><a xmlns='urn:x'/></metadata><!-- </metadata> --></domain>")
    assert marked.count("urn:vcl:starting:1") == 1
    assert "urn:x" in marked
    assert "urn:vcl:starting:1" in marked_starting("<domain><name>web1</name></domain>")


# endings

LOG = """\
2026-11-22 19:15:28.551+0000: starting up libvirt version: 9.0.0
-msg timestamp=on
{lines}"""


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("2026-11-22 19:15:39.617+0000: shutting down, reason=shutdown\n", ExitReason.SHUTDOWN),
        ("2026-11-22 19:15:39.617+0000: shutting down, reason=crashed\n", ExitReason.CRASHED),
        ("2026-11-22 19:15:39.617+0000: shutting down, reason=destroyed\n", ExitReason.DESTROYED),
        ("2026-11-22 19:15:39.617+0000: shutting down, reason=saved\n", ExitReason.UNKNOWN),
        ("qemu: terminating on signal 15\n", ExitReason.UNKNOWN),
        (
            "2026-11-22 19:15:39.617+0000: shutting down, reason=shutdown\n"
            "2026-11-22 19:16:00.000+0000: starting up libvirt version: 9.0.0\n",
            ExitReason.UNKNOWN,
        ),
    ],
)
def test_the_log_tells_how_the_last_one_ended(tmp_path: Path, lines: str, reason: ExitReason) -> None:
    path = tmp_path / "web1.log"
    path.write_text(LOG.format(lines=lines))
    assert endings.from_log(path) is reason
    assert endings.from_log(tmp_path / "absent.log") is ExitReason.UNKNOWN


def test_an_end_is_history_once_it_runs_again() -> None:
    ends = Ends()
    ends.started("u")
    assert ends.reason("u", wait=0.01) is None
    ends.ended("u", ExitReason.CRASHED)
    assert ends.reason("u", wait=0) is ExitReason.CRASHED
    ends.started("u")
    ends.forget_running()
    assert ends.reason("u", wait=5) is None


# addresses and hints


def test_addresses_are_those_that_others_can_reach() -> None:
    listed = {
        "lo": {"addrs": [{"addr": "127.0.0.1"}, {"addr": "::1"}]},
        "eth0": {"addrs": [{"addr": "fe80::1"}, {"addr": "2001:db8::5"}, {"addr": "10.0.2.15"}]},
        "eth1": {"addrs": None},
        "eth2": {"addrs": [{"addr": "nonsense"}, {"addr": "9.0.0.1"}, {"addr": "169.254.3.4"}]},
    }
    assert usable(listed) == ("9.0.0.1", "10.0.2.15", "2001:db8::5")
    assert usable(None) == ()


async def test_a_reader_that_falls_behind_is_told_to_look_at_everything() -> None:
    hints = Hints()
    hints.attach(asyncio.get_running_loop())
    reader = hints.reader()
    assert await anext(reader) == ControllerEvent()
    for number in range(5000):
        hints.publish(ControllerEvent(name=f"vm-{number}", what="started"))
    await asyncio.sleep(0)
    heard = [await anext(reader)]
    while heard[-1].name != "vm-4999":
        heard.append(await anext(reader))
    assert heard[0] == ControllerEvent()
    assert len(heard) < 1000
