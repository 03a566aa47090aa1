from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator
from django.contrib.auth import get_user_model
from django.test import AsyncClient, override_settings
from django.urls import path

from livechannels.asgi import live_application
from livechannels.layer import LiveChannelLayer
from livechannels.testing import live_test_layer


async def http(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204})


async def who(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": f"{scope['user'].username}|{scope['url_route']['kwargs']}"})


application = live_application(http=http, websocket=[path("who/<int:number>", who)])


@pytest.fixture(autouse=True)
async def layer() -> AsyncIterator[LiveChannelLayer]:
    with live_test_layer() as layer:
        yield layer


def socket(path: str, **headers: str) -> WebsocketCommunicator:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return WebsocketCommunicator(application, path, headers=pairs)


async def test_anonymous_needs_no_database() -> None:
    communicator = socket("/who/1")
    assert (await communicator.connect())[0]
    assert await communicator.receive_from() == "|{'number': 1}"


@pytest.mark.django_db(transaction=True)
async def test_session_cookie() -> None:
    user = await get_user_model().objects.acreate(username="ann")
    client = AsyncClient()
    await client.aforce_login(user)
    communicator = socket("/who/1", cookie=f"sessionid={client.cookies['sessionid'].value}")
    assert (await communicator.connect())[0]
    assert (await communicator.receive_from()).startswith("ann|")


@pytest.mark.django_db(transaction=True)
async def test_unknown_session_is_anonymous() -> None:
    communicator = socket("/who/1", cookie="sessionid=x")
    assert (await communicator.connect())[0]
    assert (await communicator.receive_from()).startswith("|")


@pytest.mark.parametrize("where", ["/nowhere", "/who/x", "/who/1/more", "/"])
async def test_unknown_paths_are_refused(where: str) -> None:
    assert (await socket(where).connect())[0] is False


async def test_foreign_pages_are_refused() -> None:
    assert (await socket("/who/1", origin="http://evil.example").connect())[0] is False
    assert (await socket("/who/1", origin="http://testserver").connect())[0] is True


async def test_http_is_left_alone() -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    await application({"type": "http"}, None, send)
    assert sent[0]["status"] == 204


class TestLifespan:
    async def run(self) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "lifespan.startup" if not sent else "lifespan.shutdown"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await application({"type": "lifespan"}, receive, send)
        return sent

    async def test_the_node_lives_as_long_as_the_server(self, layer: LiveChannelLayer) -> None:
        sent = await self.run()
        assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert layer.node().stopping

    async def test_a_wrong_setting_stops_the_start(self) -> None:
        with override_settings(LIVECHANNELS={"LAYER": "nowhere"}):
            (failed,) = await self.run()
        assert failed["type"] == "lifespan.startup.failed"
        assert "nowhere" in failed["message"]
