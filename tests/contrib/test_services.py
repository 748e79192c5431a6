"""What init calls when a host goes down, and when. systemd really runs the units, in namespaces of its own;
of OpenRC's script the functions are called as OpenRC does.

The machine that systemd boots is this one, with a layer in memory above it. Small programs stand for vcl and
vcld, and write down what they see; tests/lab/test_host_down.py has the real ones.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

CONTRIB = Path(__file__).resolve().parents[2] / "contrib"
HANG = 120.0
BOOT = r"""
set -eu
contrib=$1 place=$2 told=$3 root=$2/root
mount -t tmpfs layer "$place"
mkdir "$place/upper" "$place/work" "$root"
mount -t overlay machine -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sys "$root/sys"
mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
for each in run tmp dev; do mount -t tmpfs "$each" "$root/$each"; done
for each in null zero random urandom tty; do
    touch "$root/dev/$each"
    mount --bind "/dev/$each" "$root/dev/$each"
done
rm -rf "$root/etc/systemd/system"
mkdir -p "$root/etc/systemd/system" "$root/opt/vcl/bin" "$root/dev/shm"
cp "$contrib"/systemd/*.service "$root/etc/systemd/system"
cat > "$root/opt/vcl/bin/vcld" <<'END'
#!/bin/sh
trap 'echo "vcld ends" >> /told; exit 0' TERM
echo "vcld begins" >> /told
while :; do sleep 0.1; done
END
cat > "$root/opt/vcl/bin/vcl" <<'END'
#!/bin/sh
echo "vcl $*: vcld is $(systemctl is-active vcld), the host $(systemctl is-system-running)" >> /told
sleep 1
echo "vcl is done" >> /told
END
cat > "$root/opt/vcl/bin/day" <<'END'
#!/bin/sh
until systemctl is-active vcld vcl-node-shutdown > /dev/null; do sleep 0.1; done
until grep -q "vcld begins" /told; do sleep 0.1; done
echo "stopped by hand" >> /told
systemctl restart vcl-node-shutdown
echo "the host goes down" >> /told
systemctl --no-block poweroff
END
chmod 755 "$root"/opt/vcl/bin/*
cat > "$root/etc/systemd/system/day.target" <<'END'
[Unit]
Wants=vcld.service vcl-node-shutdown.service day.service dbus.service
END
cat > "$root/etc/systemd/system/day.service" <<'END'
[Service]
ExecStart=/opt/vcl/bin/day
END
touch "$root/told"
mount --bind "$told" "$root/told"
# Process 1 of its namespace, and nothing of it is left when it ends.
export container=lxc
exec chroot "$root" /lib/systemd/systemd --system --unit=day.target --log-target=null --show-status=0
"""


OPENRC = """
ebegin() { echo "$*"; }
eend() { echo "eend $1"; return "$1"; }
. "$1"
start && echo started
stop && echo stopped
"""


@pytest.mark.libvirt
@pytest.mark.slow
def test_systemd_empties_the_node_when_its_host_goes_down_and_only_then(tmp_path: Path) -> None:
    place, told = tmp_path / "machine", tmp_path / "told"
    place.mkdir()
    told.touch()
    own = ("--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork", "--kill-child")
    command = ["unshare", *own, "sh", "-c", BOOT, "boot", str(CONTRIB), str(place), str(told)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert told.read_text().splitlines() == [
        "vcld begins",
        "stopped by hand",
        "the host goes down",
        "vcl node shutdown --yes: vcld is active, the host stopping",
        "vcl is done",
        "vcld ends",
    ], done.stderr
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("going", "result", "expected"),
    [
        ("", 0, ["started", "stopped"]),
        ("YES", 0, ["started", "Emptying this node", "vcl node shutdown --yes", "eend 0", "stopped"]),
        ("YES", 1, ["started", "Emptying this node", "vcl node shutdown --yes", "eend 1", "stopped"]),
    ],
)
def test_openrc_empties_the_node_only_when_the_host_goes_down_and_is_never_kept_from_it(
    tmp_path: Path, going: str, result: int, expected: list[str]
) -> None:
    vcl = tmp_path / "vcl"
    vcl.write_text(f'#!/bin/sh\necho "vcl $*"\nexit {result}\n')
    vcl.chmod(0o755)
    done = subprocess.run(
        ["sh", "-eu", "-c", OPENRC, "rc", str(CONTRIB / "openrc/vcl-node-shutdown")],
        env={"PATH": "/usr/bin:/bin", "RC_GOINGDOWN": going, "VCL_COMMAND": str(vcl)},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert done.stdout.splitlines() == expected, done.stderr
