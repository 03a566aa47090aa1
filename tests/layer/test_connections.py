"""Lost connections, restarted servers, absent ones: a pause, then every message once in order, or a reported gap."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time

import pytest

from livechannels.exceptions import EngineUnavailable
from livechannels.layer import LiveChannelLayer
from tests.faults.proxy import FaultProxy
from tests.layer.conftest import eventually, receive, receive_all, unread
from tests.servers import RedisServer


@pytest.fixture
def proxy(redis_server):
    with FaultProxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
async def own_layers(own_redis, prefix):
    """Layers on a server that the test may stop."""
    made = []

    def make(**config):
        made.append(LiveChannelLayer(**{"hosts": [own_redis.url], "prefix": prefix, **config}))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


async def persist(send, timeout: float = 15) -> None:
    """Send until it is taken; a caller that retries what it was told is lost."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return await send()
        except ConnectionError:
            assert time.monotonic() < deadline, "the store did not come back"
            await asyncio.sleep(0.1)


class TestKilledConnections:
    @pytest.mark.parametrize("kind", ["group", "local", "plain"])
    async def test_every_message_once_in_order(self, redis_layers, redis_server, kind):
        receiver, sender = redis_layers(capacity=1000), redis_layers(capacity=1000)
        channel = "plain" if kind == "plain" else await receiver.new_channel()
        if kind == "group":
            await receiver.group_add("room", channel)
        got: list[int] = []

        async def read():
            while len(got) < 200:
                got.append((await receiver.receive(channel))["number"])

        reading = asyncio.ensure_future(read())
        for number in range(200):
            if number % 25 == 10:
                assert redis_server.kill_connections() >= 1
            if kind == "group":
                await sender.group_send("room", {"type": "x", "number": number})
            else:
                await sender.send(channel, {"type": "x", "number": number})
            await asyncio.sleep(0.002)
        await asyncio.wait_for(reading, 15)
        assert got == list(range(200))

    async def test_only_the_subscription_dies(self, redis_layers, redis_server):
        receiver, sender = redis_layers(), redis_layers()
        channel = await receiver.new_channel()
        await receiver.group_add("room", channel)
        for round_ in range(5):
            await eventually(lambda: redis_server.kill_connections("pubsub"), "the subscription back and killed again")
            for number in range(10):
                await sender.group_send("room", {"type": "x", "number": round_ * 10 + number})
        assert [m["number"] for m in await receive_all(receiver, channel, 50)] == list(range(50))

    async def test_the_last_message_of_a_burst_is_not_forgotten(self, redis_layers, proxy):
        """Nothing follows it that could reveal the gap: the check after the reconnect has to."""
        receiver, sender = redis_layers(hosts=[proxy.url]), redis_layers()
        channel = await receiver.new_channel()
        await receiver.group_add("room", channel)
        await sender.group_send("room", {"type": "x", "number": 0})
        await receive(receiver, channel)
        proxy.blackhole()
        await sender.group_send("room", {"type": "x", "number": 1})
        proxy.reset()
        proxy.heal()
        assert (await receive(receiver, channel, 6))["number"] == 1

    async def test_a_full_stop_of_the_network_is_noticed_and_healed(self, redis_layers, proxy):
        receiver, sender = redis_layers(hosts=[proxy.url]), redis_layers()
        channel = await receiver.new_channel()
        await receiver.group_add("room", channel)
        proxy.stall("down")
        for number in range(20):
            await sender.group_send("room", {"type": "x", "number": number})
        await eventually(lambda: receiver.health()["status"] == "degraded", "noticing the dead path", 5)
        proxy.reset()
        proxy.heal()
        assert [m["number"] for m in await receive_all(receiver, channel, 20)] == list(range(20))
        await eventually(lambda: receiver.health()["status"] == "ok", "health after the heal")


