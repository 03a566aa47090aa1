"""The kept path to one Redis, where its surroundings fail rather than Redis."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from livechannels.engines import options
from livechannels.engines.base import Publish, QueuePush, Retention
from livechannels.engines.endpoints import parse_url
from livechannels.engines.redis import RedisEngine, cluster, link
from livechannels.engines.redis.keys import Keys
from livechannels.engines.redis.operations import Operations
from livechannels.exceptions import EngineUnavailable
from livechannels.messages import topics
from tests.conftest import SERVER_7, start_or_skip
from tests.engines.conftest import Recorder
from tests.servers import RedisServer, wait_until
from tests.topologies import Cluster, SentinelSet


async def test_sentinels_that_do_not_answer_break_no_path_to_a_good_master(monkeypatch, prefix):
    monkeypatch.setattr(link, "MASTER_CHECK_EVERY", 0.5)
    with SentinelSet() as topology:
        addresses = ",".join(sentinel.address for sentinel in topology.sentinels)
        engine = RedisEngine(options.parse({"hosts": [f"redis+sentinel://{addresses}/mymaster/0"], "prefix": prefix}))
        heard = Recorder()
        port = engine.port(heard, "node")
        try:
            await heard.until(lambda: heard.resumed, "the first connection")
            for sentinel in topology.sentinels:
                sentinel.freeze()
            await asyncio.sleep(8)  # one round of asking all three, and the probes that would be late by it
            assert heard.interruptions == 0
        finally:
            for sentinel in topology.sentinels:
                sentinel.thaw()
            await port.close()


async def test_a_foreign_error_while_connecting_ends_no_link(
    redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A credential provider or a wrong TLS argument raises what it likes."""
    connect, failures = link.open_connection, iter([TypeError("wrong argument"), KeyError("secret")])

    async def failing(*where: Any) -> Any:
        for failure in failures:
            raise failure
        return await connect(*where)

    monkeypatch.setattr(link, "open_connection", failing)
    heard = Recorder()
    port = RedisEngine(options.parse({"hosts": [redis_url], "prefix": prefix})).port(heard, "node")
    try:
        await heard.until(lambda: heard.resumed, "the first connection")
    finally:
        await port.close()
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["wrong argument", "'secret'"]


@pytest.mark.parametrize("command", ["INFO", "CONFIG", "SCRIPT"])
async def test_a_command_that_was_taken_away_is_done_without(command: str, prefix: str) -> None:
    server = start_or_skip(SERVER_7, "--rename-command", command, "")
    heard = Recorder()
    engine = RedisEngine(options.parse({"hosts": [server.url], "prefix": prefix}))
    port = engine.port(heard, "node")
    keep = Retention(10, 60, 120)
    try:
        await heard.until(lambda: heard.resumed, "the first connection")
        await port.subscribe(topics.group("room"))
        await port.run(Publish(topics.group("room"), b"x", keep))
        await asyncio.to_thread(engine.run_sync, Publish(topics.group("room"), b"y", keep))
        await heard.received(2)
    finally:
        await port.close()
        engine.close()
        server.stop()


async def test_a_server_that_refuses_to_write_is_not_joined_again_without_a_pause(
    own_redis: RedisServer, prefix: str
) -> None:
    """NOREPLICAS: a new connection to the same master cures nothing."""
    heard = Recorder()
    port = RedisEngine(options.parse({"hosts": [own_redis.url], "prefix": prefix})).port(heard, "node")
    try:
        await heard.until(lambda: heard.resumed, "the first connection")
        own_redis.command("CONFIG", "SET", "min-replicas-to-write", "1")
        before = own_redis.client.info("stats")["total_connections_received"]
        until = time.monotonic() + 3
        while time.monotonic() < until:
            with contextlib.suppress(EngineUnavailable):
                await port.run(Publish(topics.group("room"), b"x", Retention(10, 60, 120)))
            await asyncio.sleep(0)
        assert own_redis.client.info("stats")["total_connections_received"] - before < 100
        own_redis.command("CONFIG", "SET", "min-replicas-to-write", "0")
        await heard.until(lambda: port.health.ok, "the way back")
    finally:
        await port.close()


