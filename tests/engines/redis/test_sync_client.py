"""Redis for blocking callers: however many addresses accept and never answer, a call ends in time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from livechannels.engines import options
from livechannels.engines.base import Flush, Positions, Publish, QueuePop, QueuePush, Read, Retention
from livechannels.engines.redis import RedisEngine
from livechannels.exceptions import EngineUnavailable
from livechannels.messages import topics
from tests.conftest import SERVER_7, start_or_skip
from tests.faults.proxy import FaultProxy
from tests.servers import RedisServer
from tests.topologies import Cluster, SentinelSet

KEEP = Retention(100, 60, 120)
GROUP = topics.group("room")
PROMISED = 2.0
SLACK = 0.5  # of a busy machine, in deciding that the time is over


@contextlib.contextmanager
def silent(count: int) -> Iterator[list[str]]:
    """Addresses that accept connections and never answer."""
    with contextlib.ExitStack() as stack:
        listening = []
        for _ in range(count):
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
            listening.append(f"127.0.0.1:{server.getsockname()[1]}")
        yield listening


SHAPES = {
    "single": (1, "redis://{}/0"),
    "sentinel": (5, "redis+sentinel://{}/mymaster/0"),
    "cluster": (5, "redis+cluster://{}"),
}


@pytest.fixture(params=SHAPES)
def hanging(request: pytest.FixtureRequest, prefix: str) -> Iterator[RedisEngine]:
    count, url = SHAPES[request.param]
    with silent(count) as addresses:
        engine = RedisEngine(options.parse({"hosts": [url.format(",".join(addresses))], "prefix": prefix}))
        yield engine
        engine.close()


@contextlib.contextmanager
def refused_in_time() -> Iterator[None]:
    begun = time.monotonic()
    with pytest.raises(EngineUnavailable):
        yield
    assert time.monotonic() - begun < PROMISED + SLACK


def test_a_sync_call_ends_in_time(hanging: RedisEngine) -> None:
    for _ in range(2):
        with refused_in_time():
            hanging.run_sync(Publish(GROUP, b"x", KEEP))


async def test_a_call_from_a_passing_loop_ends_in_time(hanging: RedisEngine) -> None:
    with refused_in_time():
        await hanging.run_detached(Publish(GROUP, b"x", KEEP))


async def test_so_does_one_that_waits_behind_another(hanging: RedisEngine) -> None:
    first = asyncio.ensure_future(hanging.run_detached(Publish(GROUP, b"x", KEEP)))
    await asyncio.sleep(0.3)
    with refused_in_time():
        await hanging.run_detached(Publish(GROUP, b"x", KEEP))
    await asyncio.gather(first, return_exceptions=True)


def test_and_many_threads_at_once(hanging: RedisEngine) -> None:
    took: list[float] = []

    def call() -> None:
        begun = time.monotonic()
        with contextlib.suppress(EngineUnavailable):
            hanging.run_sync(Publish(GROUP, b"x", KEEP))
        took.append(time.monotonic() - begun)

    threads = [threading.Thread(target=call) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(took) == 5
    assert max(took) < PROMISED + SLACK


def test_a_server_that_falls_asleep(own_redis: RedisServer, prefix: str) -> None:
    engine = RedisEngine(options.parse({"hosts": [own_redis.url], "prefix": prefix}))
    engine.run_sync(Publish(GROUP, b"x", KEEP))
    own_redis.freeze()
    try:
        with refused_in_time():
            engine.run_sync(Publish(GROUP, b"y", KEEP))
    finally:
        own_redis.thaw()
        engine.close()


def test_behind_silent_sentinels_one_that_answers_is_found(prefix: str) -> None:
    with SentinelSet() as topology, silent(2) as addresses:
        hosts = ",".join([*addresses, topology.sentinels[0].address])
        engine = RedisEngine(options.parse({"hosts": [f"redis+sentinel://{hosts}/mymaster/0"], "prefix": prefix}))
        assert engine.run_sync(Publish(GROUP, b"x", KEEP)).position is not None
        engine.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(SERVER_7) as cluster:
        yield cluster


class TestCluster:
    @pytest.fixture
    def engine(self, cluster: Cluster, prefix: str) -> Iterator[RedisEngine]:
        engine = RedisEngine(options.parse({"hosts": [cluster.url], "prefix": prefix}))
        yield engine
        engine.close()

    def test_commands_find_their_masters(self, engine: RedisEngine) -> None:
        groups = [topics.group(f"room-{number}") for number in range(30)]
        placed = [engine.run_sync(Publish(group, b"x", KEEP)).position for group in groups]
        assert engine.run_sync(Positions(groups[0], groups)) == placed
        assert [len(engine.run_sync(Read(group)).entries) for group in groups] == [1] * 30

    def test_a_batch_on_one_connection(self, engine: RedisEngine) -> None:
        published = engine.run_sync(Publish(GROUP, b"x", KEEP, replicate=0.1))
        assert published.replicas is not None

    def test_flush_reaches_all_masters(self, engine: RedisEngine, cluster: Cluster, prefix: str) -> None:
        for number in range(30):
            engine.run_sync(QueuePush(topics.queue(f"jobs-{number}"), b"x", 10, 60))
        engine.run_sync(Flush())
        assert [key for node in cluster.nodes for key in node.command("KEYS", f"{prefix}:*")] == []

    def test_a_slot_that_moved_is_followed(self, engine: RedisEngine, cluster: Cluster) -> None:
        queue = topics.queue("moving")
        engine.run_sync(QueuePush(queue, b"x", 10, 60))
        cluster.move_slot_of("moving")
        assert engine.run_sync(QueuePop(queue)) == [b"x"]


def test_blocking_callers_leave_a_master_that_was_demoted_behind_its_address(prefix: str) -> None:
    """As behind a balancer or a virtual address: connections stay where they are, new ones reach the new master."""
    with contextlib.ExitStack() as stack:
        old, new = (start_or_skip(SERVER_7) for _ in range(2))
        stack.callback(old.stop)
        stack.callback(new.stop)
        proxy = stack.enter_context(FaultProxy(old.port))
        engine = RedisEngine(options.parse({"hosts": [proxy.url], "prefix": prefix}))
        stack.callback(engine.close)
        engine.run_sync(Publish(GROUP, b"before", KEEP))
        old.command("REPLICAOF", "127.0.0.1", str(new.port))
        proxy.lead_to(new.port, cut=False)
        for _ in range(3):
            engine.run_sync(Publish(GROUP, b"after", KEEP))
        proxy.lead_to(old.port, cut=False)
        old.command("REPLICAOF", "NO", "ONE")
        new.command("REPLICAOF", "127.0.0.1", str(old.port))
        engine.run_sync(Publish(GROUP, b"and back", KEEP))
