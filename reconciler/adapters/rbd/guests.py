"""What guests' QEMU processes need to reach a pool: their user's key, and a Ceph configuration file.

QEMU is told of no Ceph option but through that file. vcl's own has what Ceph's defaults lack: a client whose
monitor died looks for another one within seconds, and when QEMU breaks a dead client's lock, the entry of the
blocklist that it makes lasts for years (SAFETY rule 11).
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import rados

from reconciler.adapters.rados.connecting import FENCE_SECONDS, IMPATIENCE
from reconciler.adapters.rbd.cluster import Cluster
from reconciler.resources.errors import PoolUnavailable

_KEY = re.compile(r"^\s*key\s*=\s*([A-Za-z0-9+/=]+)\s*$", re.MULTILINE)
_SECTION = re.compile(r"^\s*\[([^\]]+)\]\s*$", re.MULTILINE)


def find_key(cluster: Cluster, user: str, keyring: str | None) -> str:
    """The key of client.USER: from the keyring file given, from the one that Ceph's configuration names for
    that user, or from the monitors. Blocks. Raises PoolUnavailable."""
    for path in [keyring] if keyring else _keyrings(cluster, user):
        try:
            key = key_in(Path(path).read_text(), user)
        except OSError as error:
            if keyring:
                raise PoolUnavailable(
                    f"the keyring {path} cannot be read: {error.strerror}", cure="correct rbd.qemuKeyring"
                ) from error
            continue
        if key:
            return key
    if keyring:
        raise PoolUnavailable(f"{keyring} has no key of client.{user}", cure="correct rbd.qemuKeyring")
    return _asked(cluster, user)


def key_in(text: str, user: str) -> str:
    """The key of client.USER in a keyring's text; '' when it has none."""
    parts = _SECTION.split(text)
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        found = _KEY.search(body)
        if name.strip() == f"client.{user}" and found:
            return found.group(1)
    return ""


def _keyrings(cluster: Cluster, user: str) -> list[str]:
    """Where Ceph itself would look."""
    handle = rados.Rados(conffile=cluster.conf, name=f"client.{user}")
    try:
        return [path.strip() for path in str(handle.conf_get("keyring") or "").split(",") if path.strip()]
    finally:
        handle.shutdown()


def _asked(cluster: Cluster, user: str) -> str:
    try:
        return str(cluster.command(prefix="auth get-key", entity=f"client.{user}")[0]["key"])
    except rados.Error as error:
        raise PoolUnavailable(
            f"the key of the guests' Ceph user client.{user} is not to be had: no keyring of it is on this "
            f"host, and the monitors refuse it to client.{cluster.user} ({error})",
            cure=f"put /etc/ceph/ceph.client.{user}.keyring here, name it as rbd.qemuKeyring, or let "
            f'client.{cluster.user} `allow command "auth get-key" with entity=client.{user}`',
        ) from error


def guest_conf(text: str, user: str) -> str:
    """A Ceph configuration for QEMU: the host's own, with vcl's options for this user on top."""
    options = {"rbd_blocklist_expire_seconds": FENCE_SECONDS, **IMPATIENCE}
    lines = [f"{name.replace('_', ' ')} = {value}" for name, value in options.items()]
    head = "# Made by vcld from the host's Ceph configuration at each start; changes here are lost.\n"
    return f"{head}{text.rstrip()}\n\n[client.{user}]\n" + "\n".join(lines) + "\n"


def write_conf(source: str, target: Path, user: str) -> None:
    """Make `target` from the configuration file `source`, unless it says so already. Raises
    PoolUnavailable."""
    try:
        wanted = guest_conf(Path(source).read_text(), user)
        if target.exists() and target.read_text() == wanted:
            return
        target.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=".", delete=False) as file:
            file.write(wanted)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).chmod(0o644)  # for QEMU's own user; it holds no key
        Path(file.name).replace(target)
    except OSError as error:
        raise PoolUnavailable(
            f"the Ceph configuration for guests, {target}, cannot be made from {source}: {error.strerror}",
            cure="look at the file, or name one as rbd.qemuConf",
        ) from error
