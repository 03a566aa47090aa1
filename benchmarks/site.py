"""The web application of the browser's table: `benchmarks.site:application`, which of them BENCH says.

"stock" is what Channels' tutorial leads to, on either layer; "floor" one Redis subscription whose messages go to
every socket as they are; "live" LiveConsumer, "single" the same with one message to a frame. With "+auth" behind
AuthMiddlewareStack. DATABASE is a file with the users, if any are to sign in.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from typing import Any
from urllib.parse import urlsplit

import django
import hiredis
from django.conf import settings

KIND, URL = os.environ["BENCH"].split(" ")
GROUP, CHANNEL, BIG_CHANNEL = "bench", "bench/1", "bench/2"
LAYERS = {
    "pubsub": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [URL]}},
    "livechannels": {"BACKEND": "livechannels.layer.LiveChannelLayer", "CONFIG": {"hosts": [URL]}},
}
LAYER = "pubsub" if KIND.removesuffix("+auth") == "stock" else "livechannels"

settings.configure(
    SECRET_KEY="bench",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "livechannels"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("DATABASE", ":memory:")}},
    CHANNEL_LAYERS={"default": LAYERS[LAYER]},
    LIVECHANNELS={"CHANNELS": "benchmarks.declared.live_channels"} if LAYER == "livechannels" else {},
    USE_TZ=True,
)
django.setup()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402


class Stock(AsyncWebsocketConsumer):
    """Passes on what the group is sent."""

    async def connect(self) -> None:
        await self.channel_layer.group_add(GROUP, self.channel_name)
        await self.accept()

    async def bench_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


class Floor:
    """No framework: one task reads Redis and sends to one socket after the other."""

    def __init__(self) -> None:
        self.sends: dict[Any, None] = {}
        self.task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.task is None:
            self.task = asyncio.create_task(self.pump())
        await receive()
        await send({"type": "websocket.accept"})
        self.sends[send] = None
        while (await receive())["type"] != "websocket.disconnect":
            pass
        self.sends.pop(send, None)

    async def pump(self) -> None:
        address = urlsplit(URL)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(hiredis.pack_command(("SUBSCRIBE", GROUP)))
        parser = hiredis.Reader()
        while data := await reader.read(262_144):
            parser.feed(data)
            while (push := parser.gets()) is not False:
                if push[0] == b"message":
                    event = {"type": "websocket.send", "text": push[2].decode()}
                    for send in list(self.sends):
                        await send(event)


def make() -> Any:
    app: Any
    if KIND.startswith("floor"):
        app = Floor()
    elif KIND.startswith("stock"):
        app = Stock.as_asgi()
    else:
        from livechannels.clients import backlog
        from livechannels.consumers import LiveConsumer

        if KIND == "single":
            backlog.MESSAGES_PER_FRAME = 1
        app = LiveConsumer.as_asgi()
    return AuthMiddlewareStack(app) if KIND.endswith("+auth") else app


async def publish(text: bytes, channel: str) -> None:
    """One publication, as a project would make it; for the publisher's process."""
    from channels.layers import get_channel_layer

    layer: Any = get_channel_layer()
    if KIND.startswith("stock"):
        await layer.group_send(GROUP, {"type": "bench.message", "text": text.decode()})
    else:
        await layer.publish(channel, None, raw=text)


def hello(channel: str) -> str:
    """What a client says first where it speaks Centrifuge's protocol; nothing elsewhere."""
    if KIND.startswith(("floor", "stock")):
        return ""
    return json.dumps({"id": 1, "connect": {}}) + "\n" + json.dumps({"id": 2, "subscribe": {"channel": channel}})


served = make()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """WebSockets as `make` says; any HTTP request makes the garbage collector go round."""
    if scope["type"] == "http":
        gc.collect()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
    elif scope["type"] == "websocket":
        await served(scope, receive, send)
    else:
        raise NotImplementedError(scope["type"])
