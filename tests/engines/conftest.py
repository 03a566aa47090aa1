"""A store under test: memory, Redis or Valkey, seen through one or several nodes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import pytest

from livechannels.engines.base import Command, Engine, Port
from livechannels.engines.redis import link
from livechannels.engines.redis.wire import StreamWire
from livechannels.positions import Position
from tests.conftest import start_or_skip
from tests.servers import RedisServer


class Message(NamedTuple):
    topic: str
    position: Position | None
    time: int
    body: bytes


class Recorder:
    """A listener that keeps everything it is told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.interruptions = 0
        self.resumed: list[list[str]] = []
        self._changed = asyncio.Event()

    def on_message(self, topic: str, position: Position | None, time: int, body: bytes) -> None:
        self.messages.append(Message(topic, position, time, body))
        self._changed.set()

    def on_interrupted(self) -> None:
        self.interruptions += 1
        self._changed.set()

    def on_resumed(self, topics: list[str]) -> None:
        self.resumed.append(list(topics))
        self._changed.set()

    async def until(self, condition: Any, what: str, timeout: float = 10) -> None:
        async def wait() -> None:
            while not condition():
                self._changed.clear()
                await self._changed.wait()

        try:
            await asyncio.wait_for(wait(), timeout)
        except TimeoutError:
            raise AssertionError(f"{what} did not happen; got {len(self.messages)} messages") from None

    async def received(self, count: int) -> list[Message]:
        await self.until(lambda: len(self.messages) >= count, f"{count} messages")
        return self.messages


class Store:
    """One store, and as many nodes on it as a test wants; `engine()` is what another process would have."""

    def __init__(self, server: RedisServer | None, prefix: str) -> None:
        self.server, self.prefix = server, prefix
        self._memory: Any = None
        self._ports: list[Port] = []
        self._own: Port | None = None

    def engine(self, prefix: str | None = None) -> Engine:
        if self.server is not None:
            from livechannels import options
            from livechannels.engines.redis import RedisEngine

            return RedisEngine(options.parse({"hosts": [self.server.url], "prefix": prefix or self.prefix}))
        from livechannels.engines.memory import MemoryEngine

        if prefix is not None:
            return MemoryEngine(prefix=prefix)
        if self._memory is None:
            self._memory = MemoryEngine(prefix=self.prefix)
        return self._memory

    def port(self, listener: Recorder | None = None, prefix: str | None = None) -> Port:
        port = self.engine(prefix).port(listener or Recorder(), f"node-{uuid.uuid4().hex[:6]}")
        self._ports.append(port)
        return port

    async def run(self, command: Command[Any]) -> Any:
        """Run a command as a node of its own (the same one each time)."""
        if self._own is None:
            self._own = self.port()
        return await self._own.run(command)

    async def close(self) -> None:
        for port in self._ports:
            await port.close()


@pytest.fixture(scope="session")
def contract_servers() -> Iterator[dict[str, RedisServer]]:
    servers: dict[str, RedisServer] = {}
    yield servers
    for server in servers.values():
        server.stop()


@pytest.fixture(params=["memory", "redis", "redis by public methods", "valkey"])
async def store(
    request: pytest.FixtureRequest,
    contract_servers: dict[str, RedisServer],
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Store]:
    """Every engine in turn, and the wire that keeps to redis-py's public methods; the contract knows no differences."""
    server = None
    name, _, wire = request.param.partition(" by ")
    if wire:
        monkeypatch.setattr(link, "wire_class", StreamWire)
    if name != "memory":
        if name not in contract_servers:
            contract_servers[name] = start_or_skip(name)
        server = contract_servers[name]
    store = Store(server, prefix)
    yield store
    await store.close()
