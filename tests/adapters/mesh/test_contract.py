"""The mesh over TCP keeps the promises of a Transport, with TLS and without."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from reconciler.testing.mesh_network import relayed
from reconciler.testing.transport_contract import MeshUnderTest, TransportContract


class TestOverPlainTcp(TransportContract):
    def mesh(self, names: Sequence[str]) -> AbstractAsyncContextManager[MeshUnderTest]:
        return relayed(names, None)


class TestOverTls(TransportContract):
    @pytest.fixture(autouse=True)
    def _certificates(self, certificates: Path) -> None:
        self.certificates = certificates

    def mesh(self, names: Sequence[str]) -> AbstractAsyncContextManager[MeshUnderTest]:
        return relayed(names, self.certificates)
