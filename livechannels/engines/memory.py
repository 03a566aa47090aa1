"""The engine without Redis: one process, every thread and loop of it.

`Store` holds the data and runs commands; `MemoryEngine` shares it between loops. The same contract
suite runs over this engine and Redis, so tests on this one mean something for the other.
"""

from __future__ import annotations

import asyncio
import random
import string
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from ..exceptions import LeaseLost
from ..messages.positions import Beginning, Entry, Position, Slice
from . import base

T = TypeVar("T")

IDEMPOTENCY_WINDOW = 300.0
SWEEP_EVERY = 30.0
_random = random.SystemRandom()


def new_epoch() -> str:
    return "".join(_random.choices(string.ascii_letters, k=8))


@dataclass(slots=True)
class _Topic:
    """A topic's position record and entries. Times are `time.monotonic` seconds, entry times wall milliseconds."""

    epoch: str
    offset: int = 0
    entries: deque[Entry] = field(default_factory=deque)
    expires: float = 0
    gone: float = 0


@dataclass(slots=True)
class _Lease:
    token: int
    session: str
    holder: str
    expires: float
    since: float


class Store:
    """The data of the memory engine. Not thread-safe by itself: the engine holds the lock."""

    def __init__(self, deliver: Callable[[str, Position | None, int, bytes], None]) -> None:
        self._deliver = deliver
        self._topics: dict[str, _Topic] = {}
        self._repeats: dict[tuple[str, str], tuple[float, base.Published]] = {}
        self._queues: dict[str, deque[tuple[float, bytes]]] = {}
        self._plain: dict[str, dict[str, float]] = {}
        self._rosters: dict[str, dict[str, tuple[float, bytes]]] = {}
        self._leases: dict[str, _Lease] = {}
        self._token = 0  # of all leases, so that one forgotten need not be remembered for its token
        self._swept = time.monotonic()
        self._commands: dict[type[Any], Callable[[Any], Any]] = {
            base.Publish: self._publish,
            base.Read: self._read,
            base.Positions: self._positions,
            base.Trim: self._trim,
            base.QueuePush: self._queue_push,
            base.QueuePop: self._queue_pop,
            base.QueueReturn: self._queue_return,
            base.PlainAdd: self._plain_add,
            base.PlainDrop: self._plain_drop,
            base.RosterSet: self._roster_set,
            base.RosterDrop: self._roster_drop,
            base.RosterGet: self._roster_get,
            base.LeaseAcquire: self._lease_acquire,
            base.LeaseRenew: self._lease_renew,
            base.LeaseRelease: self._lease_release,
            base.LeaseGet: self._lease_get,
            base.Flush: self._flush,
        }

    def run(self, command: base.Command[T]) -> T:
        return cast(T, self._commands[type(command)](command))

    # Topics

    def _topic(self, name: str, now: float) -> _Topic | None:
        topic = self._topics.get(name)
        if topic is not None and topic.gone and topic.gone <= now:
            del self._topics[name]
            return None
        if topic is not None and topic.expires <= now:
            topic.entries.clear()
        return topic

    def _publish(self, command: base.Publish) -> base.Published:
        now = time.monotonic()
        self._sweep(now)
        if command.fence is not None:
            lease = self._lease(command.topic)
            if lease is None or (lease.session, lease.token) != command.fence:
                raise LeaseLost
        if command.key is not None:
            kept = self._repeats.get((command.topic, command.key))
            if kept is not None and kept[0] > now:
                return kept[1]._replace(repeated=True)
        wall = int(time.time() * 1000)
        position = None
        if command.retention is not None:
            size, ttl, meta_ttl = command.retention
            topic = self._topic(command.topic, now) or self._topics.setdefault(command.topic, _Topic(new_epoch()))
            topic.offset += 1
            topic.entries.append(Entry(topic.offset, wall, command.body))
            while len(topic.entries) > size:
                topic.entries.popleft()
            topic.expires = now + ttl
            topic.gone = max(topic.gone, now + max(meta_ttl, ttl))
            if command.byte_limit:
                self._cut(topic, command.byte_limit)
            position = Position(topic.epoch, topic.offset)
        plain = self._plain.get(command.topic)
        members = [channel for channel, until in plain.items() if until > now] if plain else []
        published = base.Published(position, members)
        if command.key is not None:
            self._repeats[command.topic, command.key] = (now + IDEMPOTENCY_WINDOW, published)
        self._deliver(command.topic, position, wall, command.body)
        return published

    @staticmethod
    def _cut(topic: _Topic, limit: int) -> None:
        held = sum(len(entry.body) for entry in topic.entries)
        while held > limit and len(topic.entries) > 1:
            held -= len(topic.entries.popleft().body)

    def _read(self, command: base.Read) -> Slice:
        now = time.monotonic()
        topic = self._topic(command.topic, now)
        if topic is None:
            if not command.create:
                return Slice(Position("", 0), (), [])
            topic = self._topics[command.topic] = _Topic(new_epoch(), gone=now + max(command.renew, 60))
        if command.renew:
            topic.gone = max(topic.gone, now + command.renew)
        since = command.since.offset
        if command.reverse:
            entries = [entry for entry in reversed(topic.entries) if not since or entry.offset < since]
        else:
            entries = [entry for entry in topic.entries if entry.offset > since]
        if command.max_age:
            oldest = time.time() * 1000 - command.max_age * 1000
            entries = [entry for entry in entries if entry.time >= oldest]
        if command.limit >= 0:
            del entries[command.limit :]
        return Slice(Position(topic.epoch, topic.offset), (Beginning(topic.epoch, 0),), entries)

    def _positions(self, command: base.Positions) -> list[Position]:
        found = [self._read(base.Read(topic, limit=0, renew=command.renew)) for topic in command.topics]
        return [one.position for one in found]

    def _trim(self, command: base.Trim) -> None:
        topic = self._topics.get(command.topic)
        if topic is not None and command.epoch not in ("", topic.epoch):
            return
        while topic is not None and topic.entries and topic.entries[0].offset <= command.offset:
            topic.entries.popleft()

    def _sweep(self, now: float) -> None:
        if now < self._swept + SWEEP_EVERY:
            return
        self._swept = now
        for name in [name for name, topic in self._topics.items() if topic.gone and topic.gone <= now]:
            del self._topics[name]
        for key in [key for key, (until, _) in self._repeats.items() if until <= now]:
            del self._repeats[key]
        for name in list(self._leases):
            self._lease(name)

    # Queues of plain channels

    def _queue(self, name: str) -> deque[tuple[float, bytes]]:
        items = self._queues.setdefault(name, deque())
        now = time.monotonic()
        if any(until <= now for until, _ in items):
            fresh = [item for item in items if item[0] > now]
            items.clear()
            items.extend(fresh)
        return items

    def _queue_push(self, command: base.QueuePush) -> bool:
        items = self._queue(command.topic)
        if len(items) >= command.capacity:
            return False
        items.append((time.monotonic() + command.expiry, command.body))
        self._deliver(command.topic, None, 0, b"")
        return True

    def _queue_pop(self, command: base.QueuePop) -> list[bytes]:
        items = self._queue(command.topic)
        found = [items.popleft()[1] for _ in range(min(command.limit, len(items)))]
        if not items:
            self._queues.pop(command.topic, None)
        return found

    def _queue_return(self, command: base.QueueReturn) -> None:
        items = self._queue(command.topic)
        until = time.monotonic() + command.expiry
        items.extendleft((until, body) for body in reversed(command.bodies))
        self._deliver(command.topic, None, 0, b"")

    # Plain members of groups, rosters

    def _plain_add(self, command: base.PlainAdd) -> None:
        self._plain.setdefault(command.topic, {})[command.channel] = time.monotonic() + command.ttl

    def _plain_drop(self, command: base.PlainDrop) -> None:
        members = self._plain.get(command.topic, {})
        members.pop(command.channel, None)
        if not members:
            self._plain.pop(command.topic, None)

    def _roster(self, name: str) -> dict[str, tuple[float, bytes]]:
        roster, now = self._rosters.get(name, {}), time.monotonic()
        for member in [member for member, (until, _) in roster.items() if until <= now]:
            del roster[member]
        if not roster:
            self._rosters.pop(name, None)
        return roster

    def _roster_set(self, command: base.RosterSet) -> bool:
        roster = self._roster(command.topic)
        new = command.member not in roster
        roster[command.member] = (time.monotonic() + command.ttl, command.value)
        self._rosters[command.topic] = roster
        return new

    def _roster_drop(self, command: base.RosterDrop) -> bool:
        found = self._roster(command.topic).pop(command.member, None) is not None
        self._roster(command.topic)
        return found

    def _roster_get(self, command: base.RosterGet) -> dict[str, bytes]:
        return {member: value for member, (_, value) in self._roster(command.topic).items()}

    # Leases

    def _lease(self, topic: str) -> _Lease | None:
        lease = self._leases.get(topic)
        if lease is not None and lease.expires <= time.monotonic():
            del self._leases[topic]
            return None
        return lease

    def _lease_acquire(self, command: base.LeaseAcquire) -> base.Grant:
        now = time.monotonic()
        self._sweep(now)
        lease = self._lease(command.topic)
        if lease is None:
            self._token = max(self._token + 1, int(time.time() * 1_000_000))
            lease = self._leases[command.topic] = _Lease(self._token, command.session, "", 0, time.time())
        if lease.session != command.session:
            return base.Grant(None, lease.holder, lease.session, lease.expires - now, lease.since)
        lease.holder, lease.expires = command.holder, now + command.ttl
        return base.Grant(lease.token, lease.holder, lease.session, command.ttl, lease.since)

    def _held(self, command: base.LeaseRenew | base.LeaseRelease) -> _Lease | None:
        lease = self._lease(command.topic)
        held = lease is not None and (lease.session, lease.token) == (command.session, command.token)
        return lease if held else None

    def _lease_renew(self, command: base.LeaseRenew) -> bool:
        lease = self._held(command)
        if lease is not None:
            lease.expires = time.monotonic() + command.ttl
        return lease is not None

    def _lease_release(self, command: base.LeaseRelease) -> bool:
        held = self._held(command) is not None
        if held:
            del self._leases[command.topic]
        return held

    def _lease_get(self, command: base.LeaseGet) -> base.Grant | None:
        lease = self._lease(command.topic)
        if lease is None:
            return None
        return base.Grant(lease.token, lease.holder, lease.session, lease.expires - time.monotonic(), lease.since)

    def _flush(self, command: base.Flush) -> None:
        for name in [name for name in self._topics if name.startswith(("g/", "n/"))]:
            self._topics[name].entries.clear()
        self._queues.clear()
        self._plain.clear()


