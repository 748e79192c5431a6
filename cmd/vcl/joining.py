"""`vcl join`: look at everything first, then put the files in their places, then ask Ceph and the port.

Invariant: a host that is configured otherwise is not changed, unless told to, and then nothing is lost.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from reconciler.resources.errors import InvalidInput
from vcl import here
from vcl.join_bundle import CA, CERTIFICATE, KEY, MESH_FILES, Bundle
from vcl.node_config import config_text, disagreements, read_config
from vcl.node_files import OPEN_MODE, SECRET_MODE, Hand, NodeFiles, differs, keys_differ


def join(bundle: Bundle, files: NodeFiles, hand: Hand, *, called: str) -> None:
    """Make this host, called `called`, the bundle's node. Raises VclError, OSError."""
    _require_this_host(bundle, called)
    here.require_rados()
    _check_certificate(bundle)
    configured = _config_fits(bundle, files)
    _require_room(bundle, files, hand, configured)
    _require_port(bundle, files)
    _install(bundle, files, hand, configured)
    _ask_ceph(bundle)
    print(_next_steps(bundle))


def _require_this_host(bundle: Bundle, called: str) -> None:
    if bundle.node != called:
        raise InvalidInput(
            f"the bundle is for node {bundle.node}, and this host is called {called}",
            cure=f"run it on {bundle.node}; if this is it all the same, write --node {bundle.node}",
        )
    wrong = here.address_problem(str(bundle.config["address"]))
    if wrong:
        raise InvalidInput(
            f"{wrong}, and by it the others reach {bundle.node}",
            cure="give the address to this host; if another one was meant, `vcl init` has to be told on the "
            "first node",
        )


def _check_certificate(bundle: Bundle) -> None:
    """As the mesh will: the key fits, the authority has signed it, it is made out to this node. Raises
    InvalidInput."""
    if not bundle.tls:
        return
    from reconciler.adapters.files import write_durably
    from reconciler.adapters.mesh.options import TlsFiles
    from reconciler.adapters.mesh.tls import load_contexts

    with tempfile.TemporaryDirectory(prefix="vcl-join-") as name:
        place = Path(name)
        for file in (CA, CERTIFICATE, KEY):
            write_durably(place / file, bundle.files[file].encode())
        try:
            load_contexts(TlsFiles(ca=place / CA, cert=place / CERTIFICATE, key=place / KEY), bundle.node)
        except InvalidInput as error:
            reason = error.message.replace(f"{place}/", "")
            raise InvalidInput(
                f"the bundle's certificate is of no use: {reason}",
                cure="look at this host's clock; else remove the bundle on the first node and run `vcl init`",
            ) from error


def _config_fits(bundle: Bundle, files: NodeFiles) -> bool | None:
    """Whether the configuration that is there says the same; None when there is none."""
    there = read_config(files.config)
    return None if there is None else not disagreements(there, _config(bundle, files))


def _config(bundle: Bundle, files: NodeFiles) -> dict[str, object]:
    return {**bundle.config, "mesh": files.mesh(port=bundle.port, tls=bundle.tls)}


def _require_room(bundle: Bundle, files: NodeFiles, hand: Hand, configured: bool | None) -> None:
    """Raises InvalidInput when something else is where our files belong."""
    if hand.force:
        return
    taken = [files.config] if configured is False else []
    taken += [p for p, text in _mesh_files(bundle, files) if p.exists() and p.read_text("utf-8") != text]
    if Path(_conf(bundle)).exists():
        taken += [path for user, path, text in _keyrings(bundle) if keys_differ(path, user, text)]
    if len(taken) == 1:
        raise differs(taken[0])
    if taken:
        problems = tuple(str(differs(path).message) for path in taken)
        raise InvalidInput(
            "this host is set up otherwise already; nothing was changed",
            problems=problems,
            cure="does it belong to another cluster? --force replaces these files, and keeps them beside",
        )


def _require_port(bundle: Bundle, files: NodeFiles) -> None:
    """Somebody else's port is found now, not in the daemon's log. On a node that is set up it is vcld's."""
    address = str(bundle.config["address"])
    problem = here.port_problem(address, bundle.port)
    if problem and not files.key.exists() and not files.secret.exists():
        raise InvalidInput(f"{problem}, and the mesh needs it", cure="stop that program: `ss -ltnp` names it")


def _install(bundle: Bundle, files: NodeFiles, hand: Hand, configured: bool | None) -> None:
    conf = Path(_conf(bundle))
    if conf.exists():
        hand.kept(str(conf))
    else:
        hand.put(conf, bundle.ceph_conf.encode(), OPEN_MODE)
    for user, path, text in _keyrings(bundle):
        hand.put(path, text.encode(), SECRET_MODE, same=path.exists() and not keys_differ(path, user, text))
    for path, text in _mesh_files(bundle, files):
        mode = SECRET_MODE if path in (files.secret, files.key) else OPEN_MODE
        hand.put(path, text.encode(), mode)
    text = config_text(_config(bundle, files), "vcl join")
    hand.put(files.config, text.encode(), OPEN_MODE, same=bool(configured))


def _mesh_files(bundle: Bundle, files: NodeFiles) -> Iterator[tuple[Path, str]]:
    for name in MESH_FILES:
        if name in bundle.files:
            yield files.directory / name, bundle.files[name]


def _keyrings(bundle: Bundle) -> Iterator[tuple[str, Path, str]]:
    """User, path and text of each; the paths are those that this host's Ceph configuration says."""
    from reconciler.adapters.rados.monitors import keyring_of

    for user, text in sorted(bundle.keyrings.items()):
        yield user, Path(keyring_of(_conf(bundle), user)), text


def _conf(bundle: Bundle) -> str:
    return str(bundle.config["store"]["conf"])


def _ask_ceph(bundle: Bundle) -> None:
    """Raises StoreUnavailable when Ceph does not answer, or not to this key, InvalidInput when it is another
    Ceph."""
    from reconciler.adapters.rados.monitors import Monitors

    store = bundle.config["store"]
    with Monitors.connect(_conf(bundle), bundle.user) as monitors:
        if store["pool"] not in monitors.pools():
            raise InvalidInput(
                f"the Ceph of {_conf(bundle)} has no pool {store['pool']}; the files are in their places",
                cure="if that is another Ceph, name the right configuration in `store.conf` of vcld.yaml",
            )
    print(f"asked Ceph, which answers client.{bundle.user}")


def _next_steps(bundle: Bundle) -> str:
    return "\n".join(
        [
            "",
            f"This host is node {bundle.node} of the cluster {bundle.cluster}.",
            "",
            "Next:",
            f"  * {here.START}",
            "  * vcl doctor",
            "  * Remove the bundle, here and on the first node: there are keys in it.",
        ]
    )
