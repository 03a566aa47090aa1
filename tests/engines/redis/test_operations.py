"""What the Redis engine does that no other engine has to: lost answers, clocks, servers that refuse INFO."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from livechannels.engines import options
from livechannels.engines.base import Fence, LeaseAcquire, PlainAdd, Positions, Publish, Published, Read, Retention
from livechannels.engines.redis import RedisEngine, publishing
from livechannels.engines.redis.keys import Keys
from livechannels.engines.redis.operations import Operations
from livechannels.engines.redis.replies import Lost
from livechannels.engines.redis.sync_client import BlockingShard
from livechannels.exceptions import EngineUnavailable, LeaseLost
from livechannels.messages import topics
from livechannels.messages.positions import Position
from tests.engines.conftest import Recorder
from tests.servers import RedisServer

KEEP = Retention(100, 60, 120)
GROUP = topics.group("room")


@pytest.fixture
def engine(redis_url: str, prefix: str) -> Iterator[RedisEngine]:
    engine = RedisEngine(options.parse({"hosts": [redis_url], "prefix": prefix}))
    yield engine
    engine.close()


def shard_of(engine: RedisEngine) -> BlockingShard:
    return engine._blocking[0]


def publish_losing_the_answer(engine: RedisEngine, command: Publish, *, arrives: bool) -> Published:
    """Run a publish whose answer is lost, after or before the server had it."""
    shard = shard_of(engine)
    operation = shard.operations.make(command)
    batch = next(operation)
    if arrives:
        shard.exchange(batch)
    again = operation.throw(Lost("cut", sent=True))
    try:
        operation.send(shard.exchange(again))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("the operation did not end")


@pytest.mark.parametrize("arrives", [True, False])
def test_after_a_lost_answer_one_message_is_stored_and_plain_members_are_named(
    engine: RedisEngine, arrives: bool
) -> None:
    engine.run_sync(PlainAdd(GROUP, "worker", 60))
    published = publish_losing_the_answer(engine, Publish(GROUP, b"x", KEEP), arrives=arrives)
    assert published.plain == ["worker"]
    assert published.position is not None
    assert published.position.offset == 1
    assert [entry.body for entry in engine.run_sync(Read(GROUP)).entries] == [b"x"]


def test_a_lost_answer_and_a_lost_record_begin_anew(engine: RedisEngine, redis_server: RedisServer) -> None:
    engine.run_sync(Publish(GROUP, b"old", KEEP))
    keys = shard_of(engine).operations.keys
    redis_server.command("DEL", keys.record(GROUP))
    published = publish_losing_the_answer(engine, Publish(GROUP, b"x", KEEP), arrives=False)
    assert published.position is not None
    assert published.position.offset == 1
    assert [entry.body for entry in engine.run_sync(Read(GROUP)).entries] == [b"x"]


def test_a_history_that_a_reader_began_again_has_an_end(engine: RedisEngine, redis_server: RedisServer) -> None:
    """The store was emptied, and for this publisher it is not yet time to renew."""
    for _ in range(2):
        engine.run_sync(Publish(GROUP, b"x", KEEP))
    redis_server.command("FLUSHALL")
    engine.run_sync(Read(GROUP, limit=0, create=True, renew=60))
    assert engine.run_sync(Publish(GROUP, b"x", KEEP)).position == (engine.run_sync(Read(GROUP)).position.epoch, 1)
    assert 0 < redis_server.command("PTTL", shard_of(engine).operations.keys.stream(GROUP)) <= KEEP.ttl * 1000


def test_one_key_on_two_channels_makes_two_publications() -> None:
    first, second, again = (Publish(topic, b"x", KEEP, key="k") for topic in ("l/a", "l/b", "l/a"))
    assert first.id == again.id != second.id and len(first.id) == 11


@pytest.mark.parametrize("key", [None, "once"])
def test_no_name_for_an_epoch_is_sent_twice(engine: RedisEngine, key: str | None) -> None:
    operation = shard_of(engine).operations.make(Publish(GROUP, b"x", KEEP, key=key))
    (first,) = next(operation)
    (again,) = operation.throw(Lost("cut", sent=True))
    names = [request.args[1 + request.args[0] :][publishing.EPOCH_NAME] for request in (first, again)]
    assert [len(name) for name in names] == [10, 10]
    assert names[0] != names[1]
    assert names[0] not in again.args


@pytest.mark.parametrize(
    ("ago", "holds"), [(0, True), (5_000, True), (10_000, False), (11_000, False), (-1_000, False), (None, False)]
)
@pytest.mark.parametrize("key", [None, "once"])
def test_a_fence_holds_from_its_renewal_until_it_expires(
    engine: RedisEngine, redis_server: RedisServer, ago: int | None, holds: bool, key: str | None
) -> None:
    """`ago`: how long before now, by the server's clock, a lease of 10 s was renewed; None: nobody knows."""
    token = engine.run_sync(LeaseAcquire(GROUP, "session", "holder", 10)).token
    assert token
    lease = shard_of(engine).operations.keys.lease(GROUP)
    redis_server.command(*(("PERSIST", lease) if ago is None else ("PEXPIRE", lease, 86_400_000 - ago)))
    fenced = Publish(GROUP, b"x", KEEP, Fence("session", token), key)
    if holds:
        assert engine.run_sync(fenced).position
    else:
        with pytest.raises(LeaseLost):
            engine.run_sync(fenced)


