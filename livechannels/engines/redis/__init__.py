"""The engine on Redis: one node, Sentinel, Cluster, or several hosts that share the topics between them."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from ...messages.positions import Position
from ..base import Command, Flush, Listener, Publish
from ..options import Options
from .keys import Keys
from .operations import Operations
from .port import RedisPort, shard_of
from .sync_client import BlockingShard, Outlet, drive

T = TypeVar("T")

__all__ = ["RedisEngine"]


STAYS_AFTER = 0.5
STAYS_CALLS = 10


class _Deaf:
    """Listens to nothing."""

    def on_message(self, topic: str, position: Position | None, time: int, body: bytes, id: bytes = b"") -> None: ...

    def on_interrupted(self) -> None: ...

    def on_resumed(self, topics: list[str]) -> None: ...


class _Sender:
    """One loop: when it first sent, how often, and its port once it has one."""

    __slots__ = ("calls", "port", "since", "up")

    def __init__(self) -> None:
        self.calls = 0
        self.since = time.monotonic()
        self.port: Callable[[], RedisPort | None] = _none
        self.up = False


def _none() -> None:
    return None


class Senders:
    """The loops of a process that only send. A port is kept by its loop alone: what ends the loop ends its connections.

    Most pass: `async_to_sync` and `asyncio.run` make one for a call or two, and a connection for each would be wasted.
    One that still sends after a while belongs to a process that lives by sending; with a port of its own, all that it
    sends in one turn leaves in one write.
    """

    def __init__(self, open_port: Callable[[Listener], RedisPort]) -> None:
        self._open = open_port
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Sender] = weakref.WeakKeyDictionary()

    def port(self) -> RedisPort | None:
        """The running loop's own port, once it stands; each call counts."""
        loop = asyncio.get_running_loop()
        sender = self._loops.get(loop)
        if sender is None:
            sender = self._loops[loop] = _Sender()
        port = sender.port()
        if port is None or port.ended:
            sender.calls += 1
            if sender.calls >= STAYS_CALLS and time.monotonic() - sender.since >= STAYS_AFTER:
                sender.up = False
                sender.port = weakref.ref(self._open(_Deaf()))
            return None
        if not sender.up:
            sender.up = port.health.ok
        return port if sender.up else None

    def give_up(self) -> RedisPort | None:
        """Hand the running loop's port to the caller, to use or to close; the loop begins anew."""
        sender = self._loops.pop(asyncio.get_running_loop(), None)
        return sender.port() if sender is not None else None


class RedisEngine:
    """Shared by all loops and threads of a process; connects when first used."""

    name = "redis"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._operations = tuple(
            Operations(Keys(options.prefix, host.db), "SPUBLISH" if host.kind == "cluster" else "PUBLISH")
            for host in options.hosts
        )
        self._blocking = [BlockingShard(*pair) for pair in zip(self._options.hosts, self._operations, strict=True)]
        self._outlet = Outlet()
        self._senders = Senders(self._open)

    def port(self, listener: Listener, node: str) -> RedisPort:
        own = self._senders.give_up()
        if own is None or own.ended:
            return self._open(listener)
        own.listener = listener
        return own

    def _open(self, listener: Listener) -> RedisPort:
        return RedisPort(self._options.hosts, self._operations, listener, self)

    async def run_detached(self, command: Command[T]) -> T:
        if not (isinstance(command, Publish) and command.replicate) and (own := self._senders.port()) is not None:
            return await own.run(command)
        return await self._outlet.run(lambda until: self._run_blocking(command, until))

    async def close_loop(self) -> None:
        own = self._senders.give_up()
        if own is not None:
            await own.close()

    def run_sync(self, command: Command[T]) -> T:
        return self._run_blocking(command)

    def _run_blocking(self, command: Command[T], until: float | None = None) -> T:
        if isinstance(command, Flush):
            for shard in self._blocking:
                for part in shard.parts():
                    drive(part, command)
            return None  # type: ignore[return-value]
        return drive(self._blocking[shard_of(command.topic, len(self._blocking))], command, until)

    def close(self) -> None:
        for shard in self._blocking:
            shard.close()

    def describe(self) -> dict[str, Any]:
        return {"engine": "redis", "prefix": self._options.prefix, "hosts": [str(host) for host in self._options.hosts]}
