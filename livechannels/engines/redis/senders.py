"""Event loops that only send: which of them stay, and the port that one that stays has for itself.

Most pass: `async_to_sync` and `asyncio.run` make one for a call or two, and a connection for each would be wasted.
A loop that still sends after a while belongs to a process that lives by sending; with a port of its own, all that
it sends in one turn leaves in one write.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable

from ...messages.positions import Position
from ..base import Listener
from .port import RedisPort

STAYS_AFTER = 0.5
STAYS_CALLS = 10


class _Deaf:
    """Listens to nothing."""

    def on_message(self, topic: str, position: Position | None, time: int, body: bytes, id: bytes = b"") -> None: ...

    def on_interrupted(self) -> None: ...

    def on_resumed(self, topics: list[str]) -> None: ...


class _Sender:
    """One loop: when it first sent, how often, and its port once it has one."""

    __slots__ = ("calls", "port", "since", "up")

    def __init__(self) -> None:
        self.calls = 0
        self.since = time.monotonic()
        self.port: Callable[[], RedisPort | None] = _none
        self.up = False


def _none() -> None:
    return None


class Senders:
    """The sending loops of a process. A port is kept by its loop alone: what ends the loop ends its connections."""

    def __init__(self, open_port: Callable[[Listener], RedisPort]) -> None:
        self._open = open_port
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Sender] = weakref.WeakKeyDictionary()

    def port(self) -> RedisPort | None:
        """The running loop's own port, once it stands; each call counts."""
        loop = asyncio.get_running_loop()
        sender = self._loops.get(loop)
        if sender is None:
            sender = self._loops[loop] = _Sender()
        port = sender.port()
        if port is None or port.ended:
            sender.calls += 1
            if sender.calls >= STAYS_CALLS and time.monotonic() - sender.since >= STAYS_AFTER:
                sender.up = False
                sender.port = weakref.ref(self._open(_Deaf()))
            return None
        if not sender.up:
            sender.up = port.health.ok
        return port if sender.up else None

    def give_up(self) -> RedisPort | None:
        """Hand the running loop's port to the caller, to use or to close; the loop begins anew."""
        sender = self._loops.pop(asyncio.get_running_loop(), None)
        return sender.port() if sender is not None else None
