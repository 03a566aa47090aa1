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

import json
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from channels.layers import channel_layers
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser

from .conf import settings
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

    Every wait ends after `timeout` seconds with TimeoutError.
    """

    def __init__(self, communicator: WebsocketCommunicator, timeout: float) -> None:
        self._communicator = communicator
        self._timeout = timeout
        self._pushes: deque[dict[str, Any]] = deque()
        self._replies: dict[int, dict[str, Any]] = {}
        self._last_id = 0

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
        await self._communicator.send_to(json.dumps({"id": number, name: arguments}))
        reply = await self._reply(number)
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

    async def nothing(self, seconds: float = 0.05) -> bool:
        """Whether no push is waiting and none comes for so long."""
        return not self._pushes and await self._communicator.receive_nothing(timeout=seconds)

    async def _reply(self, number: int) -> dict[str, Any]:
        while number not in self._replies:
            await self._read()
        return self._replies.pop(number)

    async def _read(self) -> None:
        """Take one frame, which may hold several messages; answer a ping."""
        frame = await self._communicator.receive_output(self._timeout)
        if frame["type"] == "websocket.close":
            raise ConnectionError(f"The server closed the connection: {frame.get('code')} {frame.get('reason', '')}")
        for line in frame["text"].splitlines():
            message = json.loads(line)
            if not message:
                await self._communicator.send_to("{}")
            elif "push" in message:
                self._pushes.append(message["push"])
            else:
                self._replies[message["id"]] = message


@asynccontextmanager
async def live_client(
    user: Any = None, *, application: Any = None, timeout: float = TIMEOUT
) -> AsyncIterator[LiveClient]:
    """A client that has connected as `user` (None: anonymous) over LiveConsumer, or over your own ASGI `application`.

    It acts on the running event loop; leaving the block disconnects it. Permissions are asked as for a browser.
    """
    if application is None:
        from .consumers import LiveConsumer

        application = LiveConsumer.as_asgi()
    communicator = WebsocketCommunicator(application, "/live/ws")
    scope: dict[str, Any] = communicator.scope  # type: ignore[assignment]
    scope["user"] = user if user is not None else AnonymousUser()
    accepted, code = await communicator.connect(timeout)
    if not accepted:
        raise ConnectionError(f"The connection was refused: {code}")
    client = LiveClient(communicator, timeout)
    try:
        await client.command("connect")
        yield client
    finally:
        await communicator.disconnect(timeout=timeout)
