"""The mesh over TCP: aiohttp WebSockets, mutual TLS unless switched off, and the cluster's secret in both."""

from reconciler.adapters.mesh.files import load_secret
from reconciler.adapters.mesh.options import MeshOptions, TlsFiles
from reconciler.adapters.mesh.transport import MeshTransport

__all__ = ["MeshOptions", "MeshTransport", "TlsFiles", "load_secret"]
