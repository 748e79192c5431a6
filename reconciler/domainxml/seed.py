"""The files of a cloud-init NoCloud seed.

Invariant: the instance id is the VM's uid, so that cloud-init sets a guest up once in its life, however often
it is started or moved.
Source: cloud-init's documentation of the NoCloud data source (files on a volume labelled 'cidata').
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from reconciler.resources.domains import StartRequest

SEED_LABEL = "cidata"
"""The volume label that the adapter gives the image made of these files."""


def seed_files(request: StartRequest) -> Mapping[str, str]:
    """File name -> text; empty without `cloudInit`. `network-config` only when the user wrote one: without
    it cloud-init asks DHCP on the first interface."""
    cloud = request.spec.cloud_init
    if cloud is None:
        return {}
    files = {"meta-data": _meta_data(request, cloud.meta_data or ""), "user-data": cloud.user_data}
    if cloud.network_config is not None:
        files["network-config"] = cloud.network_config
    return files


def _meta_data(request: StartRequest, own: str) -> str:
    """The user's text, with the instance id and host name added where it has none. JSON is left as it is."""
    if own.lstrip().startswith("{"):
        return own
    lines = []
    for key, value in (("instance-id", request.uid), ("local-hostname", request.name)):
        if not re.search(rf"^{key}\s*:", own, re.MULTILINE):
            lines.append(f"{key}: {value}\n")
    return "".join(lines) + own


def digest(files: Mapping[str, str]) -> str:
    """A short digest of the files; '' when there are none."""
    if not files:
        return ""
    text = "".join(f"{name}\0{files[name]}\0" for name in sorted(files))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
