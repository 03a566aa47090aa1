"""A settings file written for channels_redis works with BACKEND alone changed."""

from __future__ import annotations

import asyncio
import re

import pytest
from channels.exceptions import ChannelFull
from channels.layers import channel_layers, get_channel_layer
from django.test import override_settings

from livechannels.exceptions import ConfigurationError
from livechannels.layer import LiveChannelLayer
from livechannels.serializers import registry
from tests.layer.conftest import receive, unread
from tests.topologies import SentinelSet

BACKEND = "livechannels.layer.LiveChannelLayer"


async def works(layer: LiveChannelLayer) -> None:
    """Group and plain messages arrive."""
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.group_add("room", "plain")
    await layer.group_send("room", {"type": "x", "n": 1})
    assert await receive(layer, channel) == {"type": "x", "n": 1}
    assert await receive(layer, "plain") == {"type": "x", "n": 1}
    await layer.close()


class TestHosts:
    def forms(self, server):
        host, port = "127.0.0.1", server.port
        return {
            "url": server.url,
            "tuple": (host, port),
            "list": [host, port],
            "dict with address url": {"address": server.url},
            "dict with address tuple": {"address": (host, port), "db": 2},
            "dict of kwargs": {"host": host, "port": port, "db": 1, "socket_timeout": 3},
            "unix url": server.unix_url,
            "dict with unix url": {"address": server.unix_url},
        }

    @pytest.mark.parametrize(
        "form",
        [
            "url", "tuple", "list", "dict with address url", "dict with address tuple", "dict of kwargs", "unix url",
            "dict with unix url",
        ],
    )  # fmt: skip
    async def test_every_form_of_a_host(self, redis_url, redis_server, prefix, form):
        await works(LiveChannelLayer(hosts=[self.forms(redis_server)[form]], prefix=prefix))

    async def test_the_sentinel_dict(self, prefix):
        with SentinelSet("valkey") as group:
            host = {
                "sentinels": [("127.0.0.1", sentinel.port) for sentinel in group.sentinels],
                "master_name": group.NAME,
                "sentinel_kwargs": {"socket_timeout": 2},
                "db": 0,
            }
            await works(LiveChannelLayer(hosts=[host], prefix=prefix))
            await works(LiveChannelLayer(hosts=[group.url], prefix=prefix))

    @pytest.mark.parametrize("hosts", [None, []])
    def test_no_hosts_means_localhost(self, hosts):
        layer = LiveChannelLayer(hosts=hosts)
        assert [str(host) for host in layer.hosts] == ["redis://localhost:6379/0"]

    @pytest.mark.parametrize("hosts", ["redis://localhost", b"redis://localhost", 5, {"host": "localhost"}])
    def test_a_bare_string_is_a_value_error(self, hosts):
        with pytest.raises(ValueError, match="list"):
            LiveChannelLayer(hosts=hosts)

    async def test_several_hosts_share_the_groups_and_all_of_them_work(
        self, redis_url, redis_server, own_redis, prefix
    ):
        layer = LiveChannelLayer(hosts=[redis_url, own_redis.url], prefix=prefix)
        for number in range(20):
            channel = await layer.new_channel()
            await layer.group_add(f"room-{number}", channel)
            await layer.group_add(f"room-{number}", f"plain-{number}")
            await layer.group_send(f"room-{number}", {"type": "x", "n": number})
            assert await receive(layer, channel) == {"type": "x", "n": number}
            assert await receive(layer, f"plain-{number}") == {"type": "x", "n": number}
        assert all(server.command("DBSIZE") > 0 for server in (redis_server, own_redis)), "one host holds everything"
        await layer.flush()
        await layer.close()


