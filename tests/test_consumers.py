from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator
from django.test import override_settings

from livechannels.consumers import LiveConsumer, abort, innermost
from livechannels.layer import LiveChannelLayer
from livechannels.testing import live_client, live_test_layer
from tests.browsers import User
from tests.clients.test_session import CHANNELS

application = LiveConsumer.as_asgi()


@pytest.fixture(autouse=True)
async def layer() -> AsyncIterator[LiveChannelLayer]:
    with override_settings(LIVECHANNELS={"CHANNELS": CHANNELS}), live_test_layer() as layer:
        yield layer
        await layer.node().close()


def open_socket(*subprotocols: str) -> WebsocketCommunicator:
    return WebsocketCommunicator(application, "/live/ws", subprotocols=list(subprotocols))


class TestHandshake:
    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [
            ((), None),
            (("centrifuge-json",), "centrifuge-json"),
            (("centrifuge-protobuf", "centrifuge-json"), "centrifuge-json"),
            (("other",), None),
        ],
    )
    async def test_subprotocol(self, offered: tuple[str, ...], chosen: str | None) -> None:
        socket = open_socket(*offered)
        assert await socket.connect() == (True, chosen)
        await socket.disconnect()

    async def test_protobuf_is_not_spoken(self) -> None:
        socket = open_socket("centrifuge-protobuf")
        assert await socket.connect() == (True, "centrifuge-protobuf")
        closed = await socket.receive_output()
        assert (closed["type"], closed["code"]) == ("websocket.close", 3506)

    async def test_a_node_that_stops_sends_everyone_elsewhere(self, layer: LiveChannelLayer) -> None:
        layer.node().stopping = True
        socket = open_socket()
        await socket.connect()
        assert '"code":3001' in await socket.receive_from()
        assert (await socket.receive_output())["code"] == 3001
        layer.node().stopping = False


class TestFrames:
    async def test_text_and_bytes(self) -> None:
        socket = open_socket()
        await socket.connect()
        await socket.send_to(bytes_data=b'{"id":1,"connect":{}}')
        assert '"connect":{' in await socket.receive_from()
        await socket.send_to(text_data='{"id":2,"subscribe":{"channel":"quiet/a"}}')
        assert '"subscribe":{' in await socket.receive_from()
        await socket.disconnect()

    async def test_a_disconnect_push_precedes_the_close(self) -> None:
        socket = open_socket()
        await socket.connect()
        await socket.send_to(text_data="nonsense")
        assert '"disconnect":{"code":3501,"reason":"bad request"' in await socket.receive_from()
        closed = await socket.receive_output()
        assert closed == {"type": "websocket.close", "code": 3501, "reason": "bad request"}
        await socket.disconnect()

    async def test_the_end_lets_everything_go(self, layer: LiveChannelLayer) -> None:
        async with live_client() as client:
            await client.subscribe("quiet/a")
            assert layer.node().hub.counts() == {"quiet/a": 1}
        assert layer.node().hub.counts() == {}


class TestChoices:
    async def test_personal_channel_if_it_is_declared(self) -> None:
        async with live_client(User(7)) as client:
            assert (await client.push("join"))["channel"] == "#7"
        with override_settings(LIVECHANNELS={"CHANNELS": CHANNELS[:-1]}):
            async with live_client(User(7)) as client:
                assert await client.nothing()
        async with live_client() as client:
            assert await client.nothing()

    async def test_a_subclass_decides(self) -> None:
        class Own(LiveConsumer):
            def conn_info(self, user: Any) -> Any:
                return {"initial": user.get_username()[0]}

            async def subscriptions(self, user: Any) -> list[str]:
                return ["room/lobby"]

        async with live_client(User(7), application=Own.as_asgi()) as client:
            join = await client.push("join")
            assert (join["channel"], join["join"]["info"]["conn_info"]) == ("room/lobby", {"initial": "a"})

    async def test_as_asgi_is_like_channels_own(self) -> None:
        assert application.consumer_class is LiveConsumer
        assert application.__name__ == "LiveConsumer"


class TestAbort:
    class Transport:
        cut = False

        def abort(self) -> None:
            self.cut = True

    class TwistedTransport:
        cut = False

        def abortConnection(self) -> None:
            self.cut = True

    class Server:
        def __init__(self, transport: Any) -> None:
            self.transport = transport

        async def send(self, message: Any) -> None: ...

        async def reply(self, protocol: Any, message: Any) -> None: ...

    def test_uvicorn(self) -> None:
        server = self.Server(self.Transport())
        assert abort(server.send)
        assert server.transport.cut

    def test_daphne(self) -> None:
        protocol = self.Server(self.TwistedTransport())
        assert abort(functools.partial(self.Server(None).reply, protocol))
        assert protocol.transport.cut

    def test_behind_the_session_middleware(self) -> None:
        server = self.Server(self.Transport())

        class Wrapper:
            real_send = server.send

            async def send(self, message: Any) -> None: ...

        assert abort(innermost(Wrapper().send))
        assert server.transport.cut

    def test_out_of_reach(self) -> None:
        async def send(message: Any) -> None: ...

        assert not abort(send)
        assert not abort(functools.partial(send))
