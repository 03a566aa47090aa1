from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
import websockets
from channels.layers import channel_layers
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.testing import WebsocketCommunicator
from django.core.asgi import get_asgi_application
from django.test import AsyncClient, Client
from django.urls import path

from livechannels.engines.base import Command
from livechannels.exceptions import EngineUnavailable
from livechannels.layer import LiveChannelLayer
from livechannels.node.activity import active_channels
from livechannels.push.endpoint import PushConsumer
from livechannels.testing import live_test_layer

TOKEN = "test-push-token-of-32-characters"
BEARER = f"Bearer {TOKEN}"
URL = "/live/push/telegraf"
CPU = "stream/telegraf/cpu"

# What Telegraf's influx serializer makes of one flush of its cpu, mem and system inputs.
BATCH = (
    b"cpu,cpu=cpu0,host=web\\ 1 usage_idle=97.5,usage_user=1.5000000000000002 1763800000000000000\n"
    b"cpu,cpu=cpu1,host=web\\ 1 usage_idle=98i,usage_user=0 1763800000000000000\n"
    b"mem,host=web\\ 1 available=6442450944i,used_percent=25.25 1763800000000000000\n"
    b'system,host=web\\ 1 uptime_format="1 day,\n 2:03",n_cpus=2i 1763800000000000000\n'
)
BATCH_TIMES = {"stream/telegraf/cpu": 2, "stream/telegraf/mem": 1, "stream/telegraf/system": 1}


@pytest.fixture
def layer() -> Iterator[LiveChannelLayer]:
    with live_test_layer() as fresh:
        yield fresh


class Away(LiveChannelLayer):
    """A layer whose store cannot be reached."""

    async def run(self, command: Command) -> Any:
        raise EngineUnavailable(f"redis://cache:6379 cannot be reached\n{type(command).__name__}")


@pytest.fixture
def away() -> Iterator[LiveChannelLayer]:
    before = channel_layers.set("default", Away(ha_engine="memory"))
    yield channel_layers["default"]
    channel_layers.set("default", before)


async def post(body: bytes, url: str = URL, authorization: str | None = BEARER, **headers: str) -> tuple[int, str, Any]:
    extra = {"Authorization": authorization} if authorization is not None else {}
    answer = await AsyncClient(enforce_csrf_checks=True).post(
        url, body, content_type="text/plain; charset=utf-8", headers={**extra, **headers}
    )
    text = answer.content.decode()
    if answer.status_code != 204:
        assert answer["Content-Type"] == "text/plain; charset=utf-8"
        assert text.endswith("\n")
        assert len(text.splitlines()) == 1
        assert len(answer.content) <= 1024
    return answer.status_code, text, answer.headers


async def rows(layer: LiveChannelLayer, channel: str = CPU) -> int:
    history = await layer.history(channel)
    return sum(len(publication.data["data"]["values"][0]) for publication in history.publications)


async def test_good_lines_are_answered_204_and_published(layer) -> None:
    assert (await post(b"cpu usage=1"))[:2] == (204, "")
    [publication] = (await layer.history(CPU)).publications
    assert publication.data["data"]["values"][1] == [1]
    assert list(publication.tags) == ["schema"]


async def test_an_empty_body_is_good(layer) -> None:
    assert (await post(b""))[0] == 204


async def test_bad_lines_are_answered_400_with_the_first_and_the_good_ones_kept(layer) -> None:
    status, text, _ = await post(b"cpu usage=1\ncpu usage=\nnothing\ncpu usage=2\n")
    assert status == 400
    assert text == "line 2: cannot parse value of field in 'cpu usage='; 2 of 4 rejected\n"
    assert await rows(layer) == 2


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
async def test_without_a_token_nothing_is_taken(layer, authorization: str | None) -> None:
    status, text, headers = await post(b"cpu usage=1", authorization=authorization)
    assert status == 401
    assert "PUSH_TOKENS" in text
    assert TOKEN not in text
    assert headers["WWW-Authenticate"] == "Bearer"
    assert await rows(layer) == 0


async def test_no_tokens_configured_means_nobody_may_push(layer, settings) -> None:
    settings.LIVECHANNELS = {**settings.LIVECHANNELS, "PUSH_TOKENS": []}
    assert (await post(b"cpu usage=1"))[0] == 401
    settings.LIVECHANNELS = {**settings.LIVECHANNELS, "PUSH_TOKENS": ["", "second"]}
    assert (await post(b"cpu usage=1", authorization="Bearer "))[0] == 401
    assert (await post(b"cpu usage=1", authorization="Bearer second"))[0] == 204


async def test_other_methods(layer) -> None:
    answer = await AsyncClient().get(URL)
    assert (answer.status_code, answer["Allow"]) == (405, "POST")


