"""The floor: PUBLISH and SUBSCRIBE on two bare sockets, and nothing that makes a channel layer one.

No expiry, capacity, history, reconnection or error handling, and receivers share one decoded message.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from typing import Any
from urllib.parse import urlsplit

import hiredis
import msgspec

pack = hiredis.pack_command


class Socket(asyncio.Protocol):
    """One connection; the writes of a turn leave together."""

    def __init__(self, on_reply: Any) -> None:
        self._on_reply = on_reply
        self._reader = hiredis.Reader()
        self._out: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._on_reply(reply)

    def send(self, *words: Any) -> None:
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(pack(words))

    def _flush(self) -> None:
        out, self._out = self._out, []
        self._transport.write(b"".join(out))


class BareLayer:
    """As much of a channel layer as the workloads call."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self._opening: asyncio.Task[None] | None = None
        self._answers: deque[asyncio.Future[Any]] = deque()
        self._confirmed: dict[bytes, asyncio.Future[None]] = {}
        self._members: dict[bytes, set[str]] = {}
        self._queues: dict[str, asyncio.Queue[Any]] = {}

    async def _open(self) -> None:
        loop, address = asyncio.get_running_loop(), (self._address.hostname, self._address.port)
        _, self._commands = await loop.create_connection(lambda: Socket(self._on_answer), *address)
        _, self._subscriber = await loop.create_connection(lambda: Socket(self._on_push), *address)

    async def _opened(self) -> None:
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
        await self._opening

    def _on_answer(self, reply: Any) -> None:
        self._answers.popleft().set_result(reply)

    def _on_push(self, push: list[Any]) -> None:
        if push[0] == b"message":
            message = msgspec.msgpack.decode(push[2])
            for channel in self._members.get(push[1], ()):
                self._queues[channel].put_nowait(message)
        elif push[0] == b"subscribe":
            self._confirmed[push[1]].set_result(None)

    async def new_channel(self, prefix: str = "specific") -> str:
        name = f"{prefix}!{uuid.uuid4().hex}"
        self._queues[name] = asyncio.Queue()
        return name

    async def group_add(self, group: str, channel: str) -> None:
        await self._opened()
        name = group.encode()
        members = self._members.setdefault(name, set())
        members.add(channel)
        if len(members) == 1:
            self._confirmed[name] = asyncio.get_running_loop().create_future()
            self._subscriber.send("SUBSCRIBE", name)
        await self._confirmed[name]

    async def group_discard(self, group: str, channel: str) -> None:
        name = group.encode()
        self._members[name].discard(channel)
        if not self._members[name]:
            del self._members[name]
            self._subscriber.send("UNSUBSCRIBE", name)

    async def group_send(self, group: str, message: Any) -> None:
        await self._opened()
        answer = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self._commands.send("PUBLISH", group, msgspec.msgpack.encode(message))
        await answer

    async def receive(self, channel: str) -> Any:
        return await self._queues[channel].get()