class TestGaps:
    async def test_more_than_capacity_missed_is_reported_to_those_who_asked(self, redis_layers, proxy):
        receiver = redis_layers(hosts=[proxy.url], capacity=10, on_gap="live.gap")
        sender = redis_layers(capacity=10)
        channel = await receiver.new_channel()
        await receiver.group_add("room", channel)
        await sender.group_send("room", {"type": "x", "number": 0})
        await receive(receiver, channel)
        proxy.blackhole()
        for number in range(1, 41):
            await sender.group_send("room", {"type": "x", "number": number})
        proxy.reset()
        proxy.heal()
        gap = await receive(receiver, channel)
        assert gap == {"type": "live.gap", "name": "room", "reason": "trimmed"}
        await sender.group_send("room", {"type": "x", "number": 41})
        rest = []
        while not rest or rest[-1] != 41:
            rest.append((await receive(receiver, channel))["number"])
        assert rest == sorted(set(rest)), "after a gap too: in order, without repeats"

    async def test_without_on_gap_a_stock_consumer_sees_no_unknown_event(self, redis_layers, proxy):
        receiver, sender = redis_layers(hosts=[proxy.url], capacity=10), redis_layers(capacity=10)
        channel = await receiver.new_channel()
        await receiver.group_add("room", channel)
        proxy.blackhole()
        for number in range(40):
            await sender.group_send("room", {"type": "x", "number": number})
        proxy.reset()
        proxy.heal()
        await sender.group_send("room", {"type": "x", "number": 40})
        types = set()
        while True:
            message = await receive(receiver, channel)
            types.add(message["type"])
            if message["number"] == 40:
                break
        assert types == {"x"}

    async def test_an_idle_group_reports_no_gap(self, redis_layers, redis_server):
        layer = redis_layers(on_gap="live.gap", expiry=1)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "x"})
        await receive(layer, channel)
        await asyncio.sleep(1.5)
        redis_server.kill_connections()
        await persist(lambda: layer.group_send("room", {"type": "y"}))
        assert await receive(layer, channel) == {"type": "y"}
        assert await unread(layer, channel) == []

    async def test_an_unused_group_leaves_no_key_for_long(self, redis_layers, redis_server, prefix):
        layer = redis_layers(expiry=1, group_expiry=1)
        await layer.group_send("nobody", {"type": "x"})
        await layer.group_add("somebody", "plain")
        await layer.group_send("somebody", {"type": "x"})
        keys = [key for key in redis_server.command("KEYS", f"{prefix}:*") if "body" in key or "plain" in key]
        lives = {key: redis_server.command("PTTL", key) / 1000 for key in keys}
        assert lives
        assert all(0 < life <= 600 for life in lives.values()), lives

    async def test_on_disconnect_and_on_reconnect_reach_consumers(self, redis_layers, redis_server):
        layer = redis_layers(on_disconnect="redis.gone", on_reconnect="redis.back")
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "x"})
        assert await receive(layer, channel) == {"type": "x"}
        redis_server.kill_connections("pubsub")
        assert [(await receive(layer, channel))["type"] for _ in range(2)] == ["redis.gone", "redis.back"]


