"""The engine on Redis: one node, Sentinel, Cluster, or several hosts that share the topics between them."""

from __future__ import annotations

from typing import Any, TypeVar

from ..base import Command, Flush, Listener, Publish
from ..options import Options
from .keys import Keys
from .operations import Operations
from .port import RedisPort, shard_of
from .senders import Senders
from .sync_client import BlockingShard, Outlet, drive

T = TypeVar("T")

__all__ = ["RedisEngine"]


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