class MemoryEngine:
    """A store in this process; loops and threads share it under one lock that is never held across a wait."""

    name = "memory"

    def __init__(self, prefix: str = "asgi") -> None:
        self.prefix = prefix
        self._lock = threading.RLock()
        self._ports: dict[str, set[MemoryPort]] = {}
        self._store = Store(self._deliver)

    def _deliver(self, topic: str, position: Position | None, time: int, body: bytes) -> None:
        for port in tuple(self._ports.get(topic, ())):
            port.enqueue(topic, position, time, body)

    def port(self, listener: base.Listener, node: str) -> MemoryPort:
        return MemoryPort(self, listener)

    def run_sync(self, command: base.Command[T]) -> T:
        with self._lock:
            return self._store.run(command)

    async def run_detached(self, command: base.Command[T]) -> T:
        return self.run_sync(command)

    async def close_loop(self) -> None:
        """Nothing is kept for a loop."""

    def close(self) -> None:
        """Nothing to close."""

    def describe(self) -> dict[str, Any]:
        return {"engine": "memory", "prefix": self.prefix}

    def attach(self, topic: str, port: MemoryPort) -> None:
        with self._lock:
            self._ports.setdefault(topic, set()).add(port)

    def detach(self, topic: str, port: MemoryPort) -> None:
        with self._lock:
            ports = self._ports.get(topic, set())
            ports.discard(port)
            if not ports:
                self._ports.pop(topic, None)


