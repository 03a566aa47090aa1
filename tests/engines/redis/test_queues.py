"""Queues in Redis where answers are lost: what was asked once is done once."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from livechannels.engines import options
from livechannels.engines.base import Command, Flush, Port, QueuePop, QueuePush, QueueReturn, Turn
from livechannels.engines.redis import RedisEngine
from livechannels.exceptions import EngineUnavailable
from livechannels.layer import LiveChannelLayer
from livechannels.messages import topics
from tests.engines.conftest import Recorder
from tests.faults.proxy import FaultProxy
from tests.servers import RedisServer, wait_until

QUEUE = topics.queue("jobs")
OTHER = topics.queue("other")


@pytest.fixture
def proxy(redis_server: RedisServer, redis_url: str) -> Iterator[FaultProxy]:
    with FaultProxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def engine(proxy: FaultProxy, prefix: str) -> Iterator[RedisEngine]:
    engine = RedisEngine(options.parse({"hosts": [proxy.url], "prefix": prefix}))
    yield engine
    engine.close()


@pytest.fixture
async def port(engine: RedisEngine) -> AsyncIterator[Port]:
    heard = Recorder()
    port = engine.port(heard, "node")
    await heard.until(lambda: heard.resumed, "the first connection")
    # Scripts the server does not know yet would be sent a second time.
    await port.run(QueuePush(OTHER, b"x", 100, 60))
    await port.run(QueueReturn(OTHER, await port.run(QueuePop(OTHER)), 60))
    yield port
    await port.close()


@pytest.fixture
def direct(redis_url: str, prefix: str) -> Iterator[RedisEngine]:
    """The same queue by a way on which nothing happens."""
    engine = RedisEngine(options.parse({"hosts": [redis_url], "prefix": prefix}))
    yield engine
    engine.close()


def length(server: RedisServer, prefix: str) -> int:
    return int(server.command("LLEN", f"{prefix}:lc1:{{{QUEUE}}}:q"))


async def losing_the_answer(port: Port, command: Command[Any], proxy: FaultProxy, carried_out: Any) -> Any:
    """Run a command whose answer never comes, though the server has carried it out."""
    proxy.stall("down")
    answer = asyncio.ensure_future(port.run(command))
    await asyncio.to_thread(wait_until, carried_out, "carried out", 0.9)
    proxy.reset()
    proxy.heal()
    return await answer


async def test_what_a_lost_answer_held_is_handed_out_again(
    port: Port, direct: RedisEngine, proxy: FaultProxy, redis_server: RedisServer, prefix: str
) -> None:
    for number in range(5):
        direct.run_sync(QueuePush(QUEUE, b"%d" % number, 100, 60))
    pop = QueuePop(QUEUE, 3)
    assert await losing_the_answer(port, pop, proxy, lambda: length(redis_server, prefix) == 2) == [b"0", b"1", b"2"]
    assert direct.run_sync(QueuePop(QUEUE, 10)) == [b"3", b"4"]


async def test_a_push_is_stored_once(
    port: Port, direct: RedisEngine, proxy: FaultProxy, redis_server: RedisServer, prefix: str
) -> None:
    push = QueuePush(QUEUE, b"x", 1, 60)
    assert await losing_the_answer(port, push, proxy, lambda: length(redis_server, prefix) == 1) is True
    assert direct.run_sync(QueuePop(QUEUE, 10)) == [b"x"]


async def test_a_return_puts_back_once(
    port: Port, direct: RedisEngine, proxy: FaultProxy, redis_server: RedisServer, prefix: str
) -> None:
    back = QueueReturn(QUEUE, [b"a", b"b"], 60)
    await losing_the_answer(port, back, proxy, lambda: length(redis_server, prefix) == 2)
    assert direct.run_sync(QueuePop(QUEUE, 10)) == [b"a", b"b"]


def test_sync_callers_ask_again_too(
    engine: RedisEngine, direct: RedisEngine, proxy: FaultProxy, redis_server: RedisServer, prefix: str
) -> None:
    engine.run_sync(QueuePush(QUEUE, b"first", 100, 60))
    loop = asyncio.new_event_loop()
    try:
        taken = loop.run_until_complete(
            losing_the_answer(
                _Detached(engine), QueuePush(QUEUE, b"x", 100, 60), proxy, lambda: length(redis_server, prefix) == 2
            )
        )
    finally:
        loop.close()
    assert taken is True
    assert direct.run_sync(QueuePop(QUEUE, 10)) == [b"first", b"x"]


class _Detached:
    """What a loop without a connection of its own has for a port."""

    def __init__(self, engine: RedisEngine) -> None:
        self.run = engine.run_detached


class TestTurns:
    """The server's side, request by request."""

    def fill(self, engine: RedisEngine, count: int) -> None:
        for number in range(count):
            engine.run_sync(QueuePush(QUEUE, b"%d" % number, 100, 60))

    def test_the_same_turn_puts_back_and_takes_anew(self, direct: RedisEngine) -> None:
        self.fill(direct, 4)
        assert direct.run_sync(QueuePop(QUEUE, 2, Turn("r", 1))) == [b"0", b"1"]
        assert direct.run_sync(QueuePop(QUEUE, 3, Turn("r", 1))) == [b"0", b"1", b"2"]
        assert direct.run_sync(QueuePop(QUEUE, 0, Turn("r", 1))) == []
        assert direct.run_sync(QueuePop(QUEUE, 9, Turn("another", 1))) == [b"0", b"1", b"2", b"3"]

    def test_a_turn_that_is_over_takes_nothing(self, direct: RedisEngine) -> None:
        self.fill(direct, 2)
        assert direct.run_sync(QueuePop(QUEUE, 1, Turn("r", 1))) == [b"0"]
        assert direct.run_sync(QueuePop(QUEUE, 1, Turn("r", 2))) == [b"1"]
        assert direct.run_sync(QueuePop(QUEUE, 1, Turn("r", 3))) == []
        self.fill(direct, 1)
        assert direct.run_sync(QueuePop(QUEUE, 1, Turn("r", 2))) == []
        assert direct.run_sync(QueuePop(QUEUE, 1, Turn("r", 4))) == [b"0"]

    def test_after_a_return_the_turn_before_it_is_over(self, direct: RedisEngine) -> None:
        self.fill(direct, 2)
        taken = direct.run_sync(QueuePop(QUEUE, 2, Turn("r", 1)))
        for _ in range(2):
            direct.run_sync(QueueReturn(QUEUE, taken, 60, Turn("r", 2)))
        assert direct.run_sync(QueuePop(QUEUE, 9, Turn("another", 1))) == [b"0", b"1"]
        assert direct.run_sync(QueuePop(QUEUE, 9, Turn("r", 1))) == []

    def test_what_was_put_back_expires_like_before(
        self, direct: RedisEngine, redis_server: RedisServer, prefix: str
    ) -> None:
        direct.run_sync(QueuePush(QUEUE, b"x", 100, 30))
        direct.run_sync(QueuePop(QUEUE, 1, Turn("r", 1)))
        direct.run_sync(QueuePop(QUEUE, 0, Turn("r", 1)))
        assert 20_000 < redis_server.command("PTTL", f"{prefix}:lc1:{{{QUEUE}}}:q") <= 30_000

    def test_readers_empty_a_queue_while_memory_is_short(self, direct: RedisEngine, redis_server: RedisServer) -> None:
        self.fill(direct, 2)
        redis_server.command("CONFIG", "SET", "maxmemory", "1")
        try:
            assert direct.run_sync(QueuePop(QUEUE, 1, Turn("r", 1))) == [b"0"]
            assert direct.run_sync(QueuePop(QUEUE, 9, Turn("r", 2))) == [b"1"]
            assert direct.run_sync(QueuePop(QUEUE, 9, Turn("r", 3))) == []
        finally:
            redis_server.command("CONFIG", "SET", "maxmemory", "0")

    def test_flush_forgets_what_was_handed_out(
        self, direct: RedisEngine, redis_server: RedisServer, prefix: str
    ) -> None:
        self.fill(direct, 2)
        direct.run_sync(QueuePop(QUEUE, 1, Turn("r", 1)))
        direct.run_sync(Flush())
        assert direct.run_sync(QueuePop(QUEUE, 1, Turn("r", 1))) == []
        direct.run_sync(Flush())
        assert redis_server.command("KEYS", f"{prefix}:*") == []


