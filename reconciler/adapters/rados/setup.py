"""What a cluster needs in Ceph, and the commands that make what is missing: pools, and two users.

`plan` looks and changes nothing; its steps are run, or shown to somebody who may run them. Invariant: what
exists is never replaced, and rights are only ever added to.
"""

from __future__ import annotations

import errno
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.adapters.rados.caps import Caps, qemu_caps, vcl_caps, with_missing
from reconciler.adapters.rados.monitors import AccessDenied, Command, Monitors
from reconciler.resources.errors import InvalidInput, StoreUnavailable

ERASURE = 3
"""How Ceph numbers the type of an erasure-coded pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`pool` and `namespace` for the state, `images` for the VMs' disks; users without `client.`."""

    pool: str
    namespace: str
    images: tuple[str, ...]
    user: str
    qemu_user: str

    def users(self) -> Mapping[str, Caps]:
        """The rights of each user; QEMU's is only there for images."""
        users = {self.user: vcl_caps(self.pool, self.namespace, self.images)}
        return {**users, self.qemu_user: qemu_caps(self.images)} if self.images else users


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`what` in words, such as `pool vms`; without commands it is there already."""

    what: str
    commands: tuple[Command, ...] = ()


def plan(monitors: Monitors, wanted: Wanted) -> list[Step]:
    """What is there and what to do. Raises AccessDenied, InvalidInput for a pool of the wrong kind,
    StoreUnavailable."""
    detail = monitors.run(Command(shell="osd pool ls detail", prefix="osd pool ls", arguments=_DETAIL))
    pools = {each["pool_name"]: each for each in detail.json()}
    steps = [_pool(pools, wanted.pool, "vcl")]
    steps += [_pool(pools, name, "rbd") for name in wanted.images]
    return steps + [_user(monitors, name, caps) for name, caps in wanted.users().items()]


def from_nothing(wanted: Wanted, keyrings: Mapping[str, str]) -> list[Command]:
    """Every command, for somebody who may run them; `keyrings` names each user's file."""
    pools = [_pool({}, wanted.pool, "vcl"), *(_pool({}, name, "rbd") for name in wanted.images)]
    commands = [command for step in pools for command in step.commands]
    return commands + [
        create_user(name, caps, keyring=keyrings.get(name)) for name, caps in wanted.users().items()
    ]


def keyring(monitors: Monitors, user: str) -> str:
    """The text of a user's keyring file. Raises AccessDenied, StoreUnavailable."""
    told = _user_of(monitors, user)
    if told is None:
        raise StoreUnavailable(f"Ceph knows no client.{user}", cure="run `vcl init` again")
    return keyring_text(user, str(told["key"]))


def keyring_text(user: str, key: str) -> str:
    """A keyring file with this key."""
    return f"[client.{user}]\n\tkey = {key}\n"


def create_user(name: str, caps: Caps, *, keyring: str | None = None) -> Command:
    """`auth get-or-create`; `keyring`: the file for the shell's form."""
    into = f" -o {shlex.quote(keyring)}" if keyring else ""
    return Command(
        shell=f"auth get-or-create client.{name} {_shown(caps)}{into}",
        prefix="auth get-or-create",
        arguments={"entity": f"client.{name}", "caps": _flat(caps)},
    )


def _pool(pools: Mapping[str, Any], name: str, application: str) -> Step:
    found = pools.get(name)
    what = f"pool {name}"
    enable = Command(
        shell=f"osd pool application enable {name} {application}",
        prefix="osd pool application enable",
        arguments={"pool": name, "app": application},
    )
    if found is None:
        create = Command(shell=f"osd pool create {name}", prefix="osd pool create", arguments={"pool": name})
        return Step(what=what, commands=(create, enable))
    if found.get("type") == ERASURE:
        raise InvalidInput(
            f"the pool {name} is erasure-coded, and cannot hold what vcl keeps in it",
            cure="name a replicated pool, or one that does not exist yet",
        )
    return Step(what=what, commands=() if found.get("application_metadata") else (enable,))


def _user(monitors: Monitors, name: str, caps: Caps) -> Step:
    what = f"Ceph user client.{name}"
    told = _user_of(monitors, name)
    if told is None:
        return Step(what=what, commands=(create_user(name, caps),))
    have: Caps = told.get("caps") or {}
    merged = with_missing(have, caps)
    if merged == have:
        return Step(what=what)
    change = Command(
        shell=f"auth caps client.{name} {_shown(merged)}",
        prefix="auth caps",
        arguments={"entity": f"client.{name}", "caps": _flat(merged)},
    )
    return Step(what=f"{what}: more rights", commands=(change,))


def _user_of(monitors: Monitors, name: str) -> dict[str, Any] | None:
    answer = monitors.ask("auth get", entity=f"client.{name}")
    if answer.denied:
        raise AccessDenied(
            f"client.{monitors.user} may not look at Ceph's users", cure="use one that may, with --admin-user"
        )
    if answer.code == errno.ENOENT:
        return None
    if answer.code:
        raise StoreUnavailable(f"`ceph auth get client.{name}` failed: {answer.said}", cure="look at Ceph")
    found: list[dict[str, Any]] = json.loads(answer.output)
    return found[0]


def _flat(caps: Caps) -> Sequence[str]:
    return [word for pair in caps.items() for word in pair]


def _shown(caps: Caps) -> str:
    return " ".join(f"{service} {shlex.quote(clauses)}" for service, clauses in caps.items())


_DETAIL = {"detail": "detail"}
