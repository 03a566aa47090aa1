"""The clients of the browser's table: many WebSockets in one process, which count and do as little else as possible."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Callable

HANDSHAKE = (
    "GET /live/ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Origin: http://127.0.0.1:{port}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nPragma: no-cache\r\n"
    "Cache-Control: no-cache\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0\r\n"
    "Cookie: {cookie}\r\n\r\n"
)
STAMP = b'{"t":'


def handshake(port: int) -> bytes:
    """What a Chrome says first, signed in if COOKIE says so."""
    return HANDSHAKE.format(port=port, cookie=os.environ.get("COOKIE", "theme=dark")).encode()


def masked(text: bytes) -> bytes:
    """A text frame of a client; the mask is zero, which is a mask too."""
    size = len(text)
    head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE)) + size.to_bytes(2, "big")
    return head + bytes(4) + text


PONG = masked(b"{}")


class Client(asyncio.Protocol):
    """One browser. `on_messages` is told who got how many publications in a frame, and the frame."""

    def __init__(self, port: int, hello: str, on_messages: Callable[[Client, int, bytes], None]) -> None:
        self.got = 0
        self._port, self._hello, self._on_messages = port, hello.encode(), on_messages
        self._buffer = b""
        self._open = False
        self._subscribed = not hello
        self.position: tuple[str, int] | None = None
        self.recovered = 0
        self.lost = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(handshake(self._port))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not self._open:
            head, end, buffer = buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            assert b" 101 " in head, head
            self._open = True
            if self._hello:
                self._transport.write(masked(self._hello))
            else:
                self.ready.set_result(None)
        at, size = 0, len(buffer)
        while size - at >= 2:
            length, begin = buffer[at + 1], at + 2
            if length == 126:
                length, begin = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, begin = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if begin + length > size:
                break
            self._frame(buffer[at], buffer[begin : begin + length])
            at = begin + length
        self._buffer = buffer[at:]

    def _frame(self, opcode: int, text: bytes) -> None:
        if opcode == 0x89:
            self._transport.write(b"\x8a\x80\0\0\0\0")
        elif text == b"{}":
            self._transport.write(PONG)
        elif self._subscribed:
            self._on_messages(self, text.count(STAMP), text)
        elif b'"id":2' in text:
            assert b'"error"' not in text, text
            self._subscribed = True
            reply = json.loads(text[text.index(b'{"id":2') :].partition(b"\n")[0])["subscribe"]
            self.position = reply.get("epoch", ""), reply.get("offset", 0)
            self.recovered = len(reply.get("publications", ())) if reply.get("recovered") else 0
            self.ready.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(f"closed while connecting: {error}"))

    def cut(self) -> None:
        self._transport.abort()


class Crowd:
    """Clients. With a `credit` pipe, a byte is written to it for each publication that all have got."""

    def __init__(self, port: int, hello: str, credit: int | None = None) -> None:
        self.port, self.hello, self.credit = port, hello, credit
        self.clients: list[Client] = []
        self.count = 0
        self.last = time.perf_counter()
        self.latencies: list[float] | None = None
        self._arrived: Counter[int] = Counter()

    async def grow(self, number: int, together: int = 50) -> None:
        """Connect so many more, at most `together` at a time."""
        free = asyncio.Semaphore(together)
        await asyncio.gather(*(self._connect(free) for _ in range(number)))

    async def _connect(self, free: asyncio.Semaphore) -> None:
        loop = asyncio.get_running_loop()
        async with free:
            _, client = await loop.create_connection(
                lambda: Client(self.port, self.hello, self._on_messages), "127.0.0.1", self.port
            )
            await client.ready
        self.clients.append(client)

    def cut(self) -> None:
        """All lose their connection at once."""
        for client in self.clients:
            client.cut()

    def _on_messages(self, client: Client, number: int, text: bytes) -> None:
        self.count += number
        self.last = time.perf_counter()
        if self.latencies is not None:
            now = time.monotonic_ns()
            for part in text.split(STAMP)[1:]:
                if sent := int(part[: part.index(b",")]):
                    self.latencies.append((now - sent) / 1e6)
        if self.credit is not None:
            arrived, everywhere = self._arrived, 0
            for at in range(client.got, client.got + number):
                arrived[at] += 1
                if arrived[at] == len(self.clients):
                    del arrived[at]
                    everywhere += 1
            client.got += number
            if everywhere:
                os.write(self.credit, b"." * everywhere)
