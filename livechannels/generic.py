"""For consumers of your own: Channels' semantics without its price for every message.

    class TickerConsumer(DirectDispatchMixin, AsyncJsonWebsocketConsumer): ...

Channels visits a thread before each message, to close old database connections, and makes a task for it. With the
mixin handlers still run one at a time and in order, but directly; old connections are closed at most once a second.
Async consumers only: a SyncConsumer works in that thread anyway.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from channels.consumer import get_handler_name
from channels.db import aclose_old_connections
from channels.exceptions import StopConsumer
from channels.layers import get_channel_layer

CLOSE_CONNECTIONS_EVERY = 1.0

_closed_at = float("-inf")


async def _close_old_connections() -> None:
    """Django's upkeep of its database connections. They belong to one thread of the process, so once is enough."""
    global _closed_at
    now = time.monotonic()
    if now - _closed_at >= CLOSE_CONNECTIONS_EVERY:
        _closed_at = now
        await aclose_old_connections()


class DirectDispatchMixin:
    """Put it before the base class, e.g. `class Chat(DirectDispatchMixin, AsyncJsonWebsocketConsumer)`."""

    channel_layer_alias: str

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        """Serve one connection: messages of the client and of the channel layer, one at a time."""
        self.scope = scope
        self.base_send = send
        self.channel_layer = get_channel_layer(self.channel_layer_alias)
        turn = asyncio.Lock()
        try:
            if self.channel_layer is None:
                await self._pump(receive, turn)
            else:
                self.channel_name = await self.channel_layer.new_channel()
                self.channel_receive = functools.partial(self.channel_layer.receive, self.channel_name)
                await self._pump_both(receive, turn)
        except StopConsumer:
            pass

    async def _pump_both(self, receive: Callable[[], Awaitable[Any]], turn: asyncio.Lock) -> None:
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(receive, turn))
                pumps.create_task(self._pump(self.channel_receive, turn))
        except BaseExceptionGroup as failed:
            # Servers and Channels know the errors of a consumer, not groups of them.
            raise failed.exceptions[0] from None

    async def _pump(self, source: Callable[[], Awaitable[Any]], turn: asyncio.Lock) -> None:
        while True:
            message = await source()
            async with turn:
                await self.dispatch(message)

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Call the method named after the message's type."""
        handler = getattr(self, get_handler_name(message), None)
        if handler is None:
            raise ValueError(f"No handler for message type {message['type']}")
        await _close_old_connections()
        await handler(message)
