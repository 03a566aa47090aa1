"""The layer's own methods: publish, history, and live channels for plain consumers."""

from __future__ import annotations

import asyncio

import pytest

from livechannels.exceptions import InvalidChannelName, LiveChannelsError, ScopeError
from livechannels.messages.positions import Position
from livechannels.messages.publications import ClientInfo
from tests.layer.conftest import eventually, receive, receive_all


class TestPublish:
    async def test_it_returns_the_position_and_history_keeps_it(self, layer):
        first = await layer.publish("stream/cpu", {"n": 1}, tags={"schema": "s"})
        second = await layer.publish("stream/cpu", {"n": 2})
        assert (first.offset, second.offset, first.epoch) == (1, 2, second.epoch)
        found = await layer.history("stream/cpu")
        assert [(p.offset, p.data, p.tags) for p in found.publications] == [
            (1, {"n": 1}, {"schema": "s"}), (2, {"n": 2}, None),
        ]  # fmt: skip
        assert found.position == second

    async def test_without_history_there_is_no_position(self, layer):
        assert await layer.publish("fleeting/x", {"n": 1}) is None
        assert (await layer.history("fleeting/x")).publications == []

    async def test_one_key_stores_once(self, layer):
        first = await layer.publish("stream/cpu", {"n": 1}, idempotency_key="k")
        again = await layer.publish("stream/cpu", {"n": 2}, idempotency_key="k")
        assert first == again
        assert [p.data for p in (await layer.history("stream/cpu")).publications] == [{"n": 1}]

    async def test_raw_and_info(self, layer):
        info = ClientInfo("7", "client-1", {"role": "x"})
        await layer.publish("stream/cpu", None, raw=b'{"already": "json"}', info=info)
        publication = (await layer.history("stream/cpu")).publications[0]
        assert publication.data == {"already": "json"}
        assert (publication.info.user, publication.info.client) == ("7", "client-1")

    async def test_sync(self, layer):
        position = await asyncio.to_thread(layer.publish_sync, "stream/cpu", {"n": 1})
        found = await asyncio.to_thread(layer.history_sync, "stream/cpu")
        assert [p.position for p in found.publications] == [position]

    @pytest.mark.parametrize("name", ["", "spa ce", "x" * 256, "umläut", "a\n", 5, None, b"a"])
    async def test_a_bad_name_is_a_type_error(self, layer, name):
        for call in (layer.publish(name, {}), layer.history(name), layer.presence(name)):
            with pytest.raises(InvalidChannelName):
                await call

    async def test_data_that_is_no_json_is_a_type_error(self, layer):
        with pytest.raises(TypeError):
            await layer.publish("stream/cpu", {"it": object()})

    async def test_a_node_scoped_channel_is_not_published_from_outside(self, layer):
        with pytest.raises(ScopeError):
            await layer.publish("private/x", {})
        with pytest.raises(LiveChannelsError):
            layer.publish_sync("private/x", {})


class TestHistory:
    async def test_since_limit_reverse(self, layer):
        positions = [await layer.publish("stream/cpu", n) for n in range(1, 6)]
        assert [p.data for p in (await layer.history("stream/cpu", since=positions[2])).publications] == [4, 5]
        assert [p.data for p in (await layer.history("stream/cpu", limit=2)).publications] == [1, 2]
        assert [p.data for p in (await layer.history("stream/cpu", limit=2, reverse=True)).publications] == [5, 4]
        empty = await layer.history("stream/cpu", limit=0)
        assert (empty.publications, empty.position) == ([], positions[-1])

    async def test_trimmed_history_is_not_recovered(self, layer):
        first = await layer.publish("short/x", 1)
        for number in range(2, 8):
            await layer.publish("short/x", number)
        assert (await layer.history("short/x", since=first)).recovered is False
        top = (await layer.history("short/x")).position
        assert (await layer.history("short/x", since=top)).recovered is True
        assert (await layer.history("short/x", since=Position("strange", 3))).recovered is False