@pytest.mark.parametrize("url", ["/live/push/no.slug", "/live/push/a%20b", "/live/push/" + "x" * 300])
async def test_a_stream_without_live_channel_is_answered_404(layer, url: str) -> None:
    status, text, _ = await post(b"cpu usage=1", url)
    assert status == 404
    assert "stream/" in text


async def test_precision(layer) -> None:
    assert (await post(b"cpu usage=1 1763800000", URL + "?precision=s"))[0] == 204
    [publication] = (await layer.history(CPU)).publications
    assert publication.data["data"]["values"][0] == [1763800000000]
    assert (await post(b"cpu usage=1", URL + "?precision=days"))[:2] == (
        400,
        "precision 'days' is unknown; use ns, us, ms or s\n",
    )


async def test_bodies_over_the_limits_are_answered_413(layer, settings) -> None:
    limits = {"push_body_bytes": 2000, "push_compressed_bytes": 1000}
    settings.LIVECHANNELS = {**settings.LIVECHANNELS, "LIMITS": limits}
    for body, encoding in [
        (b"cpu usage=1\n" * 200, "identity"),
        (gzip.compress(b"cpu usage=1\n" * 200), "gzip"),
        (gzip.compress(bytes(range(256)) * 4, 0), "gzip"),
    ]:
        status, text, _ = await post(body, **{"Content-Encoding": encoding})
        assert status == 413
        assert "smaller batches" in text
    assert await rows(layer) == 0
    assert (await post(b"cpu usage=1\n" * 150))[0] == 204


async def test_the_default_limit_is_above_djangos_and_a_bomb_is_refused(layer) -> None:
    assert (await post(b"cpu usage=1 1\n" * 140_000))[0] == 204
    assert (await post(b"# comment\n" * 220_000))[0] == 413
    assert (await post(gzip.compress(bytes(100_000_000)), **{"Content-Encoding": "gzip"}))[0] == 413


async def test_broken_and_unknown_encodings(layer) -> None:
    assert (await post(b"cpu usage=1", **{"Content-Encoding": "gzip"}))[0] == 400
    assert (await post(gzip.compress(b"cpu usage=1") * 2, **{"Content-Encoding": "gzip"}))[0] == 400
    assert (await post(b"cpu usage=1", **{"Content-Encoding": "br"}))[:2] == (
        415,
        "Content-Encoding 'br' is not supported; use gzip or identity.\n",
    )
    assert await rows(layer) == 0


async def test_while_the_store_is_away_503_asks_to_come_again(away) -> None:
    status, text, headers = await post(b"cpu usage=1")
    assert (status, headers["Retry-After"]) == (503, "2")
    assert text == "redis://cache:6379 cannot be reached Read\n"


def test_a_wsgi_server_pushes_too() -> None:
    with live_test_layer() as layer:
        answer = Client(enforce_csrf_checks=True).post(
            URL, gzip.compress(BATCH), "text/plain", headers={"Authorization": BEARER, "Content-Encoding": "gzip"}
        )
        assert answer.status_code == 204
        assert len(layer.history_sync(CPU).publications) == 1


# WebSocket

application = URLRouter([path("live/push/<str:stream_id>", PushConsumer.as_asgi())])


@asynccontextmanager
async def pusher(
    url: str = URL, authorization: bytes = BEARER.encode(), **scope: Any
) -> AsyncIterator[WebsocketCommunicator]:
    communicator = WebsocketCommunicator(application, url, [(b"authorization", authorization)])
    communicator.scope.update(scope)
    try:
        yield communicator
    finally:
        await communicator.disconnect()


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.005)


async def test_messages_are_bodies_text_or_binary_and_good_ones_are_not_answered(layer) -> None:
    async with pusher(URL + "?precision=s") as socket:
        assert (await socket.connect())[0]
        await socket.send_to(bytes_data=b"cpu usage=1 1763800000\n")
        await socket.send_to(text_data="cpu usage=2 1763800001\n")
        await socket.send_to(bytes_data=b"cpu usage=3\nbad\n")
        assert await socket.receive_from() == "line 2: cannot parse measurement in 'bad'; 1 of 2 rejected"
        assert await rows(layer) == 3


async def test_after_an_error_the_connection_goes_on(layer, caplog) -> None:
    async with pusher("/live/push/no.slug") as socket:
        await socket.connect()
        for _ in range(2):
            await socket.send_to(bytes_data=b"cpu usage=1")
            assert "stream/no.slug/cpu" in await socket.receive_from()
    assert [record.getMessage()[:13] for record in caplog.records] == ["push/no.slug:"] * 2


