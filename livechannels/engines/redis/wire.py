"""One Redis connection on an event loop: requests of one turn leave in one write, replies come back in order.

redis-py connects (so TLS, AUTH, ACL, Sentinel and unix sockets are its business); then we write and read on its
stream. `ProtocolWire` takes over the transport; `StreamWire` stays within redis-py's public methods and is the
fallback should a redis-py release move what the first one needs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection

from .replies import Lost, ReplyError, from_redis_py
from .requests import pack

REPLY_WITHIN = 1.0
CLOSE_WITHIN = 1.0
PENDING_LIMIT = 100_000
WRITE_LIMIT = 4 * 1024 * 1024
FEED = 16 * 1024
"""Bytes that hiredis gets at once: it moves what is left of them after every reply."""


class Wire:
    """Requests out, replies in. A wire breaks once and for good; `broken` is done from then on.

    A request unanswered for `REPLY_WITHIN` seconds breaks the wire: later replies could not be trusted to match.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self.loop = asyncio.get_running_loop()
        self.broken: asyncio.Future[str] = self.loop.create_future()
        self._connection = connection
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._answered = 0.0
        self._out: list[bytes] = []
        self._flushing = False
        self._watch: asyncio.TimerHandle | None = None

    def call(self, *args: Any) -> asyncio.Future[Any]:
        """Send one command; the future gets its reply, a ReplyError, or Lost. Never cancelled half-way."""
        return self.call_packed(pack(args))

    def call_packed(self, command: bytes) -> asyncio.Future[Any]:
        """`call` for a command in Redis' own notation."""
        answer: asyncio.Future[Any] = self.loop.create_future()
        pending = self._pending
        if self.broken.done():
            _refuse(answer, Lost(self.broken.result(), sent=False))
        elif len(pending) >= PENDING_LIMIT:
            _refuse(answer, Lost("too many requests are waiting for an answer", sent=False))
        else:
            self._out.append(command)
            pending.append(answer)
            if len(pending) == 1:
                self._answered = self.loop.time()
                if self._watch is None:
                    self._watch = self.loop.call_later(REPLY_WITHIN, self._check)
                if not self._flushing:
                    self._flush()
            elif not self._flushing:
                self._flushing = True
                self.loop.call_soon(self._flush)
        return answer

    def call_together(self, commands: Iterable[bytes]) -> list[asyncio.Future[Any]]:
        """`call_packed` for several commands, in one write."""
        idle, flushing, self._flushing = not self._pending, self._flushing, True
        answers = [self.call_packed(command) for command in commands]
        if not flushing:
            self._flush() if idle else self.loop.call_soon(self._flush)
        return answers

    def send(self, *commands: tuple[Any, ...]) -> None:
        """Send commands whose replies are handed to `on_reply`, at once and in one write."""
        self._out += [pack(command) for command in commands]
        self._flush()

    def _flush(self) -> None:
        self._flushing = False
        out, self._out = self._out, []
        if out and not self.broken.done():
            self._write(b"".join(out))

    def on_reply(self, reply: Any) -> None:
        """The next reply; subclasses that subscribe take it from here."""
        if not self._pending:
            self.fail("Redis sent a reply nobody asked for")
            return
        answer = self._pending.popleft()
        if not answer.done():
            if isinstance(reply, ReplyError):
                _refuse(answer, reply)
            else:
                answer.set_result(reply)

    def _check(self) -> None:
        self._watch = None
        if not self._pending or self.broken.done():
            return
        left = self._answered + REPLY_WITHIN - self.loop.time()
        if left <= 0:
            self.fail(f"no answer within {REPLY_WITHIN} s")
        else:
            self._watch = self.loop.call_later(left, self._check)

    def fail(self, why: str) -> None:
        """Break the wire: every pending request gets Lost, the socket is closed at once."""
        if self.broken.done() or self.loop.is_closed():
            return  # a loop closed without goodbye leaves its sockets to the garbage collector
        self.broken.set_result(why)
        pending, self._pending = self._pending, deque()
        for answer in pending:
            if not answer.done():
                _refuse(answer, Lost(why, sent=True))
        if self._watch is not None:
            self._watch.cancel()
        self._abort()

    def _write(self, data: bytes) -> None:
        raise NotImplementedError

    def _abort(self) -> None:
        raise NotImplementedError


def _refuse(answer: asyncio.Future[Any], error: Exception) -> None:
    answer.set_exception(error)
    answer.exception()  # who asked may have gone, or given up at an earlier answer: no reason to complain