async def test_each_message_goes_to_exactly_one_over_killed_connections(
    proxy: FaultProxy, direct: RedisEngine, prefix: str
) -> None:
    """Four workers on two nodes, whose connections are cut with requests under way, and readers given up at random."""
    count = 600
    layers = [LiveChannelLayer(hosts=[proxy.url], prefix=prefix) for _ in range(2)]
    codec = layers[0].codec
    seen: collections.Counter[int] = collections.Counter()
    everything = asyncio.Event()

    async def work(layer: LiveChannelLayer, patience: float) -> None:
        while True:
            try:
                seen[(await asyncio.wait_for(layer.receive("jobs"), patience))["n"]] += 1
            except TimeoutError:
                pass
            if len(seen) == count:
                everything.set()

    async def send() -> None:
        for number in range(count):
            body = codec.dumps({"type": "job", "n": number})
            await asyncio.to_thread(direct.run_sync, QueuePush(QUEUE, body, count, 60))

    async def cut() -> None:
        for _ in range(12):
            await asyncio.sleep(0.15)
            proxy.stall("down")
            await asyncio.sleep(0.05)
            proxy.reset()
            proxy.heal()

    workers = [asyncio.ensure_future(work(layers[n % 2], 60 if n < 2 else 0.02)) for n in range(4)]
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(send(), cut())
            await everything.wait()
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for layer in layers:
            await layer.close()
    assert seen == collections.Counter(range(count))
    assert direct.run_sync(QueuePop(QUEUE, 10)) == []


async def test_a_sender_over_killed_connections_knows_what_arrived(
    port: Port, proxy: FaultProxy, direct: RedisEngine
) -> None:
    """What was confirmed stands in the queue once; what was not, at most once."""
    sure, count = [], 400

    async def cut() -> None:
        for _ in range(8):
            await asyncio.sleep(0.1)
            proxy.reset()

    async def send() -> None:
        for number in range(count):
            try:
                assert await port.run(QueuePush(QUEUE, b"%d" % number, count, 60)) is True
                sure.append(b"%d" % number)
            except EngineUnavailable:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.002)

    async with asyncio.timeout(60):
        await asyncio.gather(send(), cut())
    found = collections.Counter(direct.run_sync(QueuePop(QUEUE, count)))
    assert max(found.values()) == 1
    assert set(sure) <= set(found)