async def test_a_message_over_the_limit_ends_the_connection(layer, settings) -> None:
    settings.LIVECHANNELS = {**settings.LIVECHANNELS, "LIMITS": {"push_body_bytes": 20}}
    async with pusher() as socket:
        await socket.connect()
        await socket.send_to(bytes_data=b"cpu usage=1" * 2)
        assert "larger than 20 bytes" in await socket.receive_from()
        assert await socket.receive_output() == {"type": "websocket.close", "code": 1009}


@pytest.mark.parametrize("authorization", [b"", b"Bearer wrong", b"Bearer \xff"])
async def test_a_wrong_token_is_refused_before_accept(layer, authorization: bytes) -> None:
    async with pusher(authorization=authorization) as socket:
        await socket.send_input({"type": "websocket.connect"})
        assert await socket.receive_output() == {"type": "websocket.close"}
    async with pusher(authorization=authorization, extensions={"websocket.http.response": {}}) as socket:
        await socket.send_input({"type": "websocket.connect"})
        assert (await socket.receive_output())["status"] == 401
        assert b"PUSH_TOKENS" in (await socket.receive_output())["body"]


async def test_while_the_store_is_away_the_sender_is_sent_away_with_its_batches(away, monkeypatch) -> None:
    async with pusher() as socket:
        assert (await socket.connect())[0]
        await socket.send_to(bytes_data=b"cpu usage=1")
        assert "cannot be reached" in await socket.receive_from()
        assert await socket.receive_output() == {"type": "websocket.close", "code": 1013}
    monkeypatch.setattr(away, "health", lambda: {"status": "degraded", "detail": "connection refused"})
    async with pusher(extensions={"websocket.http.response": {}}) as socket:
        await socket.send_input({"type": "websocket.connect"})
        assert (await socket.receive_output())["status"] == 503
        assert b"connection refused" in (await socket.receive_output())["body"]


# Telegraf's own requests, on a real server


