"""The cluster's own certificate authority, and a certificate for each node, made by the `openssl` command
(docs/decisions/0043).

Invariants: a key or a certificate that exists is never replaced, and a key is never readable by others, not
for a moment. Both ends of a link of the mesh trust this authority and no other.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from reconciler.adapters.files import Changed, create
from reconciler.resources.errors import InvalidInput, VclError
from reconciler.resources.kinds import valid_name

CA_KEY, CA_CERTIFICATE = "ca.key", "ca.crt"
NODE_KEY, NODE_CERTIFICATE = "node.key", "node.crt"
VALID = timedelta(days=3653)
EARLIER = timedelta(days=1)
"""Certificates are valid from a day ago: a node's clock may be behind."""
SECONDS = 20.0
"""How long openssl may take; it needs milliseconds."""

_REQUEST = "[req]\nprompt = no\ndistinguished_name = name\nutf8 = yes\n[name]\n{name}\n"
_SIGN = """\
[ca]
default_ca = ours
[ours]
database = {dir}/index
new_certs_dir = {dir}
rand_serial = yes
default_md = sha256
policy = policy
unique_subject = no
email_in_dn = no
x509_extensions = extensions
[policy]
organizationName = optional
commonName = supplied
[extensions]
{extensions}
"""
_AUTHORITY = """\
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash"""
_NODE = """\
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Where a certificate and its key are, both in PEM form."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a certificate says. `fingerprint`: SHA-256, pairs of hexadecimal digits."""

    name: str
    valid_from: datetime
    valid_until: datetime
    fingerprint: str


def make_ca(directory: Path, cluster: str = "vcl") -> Pair:
    """The authority in `directory` (ca.key, ca.crt), made unless it is there; `cluster` becomes its name.

    A key without a certificate gets one, which the nodes' certificates fit as they did the old one. Raises
    InvalidInput for a certificate without its key, VclError when openssl cannot make them.
    """
    pair = Pair(certificate=directory / CA_CERTIFICATE, key=directory / CA_KEY)
    if pair.certificate.exists():
        if pair.key.exists():
            return pair
        raise InvalidInput(
            f"{pair.certificate} is there without its key {pair.key.name}: a new authority would lock the "
            "existing nodes out",
            cure="run this on the node on which the cluster was made, or put the key back from a backup",
        )
    key = pair.key.read_bytes() if pair.key.exists() else _new_key()
    until = datetime.now(UTC) + VALID
    with _workplace(key) as place:
        made = _sign(place, f"O = vcl\nCN = {cluster}", _AUTHORITY, until=until, signer=None)
    if not pair.key.exists():
        _keep(pair.key, key, mode=0o600)
    _keep(pair.certificate, made, mode=0o644)
    return pair


def make_node_certificate(
    directory: Path, name: str, addresses: Iterable[str] = (), *, into: Path | None = None
) -> Pair:
    """A node's key and certificate in `into` (default: DIRECTORY/nodes/NAME), made unless they are there and
    signed by the authority in `directory`.

    The certificate is made out to `name` and, beside it, to those of `addresses` that are IP addresses, for
    both ends of a connection. A key without a certificate gets a new certificate. Raises InvalidInput for a
    missing authority, another node's certificate and a certificate without its key; VclError otherwise.
    """
    authority = Pair(certificate=directory / CA_CERTIFICATE, key=directory / CA_KEY)
    place = into if into is not None else directory / "nodes" / name
    pair = Pair(certificate=place / NODE_CERTIFICATE, key=place / NODE_KEY)
    if pair.certificate.exists():
        _check_existing(pair, name)
        return pair
    if not valid_name(name):
        raise InvalidInput(f"'{name}' cannot be a node's name", cure="use letters, digits, '-' and '.'")
    if not (authority.certificate.exists() and authority.key.exists()):
        raise InvalidInput(
            f"{authority.certificate} and {authority.key} are needed for a certificate of node {name}",
            cure="run this on the node on which the cluster was made: its authority's key never leaves it",
        )
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = pair.key.read_bytes() if pair.key.exists() else _new_key()
    names = [f"DNS:{name}", *(f"IP:{ip}" for ip in _ip_addresses(addresses))]
    until = min(datetime.now(UTC) + VALID, read_certificate(authority.certificate).valid_until)
    extensions = _NODE.format(names=", ".join(names))
    with _workplace(key) as work:
        made = _sign(work, f"CN = {name}", extensions, until=until, signer=authority)
    if not pair.key.exists():
        _keep(pair.key, key, mode=0o600)
    _keep(pair.certificate, made, mode=0o644)
    return pair


