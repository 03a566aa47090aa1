"""F17: a browser that never reads, among others that do: its memory is bounded, the others notice nothing, it goes."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import psutil
import pytest
from websockets.asyncio.client import connect

from livechannels.layer import LiveChannelLayer
from tests.sdk.conftest import Start, start, users  # noqa: F401 - fixtures
from tests.sdk.servers import Server

pytestmark = pytest.mark.fault

CHANNEL = "plain/flood"
SUBSCRIBE = '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"%s"}}'
OTHERS, MESSAGES, SIZE = 5, 4000, 4000
AHEAD = 64
WINDOW, OUTBOX = 262_144, 1_048_576
MIB = 1024 * 1024


async def never_read(server: Server) -> socket.socket:
    """A subscriber with a small receive buffer whose owner has gone to lunch."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", server.port))
    sock.settimeout(10)
    sock.sendall(
        b"GET /live/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert b"101" in await asyncio.to_thread(sock.recv, 4096)
    body = (SUBSCRIBE % CHANNEL).encode()
    sock.sendall(bytes([0x81, 0x80 | len(body)]) + bytes(4) + body)
    while b'"subscribe"' not in await asyncio.to_thread(sock.recv, 4096):
        pass
    return sock


class Reader:
    """One of the others."""

    def __init__(self, server: Server) -> None:
        self.url = server.ws
        self.ready = asyncio.Event()
        self.latencies: list[float] = []

    async def run(self) -> None:
        async with connect(self.url, compression=None, max_size=None) as ws:
            await ws.send(SUBSCRIBE % CHANNEL)
            while len(self.latencies) < MESSAGES:
                for line in str(await ws.recv()).split("\n"):
                    message = json.loads(line)
                    if not message:
                        await ws.send("{}")
                    elif message.get("id") == 2:
                        self.ready.set()
                    elif "push" in message:
                        self.latencies.append(time.time() - message["push"]["pub"]["data"]["t"])


def sockets_of(server: Server, local: socket.socket) -> int:
    """How many sockets the server still has for that client."""
    port = local.getsockname()[1]
    return sum(
        bool(found.raddr) and found.raddr.port == port
        for found in psutil.Process(server.process.pid).net_connections("tcp")
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_a_browser_that_never_reads(start: Start, redis_url: str, prefix: str, kind: str) -> None:  # noqa: F811
    server = start({"hosts": [redis_url], "prefix": prefix}, kind)
    layer = LiveChannelLayer(hosts=[redis_url], prefix=prefix)
    readers = [Reader(server) for _ in range(OTHERS)]
    running = [asyncio.create_task(reader.run()) for reader in readers]
    await asyncio.gather(*(reader.ready.wait() for reader in readers))
    pairs = list(zip(readers, running, strict=True))
    process = psutil.Process(server.process.pid)

    published = 0

    async def publish(count: int) -> None:
        """As fast as those who read can read."""
        nonlocal published
        for _ in range(count):
            published += 1
            await layer.publish(CHANNEL, {"t": time.time(), "text": "x" * SIZE})
            while any(published - len(reader.latencies) > AHEAD and not task.done() for reader, task in pairs):
                await asyncio.sleep(0.001)

    await publish(MESSAGES // 4)
    before = process.memory_info().rss
    slow = await never_read(server)
    try:
        await publish(MESSAGES // 4)
        grown = process.memory_info().rss - before
        flooded = time.monotonic()
        await publish(MESSAGES // 2)
        async with asyncio.timeout(60):
            await asyncio.gather(*running)
        assert all(len(reader.latencies) == MESSAGES for reader in readers)
        assert grown < WINDOW + OUTBOX + MIB / 2, (
            f"{grown / MIB:.1f} MiB; the flood was {MESSAGES // 4 * SIZE / MIB:.0f}"
        )
        while sockets_of(server, slow):
            assert time.monotonic() - flooded < 15, "the socket of the one who never reads is still there"
            await asyncio.sleep(0.1)
    finally:
        slow.close()
        await layer.close()