class TestOptions:
    async def test_every_option_of_channels_redis_at_once(self, redis_url, prefix):
        layer = LiveChannelLayer(
            hosts=[redis_url], prefix=prefix, expiry=30, group_expiry=3600, capacity=50,
            channel_capacity={"http.request": 200, re.compile(r"^websocket.send\!.+"): 20},
            symmetric_encryption_keys=["a secret"], serializer_format="msgpack", random_prefix_length=12,
            on_disconnect="redis.disconnect", on_reconnect="redis.reconnect",
        )  # fmt: skip
        assert (layer.expiry, layer.group_expiry, layer.capacity) == (30, 3600, 50)
        assert layer.get_capacity("http.request") == 200
        assert layer.get_capacity("websocket.send!abc") == 20
        await works(layer)

    @pytest.mark.parametrize(
        ("wrong", "meant"),
        [("capcity", "capacity"), ("host", "hosts"), ("expirey", "expiry"), ("symetric_encryption_keys", "symmetric")],
    )
    def test_a_misspelt_option_names_the_right_one(self, wrong, meant):
        with pytest.raises(ConfigurationError, match=meant):
            LiveChannelLayer(**{wrong: 1})

    @pytest.mark.parametrize(
        "config",
        [
            {"capacity": 0}, {"capacity": "100"}, {"expiry": -1}, {"group_expiry": 0}, {"channel_capacity": {"a": 0}},
            {"channel_capacity": ["a"]}, {"symmetric_encryption_keys": "bare"}, {"symmetric_encryption_keys": b"bare"},
            {"prefix": ""}, {"prefix": 5}, {"serializer_format": "pickle"}, {"ha_engine": "reddis"},
            {"hosts": ["redis://a"], "ha_engine_address": "b:1"}, {"hosts": ["http://a"]}, {"hosts": [("a", "b", "c")]},
        ],
        ids=str,
    )  # fmt: skip
    def test_a_wrong_value_is_one_clear_value_error(self, config):
        with pytest.raises(ValueError) as caught:
            LiveChannelLayer(**config)
        assert not isinstance(caught.value, KeyError)
        assert next(iter(config)).split("_")[0] in str(caught.value).lower().replace("redis host", "hosts")

    def test_an_option_without_effect_is_a_warning_by_name(self):
        layer = LiveChannelLayer(hosts=["redis://localhost"], random_prefix_length=4)
        assert any("random_prefix_length" in text for _, text in layer.options.warnings)

    async def test_encryption_hides_and_rotates(self, redis_url, redis_server, prefix):
        old = LiveChannelLayer(hosts=[redis_url], prefix=prefix, symmetric_encryption_keys=["old"])
        new = LiveChannelLayer(hosts=[redis_url], prefix=prefix, symmetric_encryption_keys=["new", "old"])
        stranger = LiveChannelLayer(hosts=[redis_url], prefix=prefix, symmetric_encryption_keys=["other"])
        channel, deaf = await new.new_channel(), await stranger.new_channel()
        await new.group_add("room", channel)
        await stranger.group_add("room", deaf)
        await old.group_send("room", {"type": "x", "text": "topsecret"})
        await old.send("plain", {"type": "x", "text": "topsecret"})
        await old.send(channel, {"type": "x", "text": "topsecret"})
        assert [(await receive(new, channel))["text"] for _ in range(2)] == ["topsecret"] * 2
        assert await unread(stranger, deaf) == []
        with redis_server.client as client:
            client.connection_pool.connection_kwargs["decode_responses"] = False
            client.connection_pool.reset()
            stored = b"".join(client.dump(key) or b"" for key in client.scan_iter())
        assert b"topsecret" not in stored
        assert (await receive(new, "plain"))["text"] == "topsecret"
        for layer in (old, new, stranger):
            await layer.close()

    async def test_a_registered_serializer(self, redis_url, prefix):
        import json

        registry.register("test-json", lambda value: b"T" + json.dumps(value).encode(), lambda raw: json.loads(raw[1:]))
        await works(LiveChannelLayer(hosts=[redis_url], prefix=prefix, serializer_format="test-json"))

    async def test_sub_second_expiry_is_not_truncated(self, redis_url, prefix):
        layer = LiveChannelLayer(hosts=[redis_url], prefix=prefix, expiry=0.4)
        await layer.send("plain", {"type": "x"})
        assert await receive(layer, "plain") == {"type": "x"}
        await layer.close()

    @pytest.mark.parametrize(
        ("config", "engine"),
        [
            ({}, "memory"), ({"ha_engine": "memory"}, "memory"), ({"hosts": None}, "redis"), ({"hosts": []}, "redis"),
            ({"ha_engine": "redis"}, "redis"), ({"ha_engine_address": "127.0.0.1:6379"}, "redis"),
            ({"ha_engine": "memory", "hosts": ["redis://a"]}, "memory"),
        ],
        ids=str,
    )  # fmt: skip
    def test_which_engine(self, config, engine):
        assert LiveChannelLayer(**config).health()["engine"] == engine

    async def test_as_the_seed_writes_it(self, redis_url, redis_server, prefix):
        await works(LiveChannelLayer(ha_engine="redis", ha_engine_address=redis_server.address, ha_prefix=prefix))

    async def test_ha_engine_password(self, own_redis, prefix):
        own_redis.command("CONFIG", "SET", "requirepass", "s3cret")
        own_redis.password = "s3cret"
        layer = LiveChannelLayer(
            ha_engine="redis", ha_engine_address=own_redis.address, ha_engine_password="s3cret", prefix=prefix
        )
        assert "s3cret" not in f"{layer!r} {layer.__dict__} {layer.hosts}"
        await works(layer)