class TestWhatAPublishCallsOnTheServer:
    """Commands are most of the script's cost; who asks for nothing more pays for nothing more."""

    PLAIN = ("HINCRBY", "HMGET", "INFO", "XADD", "PUBLISH")
    FENCE = ("HMGET", "PTTL")

    def called(self, engine: RedisEngine, server: RedisServer, command: Publish) -> tuple[str, ...]:
        engine.run_sync(Publish(command.topic, b"first", KEEP))
        with server.client as client, client.monitor() as monitor:
            engine.run_sync(command)
            server.command("ECHO", "the-end")
            seen = []
            while "the-end" not in (entry := monitor.next_command())["command"]:
                if entry["client_type"] == "lua":
                    seen.append(entry["command"].split()[0].upper())
        return tuple(seen)

    def test_plain(self, engine: RedisEngine, redis_server: RedisServer) -> None:
        assert self.called(engine, redis_server, Publish(GROUP, b"x", KEEP)) == self.PLAIN

    def test_fenced(self, engine: RedisEngine, redis_server: RedisServer) -> None:
        grant = engine.run_sync(LeaseAcquire(GROUP, "session", "holder", 60))
        assert grant.token
        fenced = Publish(GROUP, b"x", KEEP, Fence("session", grant.token))
        assert self.called(engine, redis_server, fenced) == (*self.FENCE, *self.PLAIN)

    def test_once(self, engine: RedisEngine, redis_server: RedisServer) -> None:
        once = Publish(GROUP, b"x", KEEP, key="key")
        assert self.called(engine, redis_server, once) == ("GET", *self.PLAIN, "SET")
        assert self.called(engine, redis_server, once) == ("GET",)


@pytest.mark.parametrize(("member", "least", "most"), [(None, 590, 600), (1, 590, 600), (3600, 3590, 3600)])
def test_nodes_keep_the_record_of_a_group_whoever_stands_in_it(
    engine: RedisEngine, redis_server: RedisServer, member: float | None, least: int, most: int
) -> None:
    """It was left to the plain members' time to live, so that an idle group lost its position, which is a gap."""
    placed = engine.run_sync(Publish(GROUP, b"x", Retention(100, 1, 1))).position
    if member is not None:
        engine.run_sync(PlainAdd(GROUP, "worker", member))
    assert engine.run_sync(Positions(GROUP, [GROUP], renew=600)) == [placed]
    assert least <= redis_server.command("TTL", shard_of(engine).operations.keys.record(GROUP)) <= most


@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_wrong_wall_clock_makes_no_message_too_old(
    engine: RedisEngine, monkeypatch: pytest.MonkeyPatch, hours: int, when: str
) -> None:
    real = time.time
    if when == "after":
        engine.run_sync(Publish(GROUP, b"0", KEEP))
    monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
    engine.run_sync(Publish(GROUP, b"1", KEEP))
    (*_, entry) = engine.run_sync(Read(GROUP, max_age=60)).entries
    assert abs(entry.time / 1000 - real()) < 5


