"""The Redis engine as one event loop uses it: commands routed to their shard, messages handed to the listener."""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Awaitable, Iterable
from typing import Any, Protocol, TypeVar

from ... import metrics
from ...exceptions import EngineUnavailable
from ..base import Command, Flush, Health, Listener, Publish
from ..endpoints import Endpoint
from .link import Link
from .operations import Operations, unavailable
from .publishing import parse_message
from .replies import Lost, ReplyError
from .requests import Request

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONFIRM_WITHIN = 2.0
UNKNOWN_FORMAT = metrics.counter("livechannels_unknown_format_total", "Redis messages of an unknown format, skipped.")


def shard_of(topic: str, count: int) -> int:
    """Which of several hosts holds a topic; the same in every process, for every operation on it."""
    return zlib.crc32(topic.encode()) % count if count > 1 else 0


class Shard(Protocol):
    """One Redis, however many servers it is made of."""

    operations: Operations

    @property
    def health(self) -> Health: ...

    async def run(self) -> None: ...

    def call(self, packed: bytes) -> asyncio.Future[Any] | None:
        """Send one packed request now, the short way; None where that is not possible at the moment."""

    def note(self, error: ReplyError) -> None:
        """Hear of an error reply that came by `call`."""

    async def wait_up(self) -> None:
        """Wait until one server has been examined, a bounded time."""

    async def exchange(self, batch: list[Request]) -> list[Any]: ...

    def subscribe(self, names: list[str]) -> asyncio.Future[None] | None:
        """Want these names from now on; a future of the caller's own, done once all are confirmed. None: they are."""

    def unsubscribe(self, names: list[str]) -> None: ...

    def part(self, topic: str) -> int:
        """Which of its servers holds a topic."""

    def parts(self) -> list[Link]: ...


class RedisPort:
    """Made on a loop; its links live until `close` or the end of the loop."""

    def __init__(
        self, endpoints: tuple[Endpoint, ...], operations: tuple[Operations, ...], listener: Listener, engine: Any
    ) -> None:
        self.listener = listener
        self._engine = engine
        self._shards: list[Shard] = [self._make(*pair) for pair in zip(endpoints, operations, strict=True)]
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(shard.run(), name="livechannels-redis-link") for shard in self._shards]

    def _make(self, endpoint: Endpoint, operations: Operations) -> Shard:
        topic = operations.keys.topic

        def on_message(name: str, data: bytes) -> None:
            message = parse_message(data)
            if message is None:
                UNKNOWN_FORMAT.inc()
            else:
                self.listener.on_message(topic(name), *message)

        def on_path(up: bool, names: list[str]) -> None:
            if up:
                self.listener.on_resumed([topic(name) for name in names])
            else:
                self.listener.on_interrupted()

        if endpoint.kind == "cluster":
            from .cluster import ClusterShard

            return ClusterShard(endpoint, operations, on_message=on_message, on_path=on_path)
        return Link(endpoint, operations, on_message=on_message, on_path=on_path)

    @property
    def health(self) -> Health:
        worst = [shard.health for shard in self._shards if not shard.health.ok]
        found = min(worst or [shard.health for shard in self._shards], key=lambda health: health.since)
        rewind = all(shard.operations.compare_replids for shard in self._shards)
        return found._replace(rewind_detection=rewind)

    def _shard(self, topic: str) -> Shard:
        shards = self._shards
        return shards[0] if len(shards) == 1 else shards[shard_of(topic, len(shards))]

    async def run(self, command: Command[T]) -> T:
        """Run a command, once more after a lost answer: doing it twice is doing it once. Two seconds in all."""
        shard, first = self._shard(command.topic), None
        if isinstance(command, Publish):
            if command.replicate:
                return await self._engine.run_detached(command)  # type: ignore[no-any-return]
            packed = shard.operations.packed(command)
            first = shard.call(packed) if packed is not None else None
            if first is not None:
                try:
                    return shard.operations.published(await first)  # type: ignore[return-value]
                except (Lost, ReplyError):
                    pass  # `_drive` meets it again, and knows what to do
        elif isinstance(command, Flush):
            for shard in self._shards:
                for part in shard.parts():
                    await self._drive(part, command)
            return None  # type: ignore[return-value]
        return await self._drive(shard, command, first)

    async def _drive(self, shard: Shard, command: Command[T], first: asyncio.Future[Any] | None = None) -> T:
        """Run a command whose `first` request, if it is given, has left already."""
        if not shard.operations.examined:
            await shard.wait_up()
        operation = shard.operations.make(command)
        batch = next(operation)
        lost_once = False
        if first is None and len(batch) == 1:
            first = shard.call(batch[0].packed())
        while True:
            try:
                try:
                    if first is not None:
                        hurried, first = first, None
                        replies = [await hurried]
                    else:
                        replies = await shard.exchange(batch)
                except ReplyError as error:
                    if error.code != "NOSCRIPT":
                        shard.note(error)
                        raise
                    continue
                except Lost as error:
                    if lost_once:
                        raise
                    lost_once = True
                    if error.sent and isinstance(command, Publish):
                        batch = operation.throw(error)
                    continue
                batch = operation.send(replies)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            except (Lost, ReplyError) as error:
                raise unavailable(error, "Redis") from error

    def shard(self, topic: str) -> int:
        at = shard_of(topic, len(self._shards))
        return at + len(self._shards) * self._shards[at].part(topic)

    def subscribe(self, *topics: str) -> Awaitable[None]:
        return self._confirmed(
            [
                (shard, confirmed)
                for shard, names in self._by_shard(topics)
                if (confirmed := shard.subscribe(names)) is not None
            ],
            time.monotonic() + CONFIRM_WITHIN,
        )

    def unsubscribe(self, *topics: str) -> None:
        for shard, names in self._by_shard(topics):
            shard.unsubscribe(names)

    def _by_shard(self, topics: Iterable[str]) -> list[tuple[Shard, list[str]]]:
        """The pub/sub names of topics, for each shard that has any."""
        found: list[list[str]] = [[] for _ in self._shards]
        for topic in topics:
            at = shard_of(topic, len(self._shards))
            found[at].append(self._shards[at].operations.keys.name(topic))
        return [(shard, names) for shard, names in zip(self._shards, found, strict=True) if names]

    @staticmethod
    async def _confirmed(waiting: list[tuple[Shard, asyncio.Future[None]]], until: float) -> None:
        for shard, confirmed in waiting:
            if not confirmed.done():
                if not shard.health.ok and time.time() - shard.health.since > CONFIRM_WITHIN:
                    raise EngineUnavailable(shard.health.detail)
                late = asyncio.get_running_loop().call_later(until - time.monotonic(), _give_up, confirmed)
                try:
                    await confirmed
                finally:
                    late.cancel()

    @property
    def ended(self) -> bool:
        """Whether it is closed, or its loop's tasks were cancelled."""
        return self._tasks[0].done()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _give_up(confirmed: asyncio.Future[None]) -> None:
    if not confirmed.done():
        confirmed.set_exception(EngineUnavailable(f"Redis did not confirm a subscription in {CONFIRM_WITHIN} s"))