def read_certificate(path: Path) -> Certificate:
    """What the certificate in a PEM file says. Raises InvalidInput when it is none."""
    told = _openssl(
        *("x509", "-in", path, "-noout", "-subject", "-dates", "-fingerprint", "-sha256"),
        *("-nameopt", "multiline,-esc_msb,utf8"),
    ).decode("utf-8", "replace")
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition("=") for line in told.splitlines())
    }
    return Certificate(
        name=fields.get("commonName", ""),
        valid_from=_time(fields["notBefore"]),
        valid_until=_time(fields["notAfter"]),
        fingerprint=next(value for key, value in fields.items() if key.lower().endswith("fingerprint")),
    )


def _check_existing(pair: Pair, name: str) -> None:
    if not pair.key.exists():
        raise InvalidInput(
            f"{pair.certificate} is there without its key {pair.key.name}",
            cure=f"put the key back, or remove {pair.certificate} to get a new one",
        )
    found = read_certificate(pair.certificate)
    if found.name != name:
        raise InvalidInput(
            f"{pair.certificate} is made out to {found.name or 'nobody'}, not to {name}",
            cure="use the name that it has, or move both it and its key away to get new ones",
        )


def _sign(place: Path, name: str, extensions: str, *, until: datetime, signer: Pair | None) -> bytes:
    """A certificate for the key `place/key`, signed by `signer`, or by itself."""
    request, config, made = place / "request", place / "config", place / "certificate"
    config.write_text(_REQUEST.format(name=name), encoding="utf-8")
    _openssl("req", "-new", "-config", config, "-key", place / "key", "-out", request)
    (place / "index").touch()
    config.write_text(_SIGN.format(dir=place, extensions=extensions), encoding="utf-8")
    dates = ("-startdate", _stamp(datetime.now(UTC) - EARLIER), "-enddate", _stamp(until))
    by: tuple[str | Path, ...] = ("-selfsign", "-keyfile", place / "key")
    if signer is not None:
        by = ("-cert", signer.certificate, "-keyfile", signer.key)
    _openssl("ca", "-batch", "-notext", "-config", config, "-in", request, "-out", made, *dates, *by)
    return made.read_bytes()


@contextlib.contextmanager
def _workplace(key: bytes) -> Iterator[Path]:
    """A directory of our own that holds the key, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="vcl-pki-") as name:
        place = Path(name)
        create(place / "key", key, mode=0o600)
        yield place


def _new_key() -> bytes:
    return _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")


def _keep(path: Path, data: bytes, *, mode: int) -> None:
    try:
        create(path, data, mode=mode)
    except Changed as error:
        raise VclError(
            f"{path} was made by somebody else meanwhile", cure="run this once, and then again"
        ) from error


def _ip_addresses(addresses: Iterable[str]) -> list[str]:
    found = []
    for address in addresses:
        with contextlib.suppress(ValueError):
            found.append(str(ipaddress.ip_address(address)))
    return found


def _openssl(*arguments: str | Path) -> bytes:
    """What it prints. It runs here and not through the asynchronous door: certificates are made by commands,
    not by the daemon."""
    command: Sequence[str] = ["openssl", *map(str, arguments)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C", "OPENSSL_CONF": os.devnull},
        )
    except FileNotFoundError as error:
        raise VclError("the command `openssl` is missing", cure="install the package openssl") from error
    except subprocess.TimeoutExpired as error:
        raise VclError(f"`openssl {arguments[0]}` did not end", cure="try again") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        where = next((f"{value}: " for value in arguments if isinstance(value, Path)), "")
        raise InvalidInput(
            f"{where}`openssl {arguments[0]}` failed: {said[-1] if said else 'no reason given'}",
            cure="look at the file, and at the disk's free space",
        )
    return done.stdout


def _stamp(time: datetime) -> str:
    return time.strftime("%Y%m%d%H%M%SZ")


def _time(text: str) -> datetime:
    """openssl's `Nov 22 22:47:00 2026 GMT`."""
    return datetime.strptime(text, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
