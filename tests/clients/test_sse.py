from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.test import AsyncClient, RequestFactory, override_settings

from livechannels.clients import sse
from livechannels.clients.connections import Connections
from livechannels.exceptions import EngineUnavailable
from livechannels.layer import LiveChannelLayer
from livechannels.testing import live_test_layer
from tests.clients.test_session import CHANNELS, allowed, configured

# The end of a response closes old connections, also those that other tests left in the database thread.
pytestmark = pytest.mark.django_db(transaction=True)
TIMEOUT = 10


@pytest.fixture(autouse=True)
async def layer() -> AsyncIterator[LiveChannelLayer]:
    allowed.clear()
    with override_settings(LIVECHANNELS={"CHANNELS": CHANNELS}), live_test_layer() as layer:
        yield layer
        await layer.node().close()


class Stream:
    """What a browser makes of the response."""

    def __init__(self, response: Any) -> None:
        self.response = response
        self.chunks = aiter(response.streaming_content)
        self.text = ""
        self.last_id = ""

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await sync_to_async(self.response.close)()
        await asyncio.sleep(0)

    async def block(self) -> str:
        """The next block of lines."""
        async with asyncio.timeout(TIMEOUT):
            while "\n\n" not in self.text:
                self.text += (await anext(self.chunks)).decode()
        block, _, self.text = self.text.partition("\n\n")
        return block

    async def event(self) -> tuple[str, Any]:
        """Kind and data of the next event, as EventSource dispatches them."""
        while True:
            fields = dict(line.split(": ", 1) for line in (await self.block()).splitlines() if ": " in line)
            self.last_id = fields.get("id", self.last_id)
            if "data" in fields:
                return fields.get("event", "message"), json.loads(fields["data"])

    async def datum(self) -> Any:
        kind, data = await self.event()
        assert kind == "message"
        return data["data"]

    async def ends(self) -> None:
        async with asyncio.timeout(TIMEOUT):
            while True:
                try:
                    await anext(self.chunks)
                except StopAsyncIteration:
                    return


async def listen(channel: str, headers: dict[str, str] | None = None, **query: Any) -> Stream:
    response = await AsyncClient().get("/live/events", {"channel": channel, **query}, headers=headers)
    assert response.status_code == 200, response.content
    assert response["Content-Type"].startswith("text/event-stream")
    return Stream(response)


class TestStream:
    async def test_last_frame_then_live(self, layer: LiveChannelLayer) -> None:
        await layer.publish("quiet/a", "old")
        await layer.publish("quiet/a", "last", tags={"k": "v"})
        async with await listen("quiet/a") as stream:
            kind, data = await stream.event()
            assert kind == "message"
            assert (data["data"], data["tags"], data["offset"]) == ("last", {"k": "v"}, 2)
            for number in range(20):
                await layer.publish("quiet/a", {"n": number})
            assert [(await stream.datum())["n"] for _ in range(20)] == list(range(20))

    async def test_history_as_asked(self, layer: LiveChannelLayer) -> None:
        for number in range(5):
            await layer.publish("quiet/a", number)
        async with await listen("quiet/a", history=3) as stream:
            assert [await stream.datum() for _ in range(3)] == [2, 3, 4]
        async with await listen("quiet/a", history=0) as stream:
            await layer.publish("quiet/a", "live")
            assert await stream.datum() == "live"

    async def test_resume(self, layer: LiveChannelLayer) -> None:
        await layer.publish("quiet/a", 1)
        async with await listen("quiet/a") as stream:
            await stream.event()
        for number in (2, 3):
            await layer.publish("quiet/a", number)
        for arguments in ({"headers": {"Last-Event-ID": stream.last_id}}, {"last_event_id": stream.last_id}):
            async with await listen("quiet/a", **arguments) as again:
                assert [await again.datum(), await again.datum()] == [2, 3]

    async def test_resume_from_silence(self, layer: LiveChannelLayer) -> None:
        async with await listen("quiet/a") as stream:
            await stream.block()
            place = await stream.block()
            assert place.startswith("id: ")
        await layer.publish("quiet/a", "missed")
        async with await listen("quiet/a", {"Last-Event-ID": place.removeprefix("id: ")}) as again:
            assert await again.datum() == "missed"

    async def test_a_gap_is_said(self, layer: LiveChannelLayer) -> None:
        await layer.publish("quiet/a", "newest")
        async with await listen("quiet/a", {"Last-Event-ID": "other:9"}) as stream:
            assert await stream.event() == ("gap", {"reason": "not recovered"})
            assert await stream.datum() == "newest"

    async def test_without_history(self, layer: LiveChannelLayer) -> None:
        async with await listen("plain/a") as stream:
            await layer.publish("plain/a", "line\nbreak")
            assert await stream.datum() == "line\nbreak"
            assert stream.last_id == ""

    async def test_heartbeat(self) -> None:
        with configured(ping_interval=0.01):
            async with await listen("plain/a") as stream:
                await stream.block()
                assert await stream.block() == ":"