class TestDjango:
    async def test_override_settings_and_get_channel_layer(self, redis_url, prefix):
        config = {"default": {"BACKEND": BACKEND, "CONFIG": {"hosts": [redis_url], "prefix": prefix, "capacity": 2}}}
        with override_settings(CHANNEL_LAYERS=config):
            layer = get_channel_layer()
            assert isinstance(layer, LiveChannelLayer)
            assert get_channel_layer() is layer
            for _ in range(2):
                await layer.send("plain", {"type": "x"})
            with pytest.raises(ChannelFull):
                await layer.send("plain", {"type": "x"})
            await layer.close()
        assert get_channel_layer() is not layer

    async def test_channel_layers_set(self, prefix):
        mine = LiveChannelLayer(ha_engine="memory", prefix=prefix)
        before = channel_layers.set("default", mine)
        try:
            assert get_channel_layer() is mine
        finally:
            channel_layers.set("default", before)

    async def test_two_aliases_are_two_clusters(self, redis_url, prefix):
        config = {
            alias: {"BACKEND": BACKEND, "CONFIG": {"hosts": [redis_url], "prefix": prefix + alias}}
            for alias in ("default", "other")
        }
        with override_settings(CHANNEL_LAYERS=config):
            one, two = get_channel_layer("default"), get_channel_layer("other")
            for layer in (one, two):
                await layer.group_add("room", "worker")
            await one.group_send("room", {"type": "one"})
            assert await unread(two, "worker") == []
            assert await unread(one, "worker") == [{"type": "one"}]
            await asyncio.gather(one.close(), two.close())

    def test_a_bad_config_is_never_swallowed_as_a_missing_layer(self):
        """get_channel_layer() turns any KeyError of a constructor into None."""
        bad = [{"channel_capacity": {"tiny": "x"}}, {"serializer_format": "nope"}, {"hosts": [{}, {"sentinels": []}]}]
        for config in bad:
            with (
                override_settings(CHANNEL_LAYERS={"default": {"BACKEND": BACKEND, "CONFIG": config}}),
                pytest.raises(ValueError),
            ):
                get_channel_layer()

    def test_the_test_config_is_used_by_make_test_backend(self):
        config = {"default": {"BACKEND": BACKEND, "TEST_CONFIG": {"ha_engine": "memory", "expiry": 5}}}
        with override_settings(CHANNEL_LAYERS=config):
            assert channel_layers.make_test_backend("default").expiry == 5
