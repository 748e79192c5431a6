"""Looks at every image of the lab's pool, five times a second, and tells of each that two could write to.

    python3 audit_child.py CONF POOL DIRECTORY        run by audit.py, on the storage's machine

It is a process of its own, so that nothing that the tests do or wait for keeps it from looking, and it asks
Ceph as its administrator: neither vcl's records nor its code are trusted. A client *could write* when it has
the image open for writing (it watches) or locked, and no entry of the blocklist holds it off. The order of
the questions makes each finding certain: the blocklist is read last, so who is not on it then was not on it
when both were seen; a lock's owner counts together with those who watched before and after it was read. Of an
image that a test has migrated just now two may be there, and no more.

DIRECTORY/audit.json has what was looked at so far, DIRECTORY/audit.jsonl one finding a line.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import rados
import rbd

PERIOD = 0.2
LIMITS = {
    "rados_osd_op_timeout": "3",
    "rados_mon_op_timeout": "5",
    "client_mount_timeout": "10",
    "rbd_cache": "false",
}
UNANSWERED = (rados.Error, rbd.Error, TimeoutError)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The guest's counter as sector 0 has it (tools/guest/init): how far, which boot, its name."""

    tick: int
    boots: int
    boot: str

    @classmethod
    def parse(cls, sector: bytes) -> Record | None:
        words = sector.split(b"\0")[0].split()
        if len(words) != 4 or words[0] != b"vcl-guest":
            return None
        return cls(tick=int(words[1]), boots=int(words[2]), boot=words[3].decode())


class Audit:
    """What was seen so far, and the handles it is seen through."""

    def __init__(self, cluster: Any, context: Any, place: Path) -> None:
        self._cluster = cluster
        self._context = context
        self._place = place
        self._last: dict[str, Record] = {}
        self.seen = {"passes": 0, "unanswered": 0, "looks": 0, "writers": 0, "fenced": 0, "records": 0}

    def step(self) -> None:
        """One look at everything. Raises what Ceph answers when it does not."""
        for name in sorted(rbd.RBD().list(self._context)):
            try:
                self._look(name)
            except rbd.ImageNotFound:
                continue
        self.seen["passes"] += 1

    def _look(self, name: str) -> None:
        # On a fresh handle each time: an open one remembers the owners of locks from when it was opened.
        with rbd.Image(self._context, name, read_only=True) as image:
            self._look_into(name, image)

    def _look_into(self, name: str, image: Any) -> None:
        before, owners, after = watchers(image), lockers(image), watchers(image)
        self.seen["looks"] += 1
        self.seen["writers"] += len(before | owners)
        pairs = {frozenset(pair) for pair in itertools.combinations(sorted(before), 2)}
        pairs |= {frozenset(pair) for pair in itertools.product(owners, before & after)}
        pairs = {pair for pair in pairs if len(pair) == 2}
        if pairs:
            self._judge(name, pairs, owners)
        self._read(name, image)

    def _judge(self, name: str, pairs: set[frozenset[str]], owners: set[str]) -> None:
        entries, alive = blocklist(self._cluster), []
        for pair in sorted(pairs, key=sorted):
            fenced = [client for client in sorted(pair) if holds_off(entries, client)]
            self.seen["fenced"] += len(fenced)
            if not fenced:
                alive.append(pair)
        if len(alive) > (name in self._handed_over()):
            for pair in alive:
                self.tell(what="two writers", image=name, clients=sorted(pair), locked=sorted(owners & pair))

    def _handed_over(self) -> list[str]:
        """The images that may be open on both hosts of a live migration (audit.py: handing_over)."""
        try:
            found: list[str] = json.loads((self._place / "handing-over.json").read_text())
        except (FileNotFoundError, ValueError):
            return []
        return found

    def _read(self, name: str, image: Any) -> None:
        """The counter never goes back, and no earlier boot of the disk writes after a later one."""
        found = Record.parse(image.read(0, 128)) if image.size() >= 128 else None
        if found is None:
            return
        self.seen["records"] += 1
        last = self._last.get(image.id())  # an image that was removed and made again is another one
        if last is not None and (found.boots, found.tick) < (last.boots, last.tick):
            self.tell(
                what="counter went back",
                image=name,
                before=dataclasses.asdict(last),
                now=dataclasses.asdict(found),
            )
        self._last[image.id()] = found

    def tell(self, **finding: object) -> None:
        with (self._place / "audit.jsonl").open("a") as out:
            out.write(json.dumps({"at": time.time(), **finding}) + "\n")

    def unanswered(self) -> None:
        """Ceph is away or slow."""
        self.seen["unanswered"] += 1

    def keep(self) -> None:
        fresh = self._place / "audit.json.new"
        fresh.write_text(json.dumps(self.seen))
        fresh.rename(self._place / "audit.json")


def watchers(image: Any) -> set[str]:
    """Who has it open for writing: a reader does not watch."""
    return {each["addr"] for each in image.watchers_list()}


def lockers(image: Any) -> set[str]:
    held = image.list_lockers()
    return {address for _, _, address in held["lockers"]} if held else set()


def blocklist(cluster: Any) -> set[str]:
    """The addresses that are on it now."""
    code, answer, said = cluster.mon_command(
        json.dumps({"prefix": "osd blocklist ls", "format": "json"}), b"", timeout=5
    )
    if code:
        raise TimeoutError(said)
    entries, _ = json.JSONDecoder().raw_decode(answer.decode())  # "listed 1 entries" follows
    return {entry["addr"] for entry in entries}


def holds_off(entries: Iterable[str], client: str) -> bool:
    """Whether the client, or its whole address, is among the entries."""
    return client in entries or f"{client.rpartition(':')[0]}:0/0" in entries


def main(conf: str, pool: str, directory: str) -> None:
    with (
        rados.Rados(conffile=conf, name="client.admin", conf=LIMITS) as cluster,
        cluster.open_ioctx(pool) as context,
    ):
        audit = Audit(cluster, context, Path(directory))
        while True:
            began = time.monotonic()
            try:
                audit.step()
            except UNANSWERED as error:
                print(f"{time.time():.1f}: {type(error).__name__}: {error}", flush=True)
                audit.unanswered()
            audit.keep()
            time.sleep(max(0.02, PERIOD - (time.monotonic() - began)))


if __name__ == "__main__":
    main(*sys.argv[1:])
