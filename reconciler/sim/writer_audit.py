"""The writer audit: at every event, at most one client that nothing fences may write to an image.

* Of the clients of an image, at most one can write: it runs, or what it has sent is still under way.
* Each write that arrives is of a client that its VM's claim names, on the node that has the claim; or of one
  that has just opened an image of which the claim says that it is being attached.
* Each one adds one to what is in the image: nothing synced is lost, and nothing foreign comes between.
"""

from __future__ import annotations

from reconciler.resources import keys
from reconciler.resources.records import Claim, load
from reconciler.sim.site_ceph import Arrival, Qemu, SiteCeph


class WriterAudit:
    """Of one Ceph, from now on. `broken`: what was found."""

    def __init__(self, site: SiteCeph) -> None:
        self.broken: list[str] = []
        self.writes = 0
        self._site = site
        site.arrived.append(self._arrived)

    def look(self) -> None:
        """After every event: who may write to which image."""
        by_image: dict[str, list[Qemu]] = {}
        for qemu in self._site.qemus:
            for name in qemu.images:
                by_image.setdefault(name.spec, []).append(qemu)
        for image, qemus in by_image.items():
            if len(qemus) < 2:
                continue
            able = [f"{qemu.client} on {qemu.host}" for qemu in qemus if self._site.can_write(qemu)]
            if len(able) > 1:
                self.broken.append(f"{image} may be written by {' and by '.join(able)}")

    def _arrived(self, arrival: Arrival) -> None:
        self.writes += 1
        qemu, wrote = arrival.qemu, f"{arrival.qemu.client} on {arrival.qemu.host}"
        claim = self._claim(qemu.vm)
        plugging = claim.plugging is not None and arrival.identity in claim.plugging.keys
        if claim.node != qemu.host or not (plugging or qemu.client in claim.clients):
            self.broken.append(
                f"{wrote} wrote {arrival.value} to {arrival.image.spec}, whose claim is of "
                f"{claim.node or 'nobody'} with {', '.join(claim.clients) or 'no clients'}"
            )
        if arrival.value != arrival.before + 1:
            self.broken.append(
                f"{wrote} wrote {arrival.value} to {arrival.image.spec}, which had {arrival.before}"
            )

    def _claim(self, vm: str) -> Claim:
        key = keys.claim(vm)
        found = self._site.world.storage.cluster.get([key]).get(key)
        return load(Claim, found.value) if found is not None else Claim()