class TestPlainConsumers:
    async def test_publications_come_as_events_in_order(self, layer):
        channel = await layer.new_channel()
        await layer.subscribe("stream/cpu", channel)
        for number in range(1, 31):
            await layer.publish("stream/cpu", {"n": number}, tags={"t": str(number)})
        got = await receive_all(layer, channel, 30)
        assert [message["offset"] for message in got] == list(range(1, 31))
        assert set(got[0]) == {"type", "channel", "data", "offset", "epoch", "tags"}
        assert (got[0]["type"], got[0]["channel"], got[0]["data"]) == ("live.publication", "stream/cpu", {"n": 1})
        assert got[4]["tags"] == {"t": "5"}

    async def test_with_since_it_gets_what_it_missed(self, layer):
        positions = [await layer.publish("stream/cpu", {"n": n}) for n in range(1, 6)]
        channel = await layer.new_channel()
        await layer.subscribe("stream/cpu", channel, since=positions[1])
        await layer.publish("stream/cpu", {"n": 6})
        assert [m["data"]["n"] for m in await receive_all(layer, channel, 4)] == [3, 4, 5, 6]

    async def test_a_lost_position_is_told_to_those_who_asked(self, make_layer):
        layer = make_layer(on_gap="live.gap")
        first = await layer.publish("short/x", 1)
        for number in range(2, 8):
            await layer.publish("short/x", number)
        channel = await layer.new_channel()
        await layer.subscribe("short/x", channel, since=first)
        assert await receive(layer, channel) == {"type": "live.gap", "name": "short/x", "reason": "trimmed"}
        await layer.publish("short/x", 8)
        while (message := await receive(layer, channel))["data"] != 8:
            assert message["type"] == "live.publication"

    async def test_unsubscribe_ends_it(self, layer):
        channel = await layer.new_channel()
        await layer.subscribe("stream/cpu", channel)
        await layer.publish("stream/cpu", 1)
        assert (await receive(layer, channel))["data"] == 1
        await layer.unsubscribe("stream/cpu", channel)
        await layer.unsubscribe("stream/never", channel)
        await layer.publish("stream/cpu", 2)
        witness = await layer.new_channel()
        await layer.subscribe("stream/cpu", witness)
        await receive(layer, witness)
        await layer.send(channel, {"type": "end"})
        assert await receive(layer, channel) == {"type": "end"}

    async def test_it_counts_as_a_viewer(self, layer):
        channel = await layer.new_channel()
        await layer.subscribe("stream/cpu", channel)
        assert layer.node().hub.counts() == {"stream/cpu": 1}
        await layer.unsubscribe("stream/cpu", channel)
        assert layer.node().hub.counts() == {}

    async def test_subscribing_twice_delivers_once(self, layer):
        channel = await layer.new_channel()
        await layer.subscribe("stream/cpu", channel)
        await layer.subscribe("stream/cpu", channel)
        for number in range(5):
            await layer.publish("stream/cpu", number)
        assert [m["data"] for m in await receive_all(layer, channel, 5)] == list(range(5))

    async def test_a_sync_consumer_subscribes_through_async_to_sync(self, layer):
        from asgiref.sync import async_to_sync

        channel = await layer.new_channel()
        await asyncio.to_thread(async_to_sync(layer.subscribe), "stream/cpu", channel)
        await layer.publish("stream/cpu", 1)
        assert (await receive(layer, channel))["data"] == 1

    async def test_publications_of_another_process(self, redis_layers):
        here, there = redis_layers(), redis_layers()
        channel = await here.new_channel()
        await here.subscribe("stream/cpu", channel)
        for number in range(50):
            await there.publish("stream/cpu", number)
        assert [m["data"] for m in await receive_all(here, channel, 50)] == list(range(50))

    async def test_it_survives_killed_connections(self, redis_layers, redis_server):
        here, there = redis_layers(capacity=500), redis_layers()
        channel = await here.new_channel()
        await here.subscribe("stream/cpu", channel)
        for number in range(90):
            if number % 20 == 10:
                assert redis_server.kill_connections()
            await there.publish("stream/cpu", number)
        assert [m["data"] for m in await receive_all(here, channel, 90)] == list(range(90))

    async def test_it_survives_a_restart_without_data_and_the_gap_is_told(self, own_redis, prefix):
        from livechannels.layer import LiveChannelLayer

        layer = LiveChannelLayer(hosts=[own_redis.url], prefix=prefix, on_gap="live.gap")
        channel = await layer.new_channel()
        await layer.subscribe("stream/cpu", channel)
        await layer.publish("stream/cpu", 1)
        assert (await receive(layer, channel))["data"] == 1
        own_redis.restart()
        await eventually(lambda: layer.health()["status"] == "ok", "the return")
        epoch = (await layer.publish("stream/cpu", 2)).epoch
        got = [await receive(layer, channel), await receive(layer, channel)]
        assert {"type": "live.gap", "name": "stream/cpu", "reason": "restart"} in got
        assert [(m["data"], m["epoch"]) for m in got if m["type"] == "live.publication"] == [(2, epoch)]
        await layer.close()


