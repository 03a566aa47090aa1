"""leader_lock(): the lease of backend streams, for anything of which there should be one in the cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Generator
from types import TracebackType
from typing import Protocol, TypeVar

from ..engines.base import Command, Grant, LeaseAcquire, LeaseRelease, LeaseRenew
from ..exceptions import EngineUnavailable, LeaseLost
from ..messages import topics
from .lease import Lease, renewal_period

logger = logging.getLogger(__name__)

T = TypeVar("T")

_random = random.SystemRandom()


class Door(Protocol):
    """What a lock needs of a layer."""

    async def run(self, command: Command[T]) -> T: ...

    def run_sync(self, command: Command[T]) -> T: ...


class LeaderLock:
    """A lease held for the length of a `with` or `async with` block; made by `layer.leader_lock(name)`.

    Entering waits until nobody else holds `name`: for ever, or `timeout` seconds (0: one attempt), then
    TimeoutError. The lease is renewed meanwhile; a holder that died is replaced after `ttl` seconds, one that left
    within a third of that. If it cannot be renewed, an `async with` block is cancelled before anyone else is let in
    and raises LeaseLost; a `with` block cannot be interrupted: look at `held`, or call `check()`.

    What it does not do: a process that was paused, or whose loop was blocked, may act once more before it notices.
    Where that matters, hand `token` to the resource and let it refuse lower ones: it rises with every holder. After a
    failover of the store that lost the lease two may hold it until the first one's next renewal. It is not reentrant,
    and not fair. Raises EngineUnavailable if the store cannot be reached on entering.
    """

    def __init__(self, layer: Door, name: str, *, ttl: float = 3.0, timeout: float | None = None) -> None:
        self.name = topics.check_live_name(name)
        self._layer = layer
        self._topic = topics.lock(name)
        self._ttl = ttl
        self._timeout = timeout
        self._session = secrets.token_hex(8)
        self._holder = f"{socket.gethostname().split('.')[0]}-{os.getpid()}"
        self._lease: Lease | None = None
        self._limit: asyncio.Timeout | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._left = threading.Event()

    def __repr__(self) -> str:
        return f"<LeaderLock {self.name}{' held' if self.held else ''}>"

    @property
    def held(self) -> bool:
        """Whether this holder may still trust its lease."""
        return self._lease is not None and self._lease.trusted(time.monotonic())

    @property
    def lost(self) -> bool:
        """True in a block whose lease could not be kept."""
        return self._lease is not None and not self.held

    @property
    def token(self) -> int:
        """The fencing token. Raises LeaseLost outside the block."""
        if self._lease is None:
            raise LeaseLost(f"leader_lock({self.name!r}) is not held.")
        return self._lease.token

    def check(self) -> None:
        """Raise LeaseLost unless `held`."""
        if not self.held:
            raise LeaseLost(f"leader_lock({self.name!r}) was lost: it could not be renewed in time.")

    def _attempts(self) -> Generator[float, Grant, None]:
        """Yields the pause before each attempt and is sent its answer; ends when the lease is ours."""
        if self._lease is not None:
            raise RuntimeError(f"leader_lock({self.name!r}) is not reentrant; make a new one.")
        ends = None if self._timeout is None else time.monotonic() + self._timeout
        pause = 0.0
        while True:
            sent = time.monotonic() + pause
            grant = yield pause
            if grant.token is not None:
                self._lease = Lease.granted(self.name, self._topic, self._session, grant, self._ttl, sent)
                return
            left = max(grant.remaining, 0) + _random.uniform(0, 0.05)
            pause = min(left, renewal_period(self._ttl))
            if ends is not None:
                if time.monotonic() >= ends:
                    raise TimeoutError(f"leader_lock({self.name!r}) is held by {grant.holder}.")
                pause = min(pause, ends - time.monotonic())

    def _acquire(self) -> LeaseAcquire:
        return LeaseAcquire(self._topic, self._session, self._holder, self._ttl)

    def _renew(self, lease: Lease) -> LeaseRenew:
        return LeaseRenew(self._topic, self._session, lease.token, self._ttl)

    # async with

    async def __aenter__(self) -> LeaderLock:
        attempts = self._attempts()
        pause = next(attempts)
        try:
            while True:
                await asyncio.sleep(pause)
                pause = attempts.send(await self._layer.run(self._acquire()))
        except StopIteration:
            lease = self._held_lease()
        self._limit = asyncio.timeout_at(self._on_loop_clock(lease))
        await self._limit.__aenter__()
        self._renewing = asyncio.create_task(self._keep(lease, self._limit), name=f"leader_lock {self.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lease, limit, renewing = self._held_lease(), self._limit, self._renewing
        self._lease = self._limit = self._renewing = None
        if renewing:
            renewing.cancel()
        try:
            if limit:
                await limit.__aexit__(kind, error, trace)
        except TimeoutError:
            raise LeaseLost(f"leader_lock({self.name!r}) was lost: it could not be renewed in time.") from error
        finally:
            try:
                await self._layer.run(LeaseRelease(self._topic, self._session, lease.token))
            except EngineUnavailable:
                logger.debug("leader_lock %s: could not release; it expires", self.name)

    async def _keep(self, lease: Lease, limit: asyncio.Timeout) -> None:
        while True:
            await asyncio.sleep(renewal_period(self._ttl))
            sent = time.monotonic()
            try:
                renewed = await self._layer.run(self._renew(lease))
            except EngineUnavailable:
                continue
            if limit.expired():
                return
            if not renewed:
                lease.ended = "lost"
                limit.reschedule(asyncio.get_running_loop().time())
                return
            lease.renewed(sent)
            limit.reschedule(self._on_loop_clock(lease))

    @staticmethod
    def _on_loop_clock(lease: Lease) -> float:
        return asyncio.get_running_loop().time() + lease.deadline - time.monotonic()

    # with

    def __enter__(self) -> LeaderLock:
        attempts = self._attempts()
        pause = next(attempts)
        try:
            while True:
                time.sleep(pause)
                pause = attempts.send(self._layer.run_sync(self._acquire()))
        except StopIteration:
            lease = self._held_lease()
        self._left.clear()
        threading.Thread(target=self._keep_sync, args=(lease,), name=f"leader_lock {self.name}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lease, held = self._held_lease(), self.held
        self._left.set()
        self._lease = None
        try:
            self._layer.run_sync(LeaseRelease(self._topic, self._session, lease.token))
        except EngineUnavailable:
            logger.debug("leader_lock %s: could not release; it expires", self.name)
        if not held and error is None:
            raise LeaseLost(f"leader_lock({self.name!r}) was lost before the block ended.")

    def _keep_sync(self, lease: Lease) -> None:
        while not self._left.wait(renewal_period(self._ttl)):
            sent = time.monotonic()
            try:
                renewed = self._layer.run_sync(self._renew(lease))
            except EngineUnavailable:
                continue
            if not renewed:
                lease.ended = "lost"
                return
            lease.renewed(sent)

    def _held_lease(self) -> Lease:
        assert self._lease is not None
        return self._lease
