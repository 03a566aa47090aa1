"""All leases of one node: it stands for many names, leads some, and follows the rest without polling.

A name is stood for until it is led; then its lease is renewed three times within its time to live, all leases
of the node together, and ends by `Lease.ended` when it could not be. Ended before release means: stop at once,
another may lead. A follower sleeps until the lease it saw can have expired; a leader that gives up says so to
every node, and the next one takes over at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol, TypeVar

from ..engines.base import Command, Grant, LeaseAcquire, LeaseRelease, LeaseRenew
from ..exceptions import EngineUnavailable, LiveChannelsError
from .lease import SAFE, Lease, renewal_period

logger = logging.getLogger(__name__)

T = TypeVar("T")
S = TypeVar("S")

CHUNK = 256
GRAIN = 0.02
JITTER = 0.05
HANDOVERS = 100
STEP = 0.05
MOST_STEPS = 3

_random = random.SystemRandom()


class Bus(Protocol):
    """What leadership needs of a node."""

    id: str

    async def run(self, command: Command[T]) -> T: ...

    async def broadcast(self, kind: str, payload: dict[str, Any]) -> None: ...

    def on_control(self, kind: str, handler: Callable[[dict[str, Any]], None]) -> None: ...


@dataclass(slots=True, eq=False)
class _Stand:
    """A name this node would lead. `due`: monotonic time of the next attempt; `holder`: who led when last asked.

    `woken`: when a release was last heard of; an answer to a question sent before it says nothing any more.
    """

    name: str
    topic: str
    won: asyncio.Future[Lease | None]
    due: float = math.inf
    holder: str = ""
    asking: bool = False
    woken: float = 0.0


class Leadership:
    """The leases of one node. All methods belong to its loop.

    `nodes` returns the ids of the nodes that may lead, this one included: they make the order in which
    followers come forward. `session` is random for every node start, so no earlier life of it can be mistaken for it.
    """

    def __init__(
        self,
        bus: Bus,
        nodes: Callable[[], Collection[str]],
        *,
        ttl: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session = secrets.token_hex(8)
        self.ttl = ttl
        self._bus = bus
        self._nodes = nodes
        self._clock = clock
        self._held: dict[str, Lease] = {}
        self._ends: dict[str, Callable[[Lease], None]] = {}
        self._stands: dict[str, _Stand] = {}
        self._newcomers: list[_Stand] = []
        self._due = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._guard = asyncio.Event()
        bus.on_control("lease-released", self._on_released)
        bus.on_control("lease-wanted", self._on_wanted)
        for loop in (self._stand_loop(), self._renew_loop(), self._guard_loop()):
            self._spawn(loop)

    @property
    def leads(self) -> Collection[str]:
        """The names this node leads now."""
        return self._held.keys()

    def leases(self) -> list[Lease]:
        """The leases this node holds now."""
        return list(self._held.values())

    def leader(self, name: str) -> str:
        """The id of the node that led `name` when last heard of; "" if unknown."""
        if name in self._held:
            return self._bus.id
        stand = self._stands.get(name)
        return stand.holder if stand else ""

    def stand(self, name: str, topic: str, ended: Callable[[Lease], None]) -> asyncio.Future[Lease | None]:
        """Try to lead `name` until it succeeds; the future is None if `withdraw` came first.

        `ended(lease)` is called once when the lease is lost (`lease.ended` says why; stop at once) or when
        a better node asks for it (`lease.heir` names it; stop, then `release`). It is not called by `release`.
        """
        if name in self._stands or name in self._held:
            raise ValueError(f"this node already stands for {name}")
        won: asyncio.Future[Lease | None] = asyncio.get_running_loop().create_future()
        stand = self._stands[name] = _Stand(name, topic, won)
        self._newcomers.append(stand)
        self._ends[name] = ended
        self._due.set()
        return won

    def withdraw(self, name: str) -> None:
        """Stop standing for `name`. A lease already held is not touched."""
        stand = self._stands.pop(name, None)
        if stand:
            self._ends.pop(name, None)
            if not stand.won.done():
                stand.won.set_result(None)

    async def release(self, leases: Iterable[Lease], *, leaving: bool = False) -> None:
        """Give leases up and wake those who follow; a lease with an `heir` goes to it first.

        Never raises: a release that cannot be sent is one that expires. `leaving`: this node leads nothing any more.
        """
        await self._give_up([lease for lease in leases if self._drop(lease, "released")], leaving)

    def lose(self, lease: Lease, why: str) -> None:
        """A publication was refused or time ran out: this node no longer leads."""
        ended = self._ends.get(lease.name)
        if self._drop(lease, why) and ended:
            logger.warning("%s lost the lease of %s: %s", self._bus.id, lease.name, why)
            ended(lease)

    def balance(self) -> Sequence[str]:
        """Names led elsewhere although this node comes first for them, once their leader has been heard of."""
        nodes = self._nodes()
        return [
            stand.name
            for stand in self._stands.values()
            if stand.holder
            and stand.holder != self._bus.id
            and stand.holder in nodes
            and rank(self._bus.id, nodes, stand.name) == 0
        ][:HANDOVERS]

    async def ask_for(self, names: Sequence[str]) -> None:
        """Ask the leaders of `names` to hand them over; one over its fair share does."""
        if names:
            await self._broadcast("lease-wanted", {"node": self._bus.id, "names": list(names)})

    async def close(self) -> None:
        """Stop standing, release everything, end. Bounded by the engine's own time limit."""
        for name in list(self._stands):
            self.withdraw(name)
        for task in self._tasks:
            task.cancel()
        await self.release(list(self._held.values()), leaving=True)

    # Standing

    def _hold_back(self, name: str, *, without: str = "", first: str = "") -> float:
        if first:
            return 0.0 if first == self._bus.id else wait(MOST_STEPS)
        nodes = [node for node in self._nodes() if node != without]
        return wait(rank(self._bus.id, nodes, name))

    async def _stand_loop(self) -> None:
        while True:
            now = self._clock()
            # Their waits begin when the first of them are asked for: while a thousand were entered, all had passed.
            for stand in self._newcomers:
                stand.due = now + self._hold_back(stand.name)
            self._newcomers.clear()
            idle = [stand for stand in self._stands.values() if not stand.asking]
            due = [stand for stand in idle if stand.due <= now + GRAIN]
            for chunk in _chunks(due):
                for stand in chunk:
                    stand.asking = True
                self._spawn(self._ask(chunk))
            following = min((stand.due for stand in idle if not stand.asking), default=now + 3600)
            self._due.clear()
            # Not wait_for(): before Python 3.12 it swallows a cancellation that meets the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(following - now, 0)):
                    await self._due.wait()

    async def _ask(self, stands: Sequence[_Stand]) -> None:
        sent = self._clock()
        answers = await self._run_all(LeaseAcquire(s.topic, self.session, self._bus.id, self.ttl) for s in stands)
        unwanted = []
        for stand, answer in zip(stands, answers, strict=True):
            stand.asking = False
            current = self._stands.get(stand.name)
            if isinstance(answer, BaseException):
                stand.due = self._clock() + _random.uniform(0.5, 1) * self.ttl / 6
            elif answer.token is None:
                if stand.woken < sent:
                    self._follow(stand, answer)
            else:
                lease = Lease.granted(stand.name, stand.topic, self.session, answer, self.ttl, sent)
                if current is stand and lease.trusted(self._clock()):
                    self._win(stand, lease)
                elif current is None and stand.name not in self._held:
                    unwanted.append(lease)
        self._due.set()
        await self._give_up(unwanted)

    def _win(self, stand: _Stand, lease: Lease) -> None:
        del self._stands[stand.name]
        self._held[stand.name] = lease
        stand.won.set_result(lease)
        self._guard.set()

    def _follow(self, stand: _Stand, grant: Grant) -> None:
        stand.holder = grant.holder
        expires = max(grant.remaining, 0) + self._hold_back(stand.name, without=grant.holder)
        stand.due = self._clock() + expires + _random.uniform(0, JITTER)

    def _on_released(self, payload: dict[str, Any]) -> None:
        leaver = payload["node"] if payload.get("leaving") else ""
        heirs = payload.get("heirs", {})
        now = self._clock()
        for name in payload["names"]:
            stand = self._stands.get(name)
            if stand:
                stand.holder = ""
                stand.woken = now
                stand.due = now + self._hold_back(name, without=leaver, first=heirs.get(name, ""))
        self._due.set()

    # Leading

    def _drop(self, lease: Lease, why: str) -> bool:
        if self._held.get(lease.name) is not lease:
            return False
        del self._held[lease.name]
        self._ends.pop(lease.name, None)
        lease.ended = why
        return True

    async def _renew_loop(self) -> None:
        while True:
            await asyncio.sleep(renewal_period(self.ttl))
            for chunk in _chunks(list(self._held.values())):
                self._spawn(self._renew(chunk))

    async def _renew(self, leases: Sequence[Lease]) -> None:
        sent = self._clock()
        answers = await self._run_all(LeaseRenew(s.topic, s.session, s.token, self.ttl) for s in leases)
        for lease, answer in zip(leases, answers, strict=True):
            if answer is True:
                lease.renewed(sent)
            elif answer is False:
                self.lose(lease, "the store says that it is no longer ours")

    async def _guard_loop(self) -> None:
        while True:
            now = self._clock()
            for lease in [lease for lease in self._held.values() if lease.deadline <= now]:
                self.lose(lease, f"not renewed for {SAFE * self.ttl:.1f} s")
            first = min((lease.deadline for lease in self._held.values()), default=None)
            if first is None:
                self._guard.clear()
                await self._guard.wait()
            else:
                await asyncio.sleep(max(first - now, 0.001))

    def _on_wanted(self, payload: dict[str, Any]) -> None:
        asking = payload["node"]
        fair = (len(self._held) + len(self._stands)) / max(len(set(self._nodes()) | {self._bus.id}), 1)
        excess = len(self._held) - sum(1 for lease in self._held.values() if lease.heir) - fair
        for name in payload["names"]:
            lease = self._held.get(name)
            if excess > 1 and lease and not lease.heir and asking != self._bus.id:
                lease.heir = asking
                self._ends[name](lease)
                excess -= 1

    async def _give_up(self, leases: Sequence[Lease], leaving: bool = False) -> None:
        for chunk in _chunks(leases):
            await self._run_all(LeaseRelease(lease.topic, lease.session, lease.token) for lease in chunk)
            heirs = {lease.name: lease.heir for lease in chunk if lease.heir}
            names = [lease.name for lease in chunk]
            await self._broadcast(
                "lease-released", {"node": self._bus.id, "leaving": leaving, "names": names, "heirs": heirs}
            )

    # Talking

    async def _run_all(self, commands: Iterable[Command[T]]) -> list[T | BaseException]:
        """Commands of one turn leave in one write; what the engine refuses is returned in its place."""
        answers = await asyncio.gather(*(self._bus.run(command) for command in commands), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, LiveChannelsError):
                logger.error("%s: a lease command failed", self._bus.id, exc_info=answer)
                break
        return answers

    async def _broadcast(self, kind: str, payload: dict[str, Any]) -> None:
        try:
            await self._bus.broadcast(kind, payload)
        except EngineUnavailable:
            logger.debug("%s: could not broadcast %s", self._bus.id, kind)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _chunks(items: Sequence[S]) -> Iterator[Sequence[S]]:
    return (items[i : i + CHUNK] for i in range(0, len(items), CHUNK))


# Who goes first: rendezvous hashing gives every name an order of nodes, the same on every node without asking
# anybody, and when a node comes or goes only the names it wins or held move.


def rank(node: str, nodes: Iterable[str], name: str) -> int:
    """How many of `nodes` go before `node`; it need not be one of them."""
    own = (_weight(node, name), node)
    return sum(1 for other in set(nodes) if other != node and (_weight(other, name), other) < own)


def wait(rank: int) -> float:
    """Seconds a node of this rank holds back so that a better one comes first. Bounded: the better may be dead."""
    return min(rank, MOST_STEPS) * STEP


def _weight(node: str, name: str) -> bytes:
    return blake2b(f"{node}\0{name}".encode(), digest_size=8).digest()