@asynccontextmanager
async def server() -> AsyncIterator[int]:
    """The test project on a real ASGI server in this loop; yields its port."""
    app = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": application})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, lifespan="off", log_config=None, ws="websockets-sansio")
        running = uvicorn.Server(config)
        task = asyncio.create_task(running.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            running.should_exit = True
            await task


async def exchange(port: int, request: bytes) -> tuple[bytes, bytes]:
    """One raw HTTP request; status line, and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    body = b""
    if b"transfer-encoding: chunked" in head.lower():
        while size := int(await asyncio.wait_for(reader.readline(), 10), 16):
            body += (await reader.readexactly(size + 2))[:-2]
    writer.close()
    await writer.wait_closed()
    return head.partition(b"\r\n")[0], body


def telegraf_http(port: int, body: bytes, *, compressed: bool, token: str = TOKEN) -> bytes:
    """outputs.http as Go's client writes it: with gzip the body comes through a pipe, hence in chunks."""
    head = f"POST /live/push/telegraf HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: Telegraf/1.36.3 Go/1.25.1\r\n"
    authorization = f"Authorization: Bearer {token}\r\n"
    content_type = "Content-Type: text/plain; charset=utf-8\r\n"
    if not compressed:
        head += f"Content-Length: {len(body)}\r\n{authorization}{content_type}Accept-Encoding: gzip\r\n\r\n"
        return head.encode() + body
    head += f"Transfer-Encoding: chunked\r\n{authorization}Content-Encoding: gzip\r\n{content_type}"
    packed = gzip.compress(body, mtime=0)
    pieces = [packed[:10], packed[10:-8], packed[-8:]]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head.encode() + b"Accept-Encoding: gzip\r\n\r\n" + chunks + b"0\r\n\r\n"


@pytest.mark.parametrize("compressed", [True, False])
async def test_outputs_http_byte_for_byte(layer, compressed: bool) -> None:
    async with server() as port:
        status, body = await exchange(port, telegraf_http(port, BATCH, compressed=compressed))
        assert (status, body) == (b"HTTP/1.1 204 No Content", b"")
        assert {channel: await rows(layer, channel) for channel in BATCH_TIMES} == BATCH_TIMES
        [system] = (await layer.history("stream/telegraf/system")).publications
        assert system.data["data"]["values"] == [[1763800000000], ["host=web 1"], [2], ["1 day,\n 2:03"]]
        status, body = await exchange(port, telegraf_http(port, b"bad\n" + BATCH, compressed=compressed))
        assert status == b"HTTP/1.1 400 Bad Request"
        assert body == b"line 1: cannot parse measurement in 'bad'; 1 of 5 rejected\n"
        status, body = await exchange(port, telegraf_http(port, BATCH, compressed=compressed, token="wrong"))
        assert status == b"HTTP/1.1 401 Unauthorized"


async def test_a_batch_that_telegraf_repeats_is_stored_once(layer) -> None:
    async with server() as port:
        for _ in range(3):
            assert b"204" in (await exchange(port, telegraf_http(port, BATCH, compressed=True)))[0]
    assert {channel: await rows(layer, channel) for channel in BATCH_TIMES} == BATCH_TIMES


@pytest.mark.parametrize("opcode", [0x82, 0x81])
async def test_outputs_websocket_byte_for_byte(layer, opcode: int) -> None:
    """The handshake of gorilla/websocket: no Origin, no extensions; then masked frames."""
    async with server() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET /live/push/telegraf HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: Go-http-client/1.1\r\n"
            f"Authorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\r\n".encode()
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 101 ")
        for payload in (BATCH, b"bad\n"):
            length = (
                bytes([0xFE]) + len(payload).to_bytes(2, "big") if len(payload) > 125 else bytes([0x80 + len(payload)])
            )
            mask = b"\x12\x34\x56\x78"
            masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
            writer.write(bytes([opcode]) + length + mask + masked)
        answer = await asyncio.wait_for(reader.readexactly(2), 10)
        assert answer[0] == 0x81
        assert await reader.readexactly(answer[1]) == b"line 1: cannot parse measurement in 'bad'; 1 of 1 rejected"
        assert {channel: await rows(layer, channel) for channel in BATCH_TIMES} == BATCH_TIMES
        writer.close()
        await writer.wait_closed()


async def test_a_websocket_with_a_wrong_token_gets_401_from_a_server_that_can_say_it(layer) -> None:
    async with server() as port:
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(f"ws://127.0.0.1:{port}{URL}", additional_headers={"Authorization": "Bearer no"})
        assert caught.value.response.status_code == 401


async def test_a_viewer_sees_what_was_pushed_over_either_way(layer) -> None:
    name = await layer.new_channel()
    await layer.subscribe(CPU, name)
    try:
        async with pusher() as socket:
            await socket.connect()
            await socket.send_to(bytes_data=b"cpu usage=1 1000000")
            first = await asyncio.wait_for(layer.receive(name), 10)
            await post(b"cpu usage=2 2000000")
            second = await asyncio.wait_for(layer.receive(name), 10)
    finally:
        await layer.close()
    assert [json.dumps(event["data"]["data"]["values"]) for event in (first, second)] == [
        "[[1], [1.0]]",
        "[[2], [2.0]]",
    ]
    assert first["tags"] == second["tags"]


# On a real store


@asynccontextmanager
async def on_redis(url: str, prefix: str) -> AsyncIterator[tuple[LiveChannelLayer, LiveChannelLayer]]:
    """Two nodes: the one that is pushed to, and another."""
    pushed, other = (LiveChannelLayer(hosts=[url], prefix=prefix) for _ in range(2))
    before = channel_layers.set("default", pushed)
    try:
        yield pushed, other
    finally:
        await pushed.close()
        await other.close()
        channel_layers.set("default", before)


async def test_what_is_pushed_to_one_node_is_seen_on_the_other(redis_url: str, prefix: str) -> None:
    async with on_redis(redis_url, prefix) as (_, other):
        name = await other.new_channel()
        await other.subscribe(CPU, name)
        assert (await post(gzip.compress(BATCH), **{"Content-Encoding": "gzip"}))[0] == 204
        event = await asyncio.wait_for(other.receive(name), 10)
        assert event["data"]["schema"]["name"] == "cpu"
        assert await rows(other) == 2
        assert [(one.channel, one.rate) for one in await active_channels(other)] == [
            (channel, 1) for channel in sorted(BATCH_TIMES)
        ]


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
async def test_a_push_that_redis_cannot_take_reaches_nobody_and_the_repeat_does(own_redis, prefix, fault: str) -> None:
    async with on_redis(own_redis.url, prefix) as (pushed, _):
        name = await pushed.new_channel()
        await pushed.subscribe(CPU, name)
        assert (await post(b"cpu usage=1"))[0] == 204
        assert (await asyncio.wait_for(pushed.receive(name), 10))["data"]["data"]["values"][1] == [1]
        own_redis.kill() if fault == "stopped" else own_redis.freeze()
        async with asyncio.timeout(10):
            status, text, _ = await post(b"cpu usage=2")
        assert (status, len(text.splitlines())) == (503, 1)
        own_redis.start() if fault == "stopped" else own_redis.thaw()

        # Redis lost its data in "stopped": the viewer's feed has to find its place in the new epoch first.
        receiving = asyncio.ensure_future(pushed.receive(name))

        async def seen() -> bool:
            await post(b"cpu usage=3")
            return receiving.done()

        await until(seen)
        assert receiving.result()["data"]["data"]["values"][1] == [3]