class TestEnd:
    async def test_everything_is_let_go(self, layer: LiveChannelLayer) -> None:
        node = layer.node()
        async with await listen("quiet/a") as stream:
            await stream.block()
            assert node.hub.counts() == {"quiet/a": 1}
            assert len(Connections.of(node)) == 1
        assert node.hub.counts() == {}
        assert len(Connections.of(node)) == 0

    async def test_a_response_nobody_reads(self, layer: LiveChannelLayer) -> None:
        with configured(connect_deadline=0.01):
            stream = await listen("quiet/a")
            node = layer.node()
            async with asyncio.timeout(TIMEOUT):
                while node.hub.counts():
                    await asyncio.sleep(0.005)
            await stream.ends()

    async def test_a_slow_reader_has_to_come_back(self, layer: LiveChannelLayer) -> None:
        with configured(outbox_bytes=2000):
            async with await listen("quiet/a") as stream:
                await stream.block()
                for _ in range(20):
                    await layer.publish("quiet/a", "x" * 500)
                await stream.ends()
                assert layer.node().hub.counts() == {}

    async def test_lost_continuity(self, layer: LiveChannelLayer) -> None:
        async with await listen("quiet/a") as stream:
            layer.node().hub._live["quiet/a"]._dismiss_all("restart")
            await stream.ends()

    async def test_shutdown(self, layer: LiveChannelLayer) -> None:
        async with await listen("quiet/a") as stream:
            await layer.node().close()
            await stream.ends()


class TestRights:
    @pytest.fixture
    async def client(self) -> AsyncClient:
        self.user = await get_user_model().objects.acreate(username="ann")
        client = AsyncClient()
        await client.aforce_login(self.user)
        return client

    async def test_by_the_channels_methods(self, client: AsyncClient, layer: LiveChannelLayer) -> None:
        assert (await AsyncClient().get("/live/events", {"channel": "closed/a"})).status_code == 403
        allowed.add(self.user.pk)
        stream = Stream(await client.get("/live/events", {"channel": "closed/a"}))
        async with stream:
            await layer.broadcast("recheck", {"user": str(self.user.pk)})
            await layer.publish("closed/a", 1)
            assert await stream.datum() == 1
            allowed.clear()
            await layer.broadcast("recheck", {})
            await stream.ends()

    @pytest.mark.parametrize("kind", ["disconnect", "unsubscribe"])
    async def test_ended_by_the_server(self, client: AsyncClient, layer: LiveChannelLayer, kind: str) -> None:
        stream = Stream(await client.get("/live/events", {"channel": "quiet/a"}))
        async with stream:
            await layer.broadcast("unsubscribe", {"user": str(self.user.pk), "channel": "quiet/other"})
            await layer.publish("quiet/a", 1)
            assert await stream.datum() == 1
            await layer.broadcast(kind, {"user": str(self.user.pk), "channel": "quiet/a"})
            await stream.ends()

    async def test_logout(self, client: AsyncClient) -> None:
        stream = Stream(await client.get("/live/events", {"channel": "quiet/a"}))
        async with stream:
            await client.alogout()
            # The test client ends its session without the signal: the next look finds it.
            for connection in Connections.of(sse.live_layer(sse.settings.LAYER).node()):
                connection.recheck()
            await stream.ends()


class TestRefusals:
    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ({}, 400),
            ({"channel": "ü"}, 400),
            ({"channel": "nowhere"}, 404),
            ({"channel": "closed/a"}, 403),
            ({"channel": "quiet/a", "history": "x"}, 400),
            ({"channel": "quiet/a", "last_event_id": "x"}, 400),
            ({"channel": "quiet/a", "last_event_id": "x:y"}, 400),
            ({"channel": "quiet/a", "last_event_id": "x:-5"}, 400),
        ],
    )
    async def test_one_line_says_why(self, query: dict[str, str], status: int) -> None:
        response = await AsyncClient().get("/live/events", query)
        assert response.status_code == status
        assert response.content.count(b"\n") == 1

    async def test_foreign_pages(self) -> None:
        response = await AsyncClient().get(
            "/live/events", {"channel": "quiet/a"}, headers={"Origin": "http://evil.example"}
        )
        assert response.status_code == 403

    @pytest.mark.parametrize("limit", ["connections", "connections_per_user"])
    async def test_streams_count_as_connections(self, limit: str, layer: LiveChannelLayer, settings: Any) -> None:
        settings.LIVECHANNELS = {"CHANNELS": CHANNELS, "LIMITS": {limit: 1}}
        client = AsyncClient()
        user = await get_user_model().objects.acreate_user(f"user{time.monotonic_ns()}")
        await client.aforce_login(user)
        first = await client.get("/live/events", {"channel": "quiet/a"})
        async with Stream(first):
            second = await client.get("/live/events", {"channel": "quiet/a"})
            assert second.status_code == (503 if limit == "connections" else 429)
            assert len(Connections.of(layer.node())) == 1

    async def test_store_away(self, monkeypatch: Any, layer: LiveChannelLayer) -> None:
        async def away(*args: Any, **kwargs: Any) -> None:
            raise EngineUnavailable

        monkeypatch.setattr(layer.node().hub, "subscribe", away)
        response = await AsyncClient().get("/live/events", {"channel": "quiet/a"})
        assert (response.status_code, response["Retry-After"]) == (503, "2")
        assert len(Connections.of(layer.node())) == 0

    async def test_wsgi(self) -> None:
        response = await sse.events(RequestFactory().get("/live/events", {"channel": "quiet/a"}))
        assert response.status_code == 501
