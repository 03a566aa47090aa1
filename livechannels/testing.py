"""For the tests of projects that use livechannels: a fresh layer in memory, and a client in one line.

@pytest.mark.django_db(transaction=True)
async def test_rename(dashboard, ann):
    with live_test_layer():
        async with live_client(ann) as client:
            await client.subscribe(f"dashboard/{dashboard.pk}")
            await Dashboard.objects.aupdate_or_create(pk=dashboard.pk, defaults={"title": "New"})
            assert (await client.publication())["data"]["action"] == "saved"
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from channels.layers import channel_layers
from django.contrib.auth.models import AnonymousUser

from .conf import settings
from .consumers import LiveConsumer
from .layer import LiveChannelLayer

TIMEOUT = 5.0


@contextmanager
def live_test_layer(alias: str | None = None, **config: Any) -> Iterator[LiveChannelLayer]:
    """Within the block, `alias` (default: LIVECHANNELS["LAYER"]) is a fresh layer on the memory engine.

    `config` are options of CONFIG. It also works as a decorator, and nests.
    """
    name = alias or settings.LAYER
    layer = LiveChannelLayer(ha_engine="memory", **config)
    before = channel_layers.set(name, layer)
    try:
        yield layer
    finally:
        if before is None:
            channel_layers.backends.pop(name, None)
        else:
            channel_layers.set(name, before)


class CommandRefused(Exception):
    """The server answered a command with an error; `code` is the protocol's number for it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code


class LiveClient:
    """A browser on the WebSocket, without browser and socket. Made by `live_client`.

    Every wait ends after `timeout` seconds with TimeoutError, and with ConnectionError if the server closes.
    """

    def __init__(self, application: Any, user: Any, timeout: float) -> None:
        self._timeout = timeout
        self._to_server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._pushes: list[dict[str, Any]] = []
        self._replies: dict[int, dict[str, Any]] = {}
        self._last_id = 0
        scope = {"type": "websocket", "path": "/live/ws", "headers": [], "subprotocols": [], "user": user}
        self._served = asyncio.ensure_future(application(scope, self._to_server.get, self._from_server.put))

    async def connect(self) -> None:
        """Open the connection and introduce this client."""
        self._to_server.put_nowait({"type": "websocket.connect"})
        event = await self._event()
        if event["type"] != "websocket.accept":
            raise ConnectionError(f"The connection was refused: {event.get('code')}")
        await self.command("connect")

    async def disconnect(self) -> None:
        """Go away, and wait until the server has cleaned up."""
        self._to_server.put_nowait({"type": "websocket.disconnect", "code": 1000})
        async with asyncio.timeout(self._timeout):
            await self._served

    async def subscribe(self, channel: str, **options: Any) -> dict[str, Any]:
        """Subscribe and return the server's reply. Raises CommandRefused."""
        return await self.command("subscribe", channel=channel, **options)

    async def publish(self, channel: str, data: Any) -> None:
        """Publish as this client. Raises CommandRefused."""
        await self.command("publish", channel=channel, data=data)

    async def command(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Send any command of the protocol and return its reply. Raises CommandRefused."""
        self._last_id += 1
        number = self._last_id
        self._send({"id": number, name: arguments})
        while number not in self._replies:
            await self._read()
        reply = self._replies.pop(number)
        if "error" in reply:
            raise CommandRefused(reply["error"]["code"], reply["error"]["message"])
        found: dict[str, Any] = reply.get(name, {})
        return found

    async def publication(self) -> dict[str, Any]:
        """The next publication on any channel: {"channel", "data", "offset"?, "tags"?, "info"?}."""
        push = await self.push("pub")
        return {"channel": push["channel"], **push["pub"]}

    async def push(self, kind: str) -> dict[str, Any]:
        """The next push of one kind: "pub", "join", "leave", "unsubscribe" or "disconnect"; others stay queued."""
        while True:
            for push in self._pushes:
                if kind in push:
                    self._pushes.remove(push)
                    return push
            await self._read()

    async def nothing(self, seconds: float = 0.1, kind: str = "pub") -> bool:
        """Whether no push of this kind is waiting and none comes for so long."""
        try:
            async with asyncio.timeout(seconds):
                push = await self.push(kind)
        except TimeoutError:
            return True
        self._pushes.insert(0, push)
        return False

    def _send(self, message: dict[str, Any]) -> None:
        self._to_server.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    async def _event(self) -> dict[str, Any]:
        async with asyncio.timeout(self._timeout):
            return await self._from_server.get()

    async def _read(self) -> None:
        """Take one frame, which may hold several messages; answer a ping."""
        event = await self._event()
        if event["type"] == "websocket.close":
            raise ConnectionError(f"The server closed the connection: {event.get('code')} {event.get('reason', '')}")
        for line in event["text"].splitlines():
            message = json.loads(line)
            if not message:
                self._send({})
            elif "push" in message:
                self._pushes.append(message["push"])
            else:
                self._replies[message["id"]] = message


@asynccontextmanager
async def live_client(
    user: Any = None, *, application: Any = None, timeout: float = TIMEOUT
) -> AsyncIterator[LiveClient]:
    """A client that has connected as `user` (None: anonymous) over LiveConsumer, or over your own ASGI `application`.

    Permissions are asked as for a browser. Leaving the block disconnects it.
    """
    client = LiveClient(application or LiveConsumer.as_asgi(), user or AnonymousUser(), timeout)
    try:
        await client.connect()
        yield client
    finally:
        await client.disconnect()
