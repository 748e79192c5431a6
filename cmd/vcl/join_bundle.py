"""The join bundle: one file that makes a host a certain node of a certain cluster.

It is JSON: what it is, for whom, the files' texts, and a digest over all of it. The digest finds copies that
were cut short or edited; against forgery there is only the way by which the file travels, for it holds keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from reconciler.resources.errors import InvalidInput
from vcl.node_files import key_in

KIND, VERSION = "JoinBundle", "vcl/v1"
SECRET, CA, CERTIFICATE, KEY = "secret", "ca.crt", "node.crt", "node.key"
MESH_FILES = (SECRET, CA, CERTIFICATE, KEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """`config` is the node's vcld.yaml but for the paths of the mesh's files; `files`: the texts of those
    (only the secret without TLS). `ceph_conf` and `keyrings` (by user) are for hosts that have none yet."""

    node: str
    cluster: str
    uid: str
    config: Mapping[str, Any]
    files: Mapping[str, str]
    ceph_conf: str
    keyrings: Mapping[str, str]

    @property
    def tls(self) -> bool:
        return bool(self.config["mesh"]["tls"] == "on")

    @property
    def port(self) -> int:
        return int(self.config["mesh"]["port"])

    @property
    def user(self) -> str:
        """vcl's own user in Ceph."""
        return str(self.config["store"]["user"])


def write_bundle(bundle: Bundle) -> bytes:
    """The bundle as a file."""
    content = {
        "apiVersion": VERSION,
        "kind": KIND,
        "node": bundle.node,
        "cluster": bundle.cluster,
        "uid": bundle.uid,
        "config": bundle.config,
        "files": bundle.files,
        "cephConf": bundle.ceph_conf,
        "keyrings": bundle.keyrings,
    }
    return (json.dumps({**content, "digest": _digest(content)}, indent=1) + "\n").encode()


def read_bundle(path: Path) -> Bundle:
    """The bundle in a file. Raises InvalidInput when it is none, not whole, or not complete; OSError."""
    cure = "copy it again from the node on which `vcl init` made it"
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidInput(f"{path} is no join bundle, or not all of it", cure=cure) from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise InvalidInput(f"{path} is no join bundle", cure=cure)
    if content.get("apiVersion") != VERSION:
        raise InvalidInput(
            f"{path} is a join bundle of another version of vcl ({content.get('apiVersion')})",
            cure="install the same version of vcl here as on the other nodes",
        )
    digest = content.pop("digest", None)
    if digest != _digest(content):
        raise InvalidInput(f"{path} was damaged or changed on its way", cure=cure)
    bundle = _bundle(path, content)
    _require_complete(path, bundle)
    return bundle


def _bundle(path: Path, content: Mapping[str, Any]) -> Bundle:
    try:
        return Bundle(
            node=content["node"],
            cluster=content["cluster"],
            uid=content["uid"],
            config=content["config"],
            files=content["files"],
            ceph_conf=content["cephConf"],
            keyrings=content["keyrings"],
        )
    except KeyError as error:
        raise _lacks(path, str(error.args[0])) from error


def _require_complete(path: Path, bundle: Bundle) -> None:
    wanted = MESH_FILES if bundle.tls else (SECRET,)
    missing = [name for name in wanted if not bundle.files.get(name)]
    if not bundle.ceph_conf:
        missing.append("Ceph's configuration")
    if not key_in(bundle.keyrings.get(bundle.user, ""), bundle.user):
        missing.append(f"the key of client.{bundle.user}")
    if missing:
        raise _lacks(path, ", ".join(missing))


def _lacks(path: Path, what: str) -> InvalidInput:
    return InvalidInput(
        f"{path} lacks {what}", cure="remove it on the first node and run `vcl init` there again"
    )


def _digest(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
