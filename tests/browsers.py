"""A browser without a browser: the client's end of a ClientSession, on the test's own event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import AnonymousUser

from livechannels.auth.identity import Identity
from livechannels.clients.commands import carry_out
from livechannels.clients.session import ClientSession
from livechannels.layer import LiveChannelLayer
from livechannels.messages.codes import Disconnect

TIMEOUT = 10.0


class User:
    """Somebody who is signed in, without a database."""

    is_authenticated = is_active = True

    def __init__(self, pk: int = 1, name: str = "ann") -> None:
        self.pk = pk
        self.name = name

    def get_username(self) -> str:
        return self.name


class Browser:
    """Transport and client in one. It answers pings while `answers` is true, and reads while `reads` is set."""

    def __init__(
        self,
        layer: LiveChannelLayer,
        user: Any = None,
        *,
        personal: list[str] | None = None,
        expires: float | None = None,
    ) -> None:
        self.personal = personal or []
        self.messages: list[dict[str, Any]] = []
        self.frames: list[str] = []
        self.closed_with: Disconnect | None = None
        self.answers = True
        self.reads = asyncio.Event()
        self.reads.set()
        self._changed = asyncio.Event()
        self._number = 0
        identity = Identity(user if user is not None else AnonymousUser())
        identity.expires_at = expires
        self.session = ClientSession(layer, self, identity, self, carry_out)
        self.session.open()

    # As a transport

    async def send(self, text: str) -> None:
        await self.reads.wait()
        self.frames.append(text)
        for line in text.split("\n"):
            message = json.loads(line)
            if message:
                self.messages.append(message)
            elif self.answers:
                asyncio.get_running_loop().call_soon(self.pong)
        self._changed.set()

    async def close(self, disconnect: Disconnect) -> None:
        self.closed_with = disconnect
        self._changed.set()

    # As a host

    def conn_info(self, user: Any) -> Any:
        return {"name": user.get_username()} if user.is_authenticated else None

    def subscriptions(self, user: Any) -> Sequence[str]:
        return self.personal

    # As a client

    def pong(self) -> None:
        self.session.pong()

    async def say(self, *commands: dict[str, Any]) -> list[int]:
        """Send commands in one frame; their numbers."""
        numbers = []
        for command in commands:
            self._number += 1
            command["id"] = self._number
            numbers.append(self._number)
        await self.session.receive("\n".join(map(json.dumps, commands)))
        return numbers

    async def ask(self, method: str, /, **arguments: Any) -> dict[str, Any]:
        """Send one command and return its whole reply."""
        (number,) = await self.say({method: arguments})
        return await self.reply(number)

    async def connect(self, **arguments: Any) -> dict[str, Any]:
        reply = await self.ask("connect", **arguments)
        found: dict[str, Any] = reply["connect"]
        return found

    async def subscribe(self, channel: str, **arguments: Any) -> dict[str, Any]:
        reply = await self.ask("subscribe", channel=channel, **arguments)
        found: dict[str, Any] = reply["subscribe"]
        return found

    async def reply(self, number: int) -> dict[str, Any]:
        return await self._message(lambda message: message.get("id") == number, f"reply {number}")

    async def push(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self._message(lambda message: kind in message.get("push", ()), kind))["push"]
        return found

    async def _message(self, test: Any, what: str) -> dict[str, Any]:
        await self.until(lambda: any(map(test, self.messages)), what)
        message = next(filter(test, self.messages))
        self.messages.remove(message)
        return message

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the close."""
        await self.until(lambda: self.closed_with is not None, "close")
        assert self.closed_with is not None
        return self.closed_with

    async def until(self, condition: Any, what: str) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"no {what}; there were {self.messages}, closed: {self.closed_with}") from None

    async def gone(self) -> None:
        """The socket is gone."""
        await self.session.end()
