"""What every fencer promises, as tests to inherit: proof or FenceFailed, in time, guarded, and repeatable."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import pytest

from reconciler.ports.fencer import Fencer
from reconciler.resources.errors import ConflictError, FenceFailed
from reconciler.resources.fencing import Blocklisted, FenceOrder, host_entry

TIMEOUT = 20.0


@dataclass(slots=True)
class CountingGuard:
    """Lets everything pass, or nothing."""

    asked: int = 0
    refuse: bool = False

    async def __call__(self) -> None:
        self.asked += 1
        if self.refuse:
            raise ConflictError("another master has taken over")


class FencerContract(ABC):
    """Inherit, and give `ready`: a fencer that works, with an order that it can carry out, and `broken`: one
    whose means do not answer."""

    @abstractmethod
    def ready(self) -> AbstractAsyncContextManager[tuple[Fencer, FenceOrder]]:
        """Closed at the end."""

    @abstractmethod
    def broken(self) -> AbstractAsyncContextManager[tuple[Fencer, FenceOrder]]:
        """Whatever it talks to hangs."""

    changes = True
    """Whether it changes something outside (and so asks the guard)."""

    async def test_a_proof_is_given_and_holds(self) -> None:
        async with self.ready() as (fencer, order):
            assert fencer.unready(order) == ""
            proof = await fencer.fence(order, CountingGuard(), timeout=TIMEOUT)
            await fencer.settle(order, proof, timeout=TIMEOUT)

    async def test_fencing_again_gives_the_proof_again(self) -> None:
        async with self.ready() as (fencer, order):
            first = await fencer.fence(order, CountingGuard(), timeout=TIMEOUT)
            again = await fencer.fence(order, CountingGuard(), timeout=TIMEOUT)
            assert type(first) is type(again)
            await fencer.settle(order, again, timeout=TIMEOUT)

    async def test_the_guard_is_asked_before_anything_changes_and_a_refusal_is_let_through(self) -> None:
        if not self.changes:
            return
        async with self.ready() as (fencer, order):
            guard = CountingGuard(refuse=True)
            with pytest.raises(ConflictError):
                await fencer.fence(order, guard, timeout=TIMEOUT)
            assert guard.asked == 1
            guard = CountingGuard()
            await fencer.fence(order, guard, timeout=TIMEOUT)
            assert guard.asked >= 1

    async def test_a_ceph_fencers_proof_names_every_host_and_client_of_the_order(self) -> None:
        async with self.ready() as (fencer, order):
            proof = await fencer.fence(order, CountingGuard(), timeout=TIMEOUT)
            assert isinstance(proof, Blocklisted) == bool(fencer.fsid)
            if isinstance(proof, Blocklisted):
                assert proof.fsid == fencer.fsid
                assert {*map(host_entry, order.addresses), *order.clients} <= set(proof.entries)

    async def test_after_the_return_a_ceph_proof_holds_no_more(self) -> None:
        async with self.ready() as (fencer, order):
            proof = await fencer.fence(order, CountingGuard(), timeout=TIMEOUT)
            for clients in (False, False, True, True):
                await fencer.lift(order, CountingGuard(), clients=clients, timeout=TIMEOUT)
            if fencer.fsid:
                with pytest.raises(FenceFailed):
                    await fencer.settle(order, proof, timeout=TIMEOUT)

    async def test_locks_of_no_images_are_broken_at_once(self) -> None:
        async with self.ready() as (fencer, order):
            await fencer.fence(order, CountingGuard(), timeout=TIMEOUT)
            assert await fencer.break_locks(order, CountingGuard(), timeout=TIMEOUT) == ()

    async def test_what_hangs_is_a_failure_in_time(self) -> None:
        async with self.broken() as (fencer, order), asyncio.timeout(TIMEOUT):
            with pytest.raises(FenceFailed) as failed:
                await fencer.fence(order, CountingGuard(), timeout=0.5)
            assert failed.value.message