class TestRestart:
    async def test_with_data_every_message_once(self, prefix):
        with RedisServer("valkey", "--appendonly", "yes", "--appendfsync", "always") as server:
            receiver = LiveChannelLayer(hosts=[server.url], prefix=prefix, capacity=500, on_gap="live.gap")
            sender = LiveChannelLayer(hosts=[server.url], prefix=prefix, capacity=500)
            channel = await receiver.new_channel()
            await receiver.group_add("room", channel)
            for number in range(20):
                await sender.group_send("room", {"type": "x", "number": number})
            await asyncio.to_thread(server.process.kill)
            server.start()
            for number in range(20, 40):
                await persist(lambda n=number: sender.group_send("room", {"type": "x", "number": n}))
            got = [await receive(receiver, channel) for _ in range(40)]
            assert [message.get("number") for message in got] == list(range(40))
            await receiver.close()
            await sender.close()

    async def test_without_data_memberships_come_back_and_the_gap_is_told(self, own_layers, own_redis):
        receiver, sender = own_layers(on_gap="live.gap"), own_layers()
        channel = await receiver.new_channel()
        await receiver.group_add("room", channel)
        await receiver.group_add("room", "plain")
        for number in range(5):
            await sender.group_send("room", {"type": "x", "number": number})
        assert [m["number"] for m in await receive_all(receiver, channel, 5)] == list(range(5))
        own_redis.kill()
        with contextlib.suppress(ConnectionError):
            await sender.group_send("room", {"type": "x", "number": 5})
        own_redis.start()
        await eventually(lambda: receiver.health()["status"] == "ok", "the receiver's return")
        await persist(lambda: sender.group_send("room", {"type": "x", "number": 6}))
        await persist(lambda: sender.send(channel, {"type": "x", "number": 7}))
        got = []
        while not {6, 7} <= {message.get("number") for message in got}:
            got.append(await receive(receiver, channel))
        assert [m for m in got if m["type"] == "live.gap" and m["name"] == "room" and m["reason"] == "restart"]
        assert [m["number"] for m in got if m["type"] == "x" and m["number"] in (6, 7)].count(6) == 1

    async def test_forty_of_forty_after_a_restart(self, own_layers, own_redis):
        """The peer loses its groups for good here: 0 of 40."""
        layer = own_layers()
        channels = [await layer.new_channel() for _ in range(4)]
        for channel in channels:
            await layer.group_add("room", channel)
        own_redis.restart()
        await eventually(lambda: layer.health()["status"] == "ok", "the return")
        for number in range(10):
            await persist(lambda n=number: layer.group_send("room", {"type": "x", "number": n}))
        for channel in channels:
            assert [m["number"] for m in await receive_all(layer, channel, 10)] == list(range(10))

    async def test_no_waiting_receive_ever_ends(self, own_layers, own_redis):
        layer = own_layers()
        channels = [*[await layer.new_channel() for _ in range(10)], *[f"plain-{n}" for n in range(10)]]
        waiting = [asyncio.ensure_future(layer.receive(channel)) for channel in channels]
        await asyncio.sleep(0.2)
        own_redis.kill()
        await asyncio.sleep(1)
        own_redis.start()
        await asyncio.sleep(0.3)
        assert not [task for task in waiting if task.done()]
        for number, channel in enumerate(channels):
            await persist(lambda c=channel, n=number: layer.send(c, {"type": "x", "number": n}))
        got = await asyncio.wait_for(asyncio.gather(*waiting), 15)
        assert [message["number"] for message in got] == list(range(20))

    async def test_a_script_flush_goes_unnoticed(self, redis_layers, redis_server):
        layer = redis_layers()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        for number in range(10):
            redis_server.command("SCRIPT", "FLUSH")
            await layer.group_send("room", {"type": "x", "number": number})
            await layer.send("plain", {"type": "x", "number": number})
            await asyncio.to_thread(layer.group_send_sync, "other", {"type": "x"})
        assert [m["number"] for m in await receive_all(layer, channel, 10)] == list(range(10))
        assert [m["number"] for m in await unread(layer, "plain")] == list(range(10))