class TestWithoutInfo:
    @pytest.fixture
    def refused(self, redis_server: RedisServer, redis_url: str, prefix: str) -> Iterator[RedisEngine]:
        redis_server.command("ACL", "SETUSER", prefix, "on", ">pw", "~*", "&*", "+@all", "-info")
        url = redis_url.replace("redis://", f"redis://{prefix}:pw@")
        engine = RedisEngine(options.parse({"hosts": [url], "prefix": prefix}))
        yield engine
        engine.close()
        redis_server.command("ACL", "DELUSER", prefix)

    def rewind(self, engine: RedisEngine, server: RedisServer, topic: str, to: int) -> None:
        """What a failover does that loses the newest writes."""
        keys = shard_of(engine).operations.keys
        server.command("HSET", keys.record(topic), "o", to)
        entries: list[Any] = server.command("XRANGE", keys.stream(topic), f"0-{to + 1}", "+")
        kept = server.command("XRANGE", keys.stream(topic), "-", f"0-{to}")
        assert entries
        server.command("DEL", keys.stream(topic))
        for number, (_, fields) in enumerate(kept, 1):
            server.command("XADD", keys.stream(topic), f"0-{number}", "d", fields["d"])

    def test_a_node_that_only_publishes_notices_that_its_own_writes_were_lost(
        self, refused: RedisEngine, redis_server: RedisServer
    ) -> None:
        topic = topics.live("cpu")
        for _ in range(5):
            first = refused.run_sync(Publish(topic, b"x", KEEP)).position
        assert first is not None
        assert not shard_of(refused).operations.compare_replids
        self.rewind(refused, redis_server, topic, 2)
        after = refused.run_sync(Publish(topic, b"y", KEEP)).position
        assert after is not None
        assert (after.offset, after.epoch != first.epoch) == (3, True)
        again = refused.run_sync(Publish(topic, b"z", KEEP)).position
        assert again == Position(after.epoch, 4)

    async def test_the_first_publish_of_a_process_works(self, refused: RedisEngine) -> None:
        """Whether INFO is allowed has to be known before the first script asks for it."""
        port = refused.port(Recorder(), "node")
        try:
            assert (await port.run(Publish(GROUP, b"x", KEEP))).position is not None
        finally:
            await port.close()


class TestPacked:
    """The short way for plain publishes is another spelling of the long one."""

    def operations(self) -> Operations:
        made = Operations(Keys("p", 0))
        made._random.seed(7)
        made.skew = 1_000_000.0
        return made

    def test_it_says_what_the_request_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        short, long = self.operations(), self.operations()
        for number in range(5):
            monkeypatch.setattr(time, "monotonic", lambda number=number: float(number))
            command = Publish(GROUP, b"x" * number, KEEP, byte_limit=5)
            packed = short.packed(replace(command))
            (request,) = next(long.make(command))
            if number < 2:
                assert packed is None, "the first renews, the second shows that the topic is used often"
                next(short.make(replace(command, id=command.id)))
                short._random.setstate(long._random.getstate())
            else:
                assert packed == request.packed()

    @pytest.mark.parametrize(
        "change",
        [{"retention": None}, {"retention": Retention(5, 60, 120)}, {"key": "k"}, {"fence": Fence("s", 1)},
         {"byte_limit": 9}, {"topic": topics.group("other")}],
        ids=lambda change: next(iter(change)),
    )  # fmt: skip
    def test_what_is_not_so_plain_goes_the_long_way(self, change: dict[str, Any]) -> None:
        operations, plain = self.operations(), Publish(GROUP, b"x", KEEP)
        for _ in range(2):
            next(operations.make(replace(plain, id="")))
        assert operations.packed(replace(plain)) is not None
        assert operations.packed(replace(plain, **change)) is None

    def test_it_is_over_when_the_topic_is_to_be_renewed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        operations, plain = self.operations(), Publish(GROUP, b"x", KEEP)
        for _ in range(2):
            next(operations.make(replace(plain)))
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + KEEP.ttl / 8 + 1)
        assert operations.packed(replace(plain)) is None
        (request,) = next(operations.make(replace(plain)))
        assert request.args[12] == 1, "it renews"

    def test_without_replication_ids_every_publish_says_what_it_has_seen(self) -> None:
        operations = self.operations()
        for _ in range(2):
            next(operations.make(Publish(GROUP, b"x", KEEP)))
        assert operations.packed(Publish(GROUP, b"x", KEEP, seen=Position("e", 1))) is not None
        operations.compare_replids = False
        assert operations.packed(Publish(GROUP, b"x", KEEP)) is None


def test_a_key_that_memory_refuses_to_remember_publishes_nothing(own_redis: RedisServer, prefix: str) -> None:
    engine = RedisEngine(options.parse({"hosts": [own_redis.url], "prefix": prefix}))
    topic = topics.live("plain/a")
    with own_redis.client as client, client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.psubscribe(f"{prefix}*")
        heard.get_message(timeout=5)
        client.config_set("maxmemory", 1)
        for _ in range(3):
            with pytest.raises(EngineUnavailable):
                engine.run_sync(Publish(topic, b"x", key="k"))
        client.config_set("maxmemory", 0)
        engine.run_sync(Publish(topic, b"x", key="k"))
        engine.run_sync(Publish(topic, b"x", key="k"))
        published = [message for _ in range(10) if (message := heard.get_message(timeout=0.2)) is not None]
    engine.close()
    assert len(published) == 1