class ProtocolWire(Wire, asyncio.Protocol):
    """The fast one: this object is the transport's protocol, hiredis reads straight from the socket."""

    def __init__(self, connection: AbstractConnection) -> None:
        super().__init__(connection)
        self._reader = hiredis.Reader(replyError=ReplyError, protocolError=ConnectionError)
        self._stream = connection._writer
        connection._reader = connection._writer = None  # redis-py shall neither close nor complain about it
        self._transport: Any = self._stream.transport  # type: ignore[union-attr]
        self._displaced = self._transport.get_protocol()
        self._transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        try:
            for start in range(0, len(data), FEED):
                reader.feed(data, start, min(FEED, len(data) - start))
                while (reply := reader.gets()) is not False:
                    self.on_reply(reply)
            self._answered = self.loop.time()
        except ConnectionError as error:
            self.fail(f"unreadable answer: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._displaced.connection_lost(error)
        self.fail(str(error) if error else "Redis closed the connection")

    def eof_received(self) -> bool:
        return False

    def _write(self, data: bytes) -> None:
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > WRITE_LIMIT * 4:
            self.fail("Redis takes nothing more")

    def _abort(self) -> None:
        self._transport.abort()


class StreamWire(Wire):
    """The portable one: redis-py's own public methods, one reader task."""

    def __init__(self, connection: AbstractConnection) -> None:
        super().__init__(connection)
        connection.socket_timeout = None
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._tasks = [
            self.loop.create_task(self._read(), name="livechannels-redis-read"),
            self.loop.create_task(self._send(), name="livechannels-redis-write"),
        ]

    async def _read(self) -> None:
        from redis.exceptions import RedisError, ResponseError

        try:
            while True:
                try:
                    reply = await self._connection.read_response(timeout=None, disconnect_on_error=False)
                except ResponseError as error:
                    self.on_reply(from_redis_py(error))
                else:
                    self.on_reply(reply)
                self._answered = self.loop.time()
        except (RedisError, OSError) as error:
            self.fail(str(error) or "Redis closed the connection")

    async def _send(self) -> None:
        from redis.exceptions import RedisError

        try:
            while True:
                await self._connection.send_packed_command([await self._outbox.get()], check_health=False)
        except (RedisError, OSError) as error:
            self.fail(str(error) or "Redis closed the connection")

    def _write(self, data: bytes) -> None:
        self._outbox.put_nowait(data)

    def _abort(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.loop.create_task(self._connection.disconnect(nowait=True))


class Subscriber:
    """Turns a wire into a subscribed one: messages and confirmations go to callbacks instead of futures."""

    def __init__(
        self,
        wire: Wire,
        on_message: Callable[[str, bytes], None],
        on_subscribed: Callable[[str], None],
        *,
        sharded: bool = False,
        on_unsubscribed: Callable[[str], None] = lambda name: None,
        on_moved: Callable[[int], None] = lambda slot: None,
        on_pong: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_pong = on_pong
        self.wire = wire
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._on_unsubscribed = on_unsubscribed
        self._on_moved = on_moved
        self._sharded = sharded
        self._words = ("SSUBSCRIBE", "SUNSUBSCRIBE") if sharded else ("SUBSCRIBE", "UNSUBSCRIBE")
        wire.on_reply = self._on_reply  # type: ignore[method-assign]

    def subscribe(self, names: list[str]) -> None:
        self._send(self._words[0], names)

    def unsubscribe(self, names: list[str]) -> None:
        self._send(self._words[1], names)

    def _send(self, word: str, names: list[str]) -> None:
        each = 1 if self._sharded else 500
        self.wire.send(*((word, *names[start : start + each]) for start in range(0, len(names), each)))

    def ping(self) -> None:
        self.wire.send(("PING",))

    def _on_reply(self, reply: Any) -> None:
        kind = reply[0] if isinstance(reply, list) else reply
        if kind in (b"message", b"smessage"):
            self._on_message(reply[1].decode(), reply[2])
        elif isinstance(kind, ReplyError):
            if kind.code == "MOVED":
                self._on_moved(int(str(kind).split(" ")[1]))
            else:
                self.wire.fail(f"subscribing was refused: {kind}")
        elif kind in (b"subscribe", b"ssubscribe"):
            self._on_subscribed(reply[1].decode())
        elif kind in (b"unsubscribe", b"sunsubscribe") and reply[1]:
            self._on_unsubscribed(reply[1].decode())
        elif kind in (b"pong", b"PONG"):
            self._on_pong()