class TestPresence:
    async def test_enter_refresh_leave(self, layer):
        ann, bob = ClientInfo("1", "a"), ClientInfo("2", "b", {"name": "Bob"})
        await layer.presence_enter("room/1", ann)
        await layer.presence_enter("room/1", bob)
        await layer.presence_refresh("room/1", ann)
        found = await layer.presence("room/1")
        assert {client: info.user for client, info in found.items()} == {"a": "1", "b": "2"}
        assert found["b"].conn_info == {"name": "Bob"}
        await layer.presence_leave("room/1", ann)
        assert set(layer.presence_sync("room/1")) == {"b"}

    async def test_of_a_channel_without_presence_is_empty(self, layer):
        await layer.presence_enter("stream/cpu", ClientInfo("1", "a"))
        assert await layer.presence("stream/cpu") == {}


class TestControl:
    async def test_broadcast_reaches_every_node(self, make_layer, engine):
        layers = [make_layer() for _ in range(2 if engine == "redis" else 1)]
        heard: list[dict] = []
        for layer in layers:
            layer.node().on_control("test", heard.append)
            await layer.new_channel()
        await eventually(lambda: all(layer.health()["status"] == "ok" for layer in layers), "nodes up")
        await asyncio.sleep(0.2)
        await layers[0].broadcast("test", {"n": 1})
        layers[0].broadcast_sync("test", {"n": 2})
        await eventually(lambda: len(heard) == 2 * len(layers), "all told")
        assert sorted(payload["n"] for payload in heard) == sorted([1, 2] * len(layers))


class TestUnusableMessages:
    async def test_a_number_no_serializer_carries_is_skipped_by_consumers(self, layer):
        """JSON has numbers that MessagePack has not; a publisher chooses, and the path has to survive it."""
        channel = await layer.new_channel()
        await layer.subscribe("stream/cpu", channel)
        await layer.publish("stream/cpu", None, raw=b"123456789012345678901234567890")
        await layer.publish("stream/cpu", 2)
        message = await receive(layer, channel)
        assert (message["data"], message["offset"]) == (2, 2)
        assert layer.health()["status"] == "ok"

    async def test_history_from_before_the_keys_is_skipped(self, redis_layers):
        plain, sealed = redis_layers(), redis_layers(symmetric_encryption_keys=["key"])
        await plain.publish("stream/cpu", 1)
        await sealed.publish("stream/cpu", 2)
        assert [one.data for one in (await sealed.history("stream/cpu")).publications] == [2]
        assert [one.data for one in (await plain.history("stream/cpu")).publications] == [1]
        channel = await sealed.new_channel()
        await sealed.subscribe("stream/cpu", channel, since=("", 0))
        assert (await receive(sealed, channel))["data"] == 2
