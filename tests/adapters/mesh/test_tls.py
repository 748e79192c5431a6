"""With TLS, only certificates of the cluster's CA are accepted, and each only for its own node."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.adapters.mesh import MeshOptions, TlsFiles
from reconciler.adapters.mesh.tls import load_contexts
from reconciler.ports.transport import Endpoint, Link, LinkState
from reconciler.resources.errors import InvalidInput, VclError
from reconciler.testing.mesh_network import HERE, Running, options, running
from reconciler.testing.transport_contract import Ear, note

HANG = 10.0


def with_files(given: MeshOptions, ca: Path, base: Path) -> MeshOptions:
    """The same node with other files: BASE.crt and BASE.key."""
    files = TlsFiles(ca=ca, cert=base.with_suffix(".crt"), key=base.with_suffix(".key"))
    return replace(given, tls=files)


async def trying(node: Running, other: Running, name: str) -> Link:
    """`node` dials `other`; the first state that it finds."""
    assert other.transport.port is not None
    node.transport.connect({name: Endpoint(address=HERE, port=other.transport.port)})
    other.transport.connect({node.options.node: Endpoint(address=HERE, port=9)})
    return await found(node, name)


async def found(node: Running, name: str) -> Link:
    async with asyncio.timeout(HANG):
        while node.transport.links()[name].reason == "not tried yet":
            await asyncio.sleep(0.01)
    return node.transport.links()[name]


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG):
        while not condition():
            await asyncio.sleep(0.01)


async def test_nodes_of_one_ca_link(certificates: Path) -> None:
    async with running(options("a", certificates), options("b", certificates)) as (a, b):
        assert (await trying(a, b, "b")).state is LinkState.CONNECTED


async def test_another_ca_is_denied_by_the_one_who_dials(certificates: Path, strangers: Path) -> None:
    async with running(options("a", certificates), options("b", strangers)) as (a, b):
        link = await trying(a, b, "b")
    assert link.state is LinkState.DENIED
    assert "certificate is refused" in link.reason


async def test_a_certificate_of_another_ca_is_denied_by_the_one_who_listens(
    certificates: Path, strangers: Path
) -> None:
    fake = with_files(options("a"), certificates / "ca.crt", certificates / "a")
    async with running(fake, options("b", certificates)) as (a, b):
        # What `run` would refuse to start with: our files, with a certificate that the other CA has signed.
        client = a.transport._dialler._tls  # type: ignore[union-attr]
        assert client is not None
        client.load_cert_chain(strangers / "a.crt", strangers / "a.key")
        link = await trying(a, b, "b")
        await eventually(lambda: b.transport.counters().get("refused_connections.tls", 0) > 0)
    assert link.state is LinkState.DENIED
    assert "refuses our certificate" in link.reason


async def test_the_certificate_of_another_node_is_denied(certificates: Path) -> None:
    """c has been broken into, and says that it is a."""
    async with running(options("a", certificates), options("b", certificates)) as (a, b):
        client = a.transport._dialler._tls  # type: ignore[union-attr]
        assert client is not None
        client.load_cert_chain(certificates / "c.crt", certificates / "c.key")
        ear = Ear(b.transport)
        link = await trying(a, b, "b")
        await eventually(lambda: b.transport.counters().get("refused_connections.certificate", 0) > 0)
        assert not a.transport.send("b", note(1))
    assert link.state is LinkState.DENIED
    assert "made out to this node" in link.reason
    assert not ear.heard


async def test_whoever_answers_with_the_certificate_of_another_node_is_denied(certificates: Path) -> None:
    async with running(options("a", certificates), options("c", certificates)) as (a, c):
        c.transport._identity = replace(c.transport._identity, node="b")
        c.transport._options = replace(c.transport._options, node="b")
        link = await trying(a, c, "b")
    assert link.state is LinkState.DENIED
    assert "made out to c" in link.reason


async def test_a_client_without_a_certificate_is_put_out(certificates: Path) -> None:
    async with running(options("a", certificates)) as (a,):
        context = ssl.create_default_context(cafile=certificates / "ca.crt")
        context.check_hostname = False
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(HERE, a.transport.port, ssl=context)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"mesh" not in await reader.read(-1)
        await eventually(lambda: a.transport.counters().get("refused_connections.tls", 0) > 0)


async def test_a_tls_handshake_that_stalls_is_put_out(certificates: Path) -> None:
    async with running(options("a", certificates)) as (a,):
        reader, writer = await asyncio.open_connection(HERE, a.transport.port)
        async with asyncio.timeout(HANG):
            assert await reader.read(-1) == b""
        writer.close()
        assert a.transport.counters()["refused_connections.slow"] == 1


async def test_plain_and_tls_do_not_link_and_say_what_to_look_at(certificates: Path) -> None:
    async with running(options("a"), options("b", certificates)) as (a, b):
        assert (await trying(a, b, "b")).state is not LinkState.CONNECTED
    async with running(options("a", certificates), options("b")) as (a, b):
        link = await trying(a, b, "b")
    assert link.state is LinkState.DENIED
    assert "mesh.tls" in link.reason


# The node's own files


def refused(files: TlsFiles, node: str = "a") -> InvalidInput:
    with pytest.raises(InvalidInput) as error:
        load_contexts(files, node)
    assert error.value.cure
    return error.value


def files_of(directory: Path, node: str = "a") -> TlsFiles:
    return TlsFiles(ca=directory / "ca.crt", cert=directory / f"{node}.crt", key=directory / f"{node}.key")


def test_missing_files_are_named(certificates: Path, tmp_path: Path) -> None:
    for field in ("ca", "cert", "key"):
        path = tmp_path / field
        assert str(path) in refused(replace(files_of(certificates), **{field: path})).message


def test_a_key_that_others_may_read_is_refused_with_the_cure(certificates: Path, tmp_path: Path) -> None:
    key = tmp_path / "a.key"
    key.write_bytes((certificates / "a.key").read_bytes())
    key.chmod(0o644)
    error = refused(replace(files_of(certificates), key=key))
    assert "0644" in error.message
    assert error.cure == f"chmod 600 {key}"


def test_a_key_that_does_not_fit_is_refused(certificates: Path) -> None:
    assert "b.key" in str(refused(replace(files_of(certificates), key=certificates / "b.key")))


def test_a_file_that_is_no_certificate_is_refused(certificates: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello")
    for field in ("ca", "cert"):
        assert "PEM" in refused(replace(files_of(certificates), **{field: tmp_path / "x"})).message


def test_an_encrypted_key_is_refused_and_nobody_is_asked(certificates: Path, tmp_path: Path) -> None:
    key = tmp_path / "a.key"
    command = f"openssl pkey -in {certificates}/a.key -aes256 -passout pass:secret -out {key}"
    subprocess.run(command.split(), check=True, capture_output=True, umask=0o077)
    assert "unencrypted" in refused(replace(files_of(certificates), key=key)).message


def test_a_certificate_for_another_node_is_refused_at_the_start(certificates: Path) -> None:
    error = refused(files_of(certificates, "b"), "a")
    assert "made out to b" in error.message
    assert "this node is a" in error.message


def test_a_certificate_of_another_ca_is_refused_at_the_start(certificates: Path, strangers: Path) -> None:
    assert (
        "other nodes would refuse"
        in refused(replace(files_of(strangers), ca=certificates / "ca.crt")).message
    )


def test_an_expired_certificate_is_refused_at_the_start(certificates: Path, tmp_path: Path) -> None:
    key, request, cert = (tmp_path / f"a.{kind}" for kind in ("key", "csr", "crt"))
    for command in (
        f"openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=a"
        f" -keyout {key} -out {request}",
        f"openssl x509 -req -in {request} -CA {certificates}/ca.crt -CAkey {certificates}/ca.key"
        f" -set_serial 7 -days -1 -out {cert}",
    ):
        subprocess.run(command.split(), check=True, capture_output=True, umask=0o077)
    error = refused(TlsFiles(ca=certificates / "ca.crt", cert=cert, key=key))
    assert "expired" in error.message
    assert "date" in error.cure


async def test_run_ends_with_the_error(tmp_path: Path) -> None:
    node = Running(options("a", tmp_path))
    with pytest.raises(VclError, match=r"a\.key"):
        await node.listening()
