"""A daemon whose store is silent because Ceph has shut it out says so, and begins anew once it is let in."""

from __future__ import annotations

from vcld.homecoming import ShutOut

OWN, HOST = "10.77.0.1:0/100", "10.77.0.1:0/0"


class Ceph:
    """A blocklist, and a store that answers or not."""

    def __init__(self) -> None:
        self.entries: set[str] = set()
        self.healthy = False
        self.anew = 0
        self.shut_out = ShutOut(lambda: (f"v1:{OWN}",), self._listed, lambda: self.healthy, self._again)

    async def _listed(self, entries: frozenset[str], timeout: float) -> frozenset[str]:
        return entries & self.entries

    def _again(self) -> None:
        self.anew += 1


async def test_a_silent_store_alone_means_nothing() -> None:
    ceph = Ceph()
    await ceph.shut_out.step()
    assert (ceph.shut_out.known, ceph.anew) == (False, 0)


async def test_a_daemon_that_is_shut_out_waits_until_its_host_is_let_in_and_takes_another_client() -> None:
    ceph = Ceph()
    ceph.entries = {OWN, HOST}
    await ceph.shut_out.step()
    assert (ceph.shut_out.known, ceph.anew) == (True, 0)
    ceph.entries = {OWN}
    await ceph.shut_out.step()
    assert (ceph.shut_out.known, ceph.anew) == (False, 1)


async def test_a_store_that_answers_is_proof_enough() -> None:
    ceph = Ceph()
    ceph.healthy, ceph.entries = True, {OWN, HOST}
    await ceph.shut_out.step()
    assert (ceph.shut_out.known, ceph.anew) == (False, 0)