class TestAbsent:
    """Redis away: local members are served, the caller is told, nothing hangs, everything heals."""

    async def test_group_send_delivers_locally_and_says_so(self, own_layers, own_redis):
        layer = own_layers()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        own_redis.kill()
        started = time.monotonic()
        with pytest.raises(EngineUnavailable) as caught:
            await layer.group_send("room", {"type": "local"})
        assert caught.value.delivered_locally
        assert time.monotonic() - started < 2.5
        assert await receive(layer, channel, 1) == {"type": "local"}

    async def test_publish_delivers_locally_and_says_so(self, own_layers, own_redis):
        layer = own_layers()
        channel = await layer.new_channel()
        await layer.subscribe("stream/cpu", channel)
        own_redis.kill()
        with pytest.raises(EngineUnavailable) as caught:
            await layer.publish("stream/cpu", {"n": 1})
        assert caught.value.delivered_locally
        message = await receive(layer, channel, 1)
        assert (message["type"], message["data"]) == ("live.publication", {"n": 1})

    async def test_own_channels_work_without_redis(self, own_layers, own_redis):
        layer = own_layers()
        channel = await layer.new_channel()
        own_redis.kill()
        await layer.send(channel, {"type": "x"})
        assert await receive(layer, channel, 1) == {"type": "x"}

    async def test_started_without_redis_it_joins_when_redis_comes(self, prefix):
        server = RedisServer("valkey")
        layer = LiveChannelLayer(hosts=[server.url], prefix=prefix)
        channel = await layer.new_channel()
        started = time.monotonic()
        await layer.group_add("room", channel)
        assert time.monotonic() - started < 2.5
        assert layer.health()["status"] == "degraded"
        with server:
            await eventually(lambda: layer.health()["status"] == "ok", "the first connection")
            other = LiveChannelLayer(hosts=[server.url], prefix=prefix)
            await other.group_send("room", {"type": "from afar"})
            assert await receive(layer, channel) == {"type": "from afar"}
            await layer.close()
            await other.close()

    async def test_health_does_no_io_and_says_since_when(self, own_layers, own_redis):
        layer = own_layers()
        await layer.group_add("room", await layer.new_channel())
        fine = layer.health()
        assert fine["status"] == "ok"
        assert fine["engine"] == "redis"
        assert fine["rewind_detection"] == "on"
        own_redis.kill()
        degraded = await eventually(
            lambda: layer.health() if layer.health()["status"] == "degraded" else None, "degraded health", 5
        )
        assert abs(degraded["since"] - time.time()) < 6
        assert degraded["node"] == fine["node"]

    async def test_a_frozen_redis_fails_within_two_seconds_and_thaws_clean(self, own_layers, own_redis):
        layer = own_layers()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        own_redis.freeze()
        started = time.monotonic()
        with pytest.raises(ConnectionError):
            await layer.group_send("room", {"type": "x", "number": 0})
        assert time.monotonic() - started < 2.5
        own_redis.thaw()
        await eventually(lambda: layer.health()["status"] == "ok", "the thaw")
        for number in range(1, 6):
            await persist(lambda n=number: layer.group_send("room", {"type": "x", "number": n}))
        numbers = [message["number"] for message in await unread(layer, channel)]
        assert [number for number in numbers if number] == [1, 2, 3, 4, 5]

    async def test_what_a_frozen_redis_may_still_take_is_not_delivered_twice(self, own_layers, own_redis):
        """The request had left when Redis froze: it is carried out after the thaw, so nobody may be served before."""
        layer = own_layers()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        own_redis.freeze()
        for send in (layer.group_send, lambda *args: asyncio.to_thread(layer.group_send_sync, *args)):
            with pytest.raises(EngineUnavailable):
                await send("room", {"type": "x", "number": 0})
            own_redis.thaw()
            await eventually(lambda: layer.health()["status"] == "ok", "the thaw")
            await persist(lambda: layer.group_send("room", {"type": "x", "number": 1}))
            numbers = [message["number"] for message in await unread(layer, channel)]
            assert numbers.count(0) <= 1
            assert numbers.count(1) == 1
            own_redis.freeze()
        own_redis.thaw()

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("redis://:not-this-one@{address}/0", "password"),
            ("redis+sentinel://{address}/nobody/0", "sentinel|master"),
            ("redis+cluster://{address}", "cluster"),
        ],
        ids=["password", "sentinel", "cluster"],
    )
    @pytest.mark.parametrize("serving", [False, True], ids=["sender", "server"])
    async def test_a_misconfigured_redis_fails_clearly_and_in_time(self, own_redis, prefix, caplog, url, says, serving):
        """One clear error or log line that names the remedy, no traceback, no hang, no secret."""
        if "not-this-one" in url:
            own_redis.command("CONFIG", "SET", "requirepass", "secret-of-the-test")
            own_redis.password = "secret-of-the-test"
        layer = LiveChannelLayer(hosts=[url.format(address=own_redis.address)], prefix=prefix)
        if serving:
            await layer.group_add("room", await layer.new_channel())
        started = time.monotonic()
        with pytest.raises(EngineUnavailable, match=f"(?i){says}") as caught:
            await layer.group_send("room", {"type": "x"})
        assert time.monotonic() - started < 2.5
        await layer.close()
        said = f"{caught.value} {caplog.text}"
        assert "Traceback" not in said
        assert "not-this-one" not in said
        if serving:
            warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
            assert len(warnings) == 1, warnings
            assert re.search(says, warnings[0], re.IGNORECASE)


async def test_the_joins_of_one_turn_cost_one_subscribe_and_leaving_one_unsubscribe(own_layers, own_redis, monkeypatch):
    monkeypatch.setattr("livechannels.node.feeds.LINGER", 0.05)
    layer = own_layers()
    channel = await layer.new_channel()
    await layer.group_add("warm", channel)
    before = own_redis.info("commandstats")["cmdstat_subscribe"]["calls"]
    names = [f"room-{number}" for number in range(50)]
    await asyncio.gather(*(layer.group_add(name, channel) for name in names))
    assert own_redis.info("commandstats")["cmdstat_subscribe"]["calls"] == before + 1
    for name in names:
        await layer.group_send(name, {"type": "x", "name": name})
    assert [message["name"] for message in await receive_all(layer, channel, 50)] == names
    for name in names:
        await layer.group_discard(name, channel)
    await eventually(lambda: len(own_redis.client.pubsub_channels("*room-*")) == 0, "nobody listens any more")
    assert own_redis.info("commandstats")["cmdstat_unsubscribe"]["calls"] == 1