class MemoryPort:
    """The memory engine as one event loop sees it: messages arrive on that loop, in order."""

    def __init__(self, engine: MemoryEngine, listener: base.Listener) -> None:
        self.health = base.Health(True, time.time(), "in memory")
        self._engine = engine
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._topics: set[str] = set()
        self._arrived: deque[tuple[str, Position | None, int, bytes]] = deque()
        self._scheduled = False

    def enqueue(self, topic: str, position: Position | None, time: int, body: bytes) -> None:
        self._arrived.append((topic, position, time, body))
        if not self._scheduled:
            self._scheduled = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop was closed without goodbye: this port is dead
                for name in list(self._topics):
                    self._engine.detach(name, self)

    def _drain(self) -> None:
        self._scheduled = False
        while self._arrived:
            self._listener.on_message(*self._arrived.popleft())

    async def run(self, command: base.Command[T]) -> T:
        return self._engine.run_sync(command)

    async def subscribe(self, *topics: str) -> None:
        for topic in topics:
            self._topics.add(topic)
            self._engine.attach(topic, self)

    def shard(self, topic: str) -> int:
        return 0

    def unsubscribe(self, *topics: str) -> None:
        for topic in topics:
            self._topics.discard(topic)
            self._engine.detach(topic, self)

    async def close(self) -> None:
        self.unsubscribe(*self._topics)