async def test_a_new_name_in_a_slot_that_moved_disturbs_no_other(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """Nobody told this node that the slot moved: its first SSUBSCRIBE there is refused with MOVED."""
    monkeypatch.setattr(cluster, "REFRESH_EVERY", 600.0)
    with Cluster(SERVER_7) as topology:
        where = {"hosts": [topology.url], "prefix": prefix}
        engine, direct = (RedisEngine(options.parse(where)) for _ in range(2))
        heard = Recorder()
        port = engine.port(heard, "node")
        try:
            await heard.until(lambda: len(heard.resumed) == len(topology.nodes), "all connections")
            moving = topics.queue("moving")
            direct.run_sync(QueuePush(moving, b"x", 10, 60))
            topology.move_slot_of("moving")
            await port.subscribe(moving)
            direct.run_sync(QueuePush(moving, b"y", 10, 60))
            await heard.received(1)
            assert heard.interruptions == 0
        finally:
            await port.close()
            direct.close()


@pytest.fixture
def loading() -> Iterator[RedisServer]:
    """A server that has come back and needs some seconds to read what it saved, answering meanwhile."""
    server = start_or_skip(SERVER_7, "--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
    try:
        with server.client as client:
            for number in range(300):
                client.set(f"k{number}", os.urandom(2000))
            client.save()
        server.kill()
        server.process.spawn()

        def refuses() -> bool:
            try:
                server.command("GET", "k")
            except redis.exceptions.BusyLoadingError:
                return True
            return False

        wait_until(refuses, "an answer while loading")
        yield server
    finally:
        server.stop()


async def test_a_server_that_loads_is_not_there_yet(loading: RedisServer, prefix: str) -> None:
    engine = RedisEngine(options.parse({"hosts": [loading.url], "prefix": prefix}))
    heard = Recorder()
    port = engine.port(heard, "node")
    refused = 0
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    await port.run(Publish(topics.group("room"), b"x", Retention(100, 60, 120)))
                    break
                except EngineUnavailable:
                    refused += 1
        assert refused > 0
        assert (len(heard.resumed), heard.interruptions) == (1, 0)
    finally:
        await port.close()


class Wanted:
    """A link whose server is a list of the commands it was sent."""

    def __init__(self) -> None:
        endpoint = parse_url("redis://localhost:1")
        self.link = link.Link(
            endpoint, Operations(Keys("p", 0)), on_message=lambda name, data: None, on_path=lambda up, names: None
        )
        self.sent: list[tuple[str, list[str]]] = []
        self.link._subscriber = self  # type: ignore[assignment]

    def subscribe(self, names: list[str]) -> None:
        self.sent.append(("SUBSCRIBE", names))

    def unsubscribe(self, names: list[str]) -> None:
        self.sent.append(("UNSUBSCRIBE", names))

    def confirm(self, *names: str) -> None:
        for name in names:
            self.link._confirm(name)


async def test_who_asks_for_several_names_waits_for_the_last_of_them_and_names_are_asked_for_once() -> None:
    wanted = Wanted()
    first, second = wanted.link.subscribe(["a", "b"]), wanted.link.subscribe(["b", "c", "c"])
    assert wanted.sent == [("SUBSCRIBE", ["a", "b"]), ("SUBSCRIBE", ["c"])]
    assert first is not None and second is not None
    wanted.confirm("a", "a", "unheard of")
    assert not first.done()
    wanted.confirm("b")
    assert first.done() and not second.done()
    wanted.confirm("c")
    assert second.done()
    assert wanted.link.subscribe(["c", "a"]) is None, "nothing to wait for, nothing to send"
    assert wanted.link.wanted == {"a": None, "b": None, "c": None} and len(wanted.sent) == 2


async def test_who_gave_up_or_wants_a_name_no_more_keeps_nobody_waiting() -> None:
    wanted = Wanted()
    first, second = wanted.link.subscribe(["a"]), wanted.link.subscribe(["a", "b"])
    assert first is not None and second is not None
    first.cancel()
    wanted.link.unsubscribe(["b"])
    assert not second.done()
    wanted.confirm("a")
    assert second.done() and wanted.link.wanted == {"a": None}
    again = wanted.link.subscribe(["b"])
    assert again is not None and wanted.sent[-1] == ("SUBSCRIBE", ["b"])
