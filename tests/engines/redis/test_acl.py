from __future__ import annotations

import asyncio
import io
import logging
from urllib.parse import urlsplit

import pytest
import redis
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import override_settings

from livechannels.engines.endpoints import parse_url
from livechannels.engines.redis import keys
from livechannels.layer import LiveChannelLayer
from livechannels.messages.publications import ClientInfo


def test_the_commands_of_the_scripts_are_found() -> None:
    single = keys.commands(parse_url("redis://h:1/0"))
    assert {"evalsha", "publish", "subscribe", "xadd", "hset", "zadd", "wait"} <= set(single)
    assert not {"keys", "flushdb", "config", "ssubscribe"} & set(single)
    assert "ssubscribe" in keys.commands(parse_url("redis+cluster://h:1"))


def printed(*options: str, **config: object) -> str:
    layers = {"default": {"BACKEND": "livechannels.layer.LiveChannelLayer", "CONFIG": config}}
    out = io.StringIO()
    with override_settings(CHANNEL_LAYERS=layers):
        call_command("livechannels_acl", *options, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_the_command_prints_one_line_for_each_host_and_no_password() -> None:
    text = printed(hosts=["redis://u:s3cret@h1:1/2", "redis://h2:1/0"], prefix="app")
    first, second = text.splitlines()
    start = "ACL SETUSER livechannels reset on ><password> resetchannels ~app:lc1:* "
    assert first.startswith(f"{start}&app:lc1:2:* +auth ")
    assert second.startswith(f"{start}&app:lc1:0:* +auth ")
    assert "s3cret" not in text
    assert printed("--file", "--user", "bob", hosts=None).startswith("user bob reset on ")


def test_the_memory_engine_has_no_users() -> None:
    with pytest.raises(CommandError, match="has no users"):
        printed(ha_engine="memory")
    with pytest.raises(CommandError, match="other"):
        printed("--layer", "other", hosts=None)


async def test_a_layer_does_everything_as_that_user(
    redis_url: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = urlsplit(redis_url)
    limited = f"redis://limited:pw@{url.hostname}:{url.port}/0"
    with redis.Redis.from_url(redis_url) as admin:
        command = printed("--user", "limited", hosts=[redis_url], prefix=prefix).strip().replace("<password>", "pw")
        admin.execute_command(*command.split(" "))
        try:
            with caplog.at_level(logging.WARNING):
                await use_everything(LiveChannelLayer(hosts=[limited], prefix=prefix))
            assert caplog.text == ""
            with redis.Redis.from_url(limited) as client:
                for forbidden in (
                    ("GET", "other"),
                    ("PUBLISH", "other", "x"),
                    ("FLUSHDB",),
                    ("KEYS", "*"),
                    ("CONFIG", "GET", "*"),
                ):
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        client.execute_command(*forbidden)
        finally:
            admin.acl_deluser("limited")


async def use_everything(layer: LiveChannelLayer) -> None:
    async with asyncio.timeout(30):
        channel = await layer.new_channel()
        await layer.group_add("g", channel)
        await layer.group_add("g", "plain")
        await layer.group_send("g", {"type": "a"})
        assert await layer.receive(channel) == {"type": "a"}
        assert await layer.receive("plain") == {"type": "a"}
        await layer.group_discard("g", "plain")
        await asyncio.to_thread(layer.send_sync, "plain", {"type": "b"})
        assert await layer.receive("plain") == {"type": "b"}
        position = await layer.publish("open/a", 1)
        assert await layer.publish("open/a", 2, idempotency_key="k") == await layer.publish(
            "open/a", 2, idempotency_key="k"
        )
        await layer.subscribe("open/a", channel, position)
        assert (await layer.receive(channel))["data"] == 2
        await asyncio.to_thread(layer.publish_sync, "open/a", 3)
        assert (await layer.receive(channel))["data"] == 3
        assert [one.data for one in (await layer.history("open/a")).publications] == [1, 2, 3]
        info = ClientInfo("1", "c")
        await layer.presence_enter("open/a", info)
        assert await layer.presence("open/a") == {"c": info}
        await layer.presence_leave("open/a", info)
        async with layer.leader_lock("lock"):
            await layer.broadcast("recheck", {})
        assert layer.health()["rewind_detection"] == "on"
        await layer.flush()
        await layer.close()
