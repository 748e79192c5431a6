"""Short conversations with Ceph's monitors and pools, for the commands that set a cluster up and check it.

Every call blocks, and librados' own limits end it. The daemon does not use this.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

import rados

from reconciler.adapters.rados.connecting import connect
from reconciler.adapters.rados.errors import cannot_connect, translate
from reconciler.resources.errors import StoreUnavailable

TIMEOUT = 10
"""Seconds, for the connection and for each command."""

ConfFile = str
"""The path of Ceph's configuration file."""


class AccessDenied(StoreUnavailable):
    """This user may not do that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command: `shell` is what follows `ceph` on a command line, `prefix` and `arguments` the same for
    the monitors."""

    shell: str
    prefix: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"ceph {self.shell}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`code` is 0 or a positive errno; `output` is JSON where the command can; `said` is for people."""

    code: int
    output: bytes
    said: str

    @property
    def denied(self) -> bool:
        return self.code in (errno.EACCES, errno.EPERM)

    def json(self) -> Any:
        """What `output` says."""
        return json.loads(self.output)


class Monitors:
    """Connected until `close`; use it in a `with`."""

    def __init__(self, conf: ConfFile, user: str, cluster: Any, again: Callable[[], Monitors]) -> None:
        """Use `connect`. `again` makes a connection like this one."""
        self.conf = conf
        self.user = user
        self.again = again
        self._cluster = cluster

    @classmethod
    def connect(cls, conf: ConfFile, user: str, *, timeout: int = TIMEOUT, key: str = "") -> Monitors:
        """As client.USER, with `key`, or the keyring that the configuration leads to. Raises AccessDenied
        when there is no key, or a wrong one, StoreUnavailable when Ceph does not answer."""
        if not os.access(conf, os.R_OK):
            raise StoreUnavailable(
                f"Ceph's configuration {conf} cannot be read",
                cure="copy it from a host of the Ceph cluster, or name another one",
            )
        try:
            settings = {"key": key} if key else {}
            cluster = connect(str(conf), user, op_timeout=timeout, connect_timeout=timeout, settings=settings)
        except (rados.PermissionError, rados.PermissionDeniedError, rados.ObjectNotFound) as error:
            found = cannot_connect(error, conf, user)
            raise AccessDenied(found.message, cure=found.cure) from error
        except rados.Error as error:
            raise cannot_connect(error, conf, user) from error
        return cls(conf, user, cluster, partial(cls.connect, conf, user, timeout=timeout, key=key))

    def __enter__(self) -> Monitors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect."""
        self._cluster.shutdown()

    @property
    def fsid(self) -> str:
        """The Ceph cluster's id."""
        fsid: str = self._cluster.get_fsid()
        return fsid

    @property
    def instance(self) -> int:
        """This connection's number, as lock owners and watchers show it."""
        number: int = self._cluster.get_instance_id()
        return number

    def effective(self, name: str) -> str:
        """A setting as this connection has it, from Ceph's central configuration too; empty for an unknown
        one."""
        value: str | None = self._cluster.conf_get(name)
        return value or ""

    def ask(self, prefix: str, **arguments: Any) -> Answer:
        """What the monitors say to a command, refusals included. Raises StoreUnavailable when they do not
        answer."""
        document = json.dumps({"prefix": prefix, "format": "json", **arguments})
        try:
            code, output, said = self._cluster.mon_command(document, b"")
        except rados.Error as error:
            raise translate(error, f"at the monitors of {self.conf}") from error
        answer = Answer(code=abs(code), output=output, said=said)
        if answer.code in (errno.ETIMEDOUT, errno.EINTR):
            raise StoreUnavailable(
                f"Ceph's monitors did not answer `{prefix}`", cure="look at `ceph status` and at the network"
            )
        return answer

    def run(self, command: Command) -> Answer:
        """A command that must succeed. Raises AccessDenied, StoreUnavailable."""
        answer = self.ask(command.prefix, **command.arguments)
        if answer.denied:
            raise AccessDenied(f"client.{self.user} may not run `{command}`", cure="run it as another user")
        if answer.code:
            raise StoreUnavailable(f"`{command}` failed: {answer.said}", cure="look at `ceph status`")
        return answer

    def pool(self, name: str, namespace: str = "") -> Any:
        """librados' handle of a pool, to be closed. Raises StoreUnavailable."""
        try:
            ioctx = self._cluster.open_ioctx(name)
            ioctx.set_namespace(namespace)
            ioctx.set_osdmap_full_try()
        except rados.Error as error:
            raise translate(error, f"in pool {name}") from error
        return ioctx

    def pools(self) -> frozenset[str]:
        """The names of all pools. Raises StoreUnavailable."""
        try:
            return frozenset(self._cluster.list_pools())
        except rados.Error as error:
            raise translate(error, f"at the monitors of {self.conf}") from error

    def has_object(self, pool: str, namespace: str, name: str) -> bool:
        """Whether there is such an object. Raises StoreUnavailable."""
        ioctx = self.pool(pool, namespace)
        try:
            ioctx.stat(name)
        except rados.ObjectNotFound:
            return False
        except rados.Error as error:
            raise translate(error, f"{pool}/{namespace}/{name}") from error
        finally:
            ioctx.close()
        return True


def setting(conf: ConfFile, entity: str, name: str) -> str:
    """What the file (or Ceph's default) says of a setting, for an entity such as client.vcl or osd.0, without
    a connection. Raises StoreUnavailable when the file cannot be read."""
    try:
        cluster = rados.Rados(conffile=conf, name=entity)
    except rados.Error as error:
        raise cannot_connect(error, conf, entity.removeprefix("client.")) from error
    try:
        value: str | None = cluster.conf_get(name)
    finally:
        cluster.shutdown()
    return value or ""


def keyring_of(conf: ConfFile, user: str) -> str:
    """The path at which librados looks first for the key of client.USER. Raises StoreUnavailable."""
    return setting(conf, f"client.{user}", "keyring").split(",")[0].strip()
