from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.testing import WebsocketCommunicator

from livechannels import generic
from livechannels.generic import DirectDispatchMixin
from livechannels.layer import LiveChannelLayer
from livechannels.testing import live_test_layer

# Closing old connections reaches for the connections that other tests left in the database thread.
pytestmark = pytest.mark.django_db(transaction=True)


class Chat(DirectDispatchMixin, AsyncJsonWebsocketConsumer):
    groups = ["chat"]

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        if content == "fail":
            raise RuntimeError("a bug")
        await self.channel_layer.group_send("chat", {"type": "chat.line", "text": content})

    async def chat_line(self, event: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        await self.send_json(event["text"])


@pytest.fixture
async def layer() -> AsyncIterator[LiveChannelLayer]:
    with live_test_layer() as layer:
        yield layer
        await layer.node().close()


async def test_messages_of_client_and_layer_in_order(layer: LiveChannelLayer) -> None:
    first, second = WebsocketCommunicator(Chat.as_asgi(), "/"), WebsocketCommunicator(Chat.as_asgi(), "/")
    await first.connect()
    await second.connect()
    for number in range(20):
        await first.send_json_to(number)
    for socket in (first, second):
        assert [await socket.receive_json_from() for _ in range(20)] == list(range(20))
    for socket in (first, second):
        await socket.disconnect()


async def test_an_error_ends_the_connection(layer: LiveChannelLayer) -> None:
    socket = WebsocketCommunicator(Chat.as_asgi(), "/")
    await socket.connect()
    await socket.send_json_to("fail")
    with pytest.raises(RuntimeError, match="a bug"):
        await socket.receive_output()


async def test_unknown_types_are_told(layer: LiveChannelLayer) -> None:
    socket = WebsocketCommunicator(Chat.as_asgi(), "/")
    await socket.connect()
    await layer.group_send("chat", {"type": "chat.unknown"})
    with pytest.raises(ValueError, match=r"No handler for message type chat\.unknown"):
        await socket.receive_output()


async def test_old_connections_are_closed_once_a_second(layer: LiveChannelLayer, monkeypatch: Any) -> None:
    closed = []

    async def close() -> None:
        closed.append(1)

    monkeypatch.setattr(generic, "aclose_old_connections", close)
    monkeypatch.setattr(generic, "_closed_at", float("-inf"))
    socket = WebsocketCommunicator(Chat.as_asgi(), "/")
    await socket.connect()
    for number in range(10):
        await socket.send_json_to(number)
        await socket.receive_json_from()
    assert len(closed) == 1
    await socket.disconnect()


async def test_without_a_layer() -> None:
    class Echo(DirectDispatchMixin, AsyncJsonWebsocketConsumer):
        channel_layer_alias = "nowhere"
        groups = None

        async def receive_json(self, content: Any, **kwargs: Any) -> None:
            await self.send_json(content)

        async def websocket_disconnect(self, message: Any) -> None:
            raise StopConsumer

    socket = WebsocketCommunicator(Echo.as_asgi(), "/")
    await socket.connect()
    await socket.send_json_to([1])
    assert await socket.receive_json_from() == [1]
    await socket.disconnect()
