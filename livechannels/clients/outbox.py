"""The way out of one connection: it is written to only while there is something to send, and within a window.

At most about `window` bytes are under way that the client has not confirmed by answering a ping (a server like
daphne takes whatever it is given, so this is what bounds its memory), and at most `limit` bytes wait here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from .. import metrics
from ..messages.codes import SLOW, WRITE_ERROR, Disconnect
from .backlog import Backlog, Joiner
from .centrifuge import PING
from .writers import Writers

logger = logging.getLogger(__name__)

_joiner = Joiner(b"\n")


class _Tally:
    """What this process has sent. Plain numbers: the hot path has no time for a lock."""

    frames = 0
    messages = 0
    bytes = 0


metrics.counter("livechannels_frames_sent_total", "Frames sent to browsers.").collect_from(
    lambda: [metrics.Sample((), _Tally.frames)]
)
metrics.counter("livechannels_messages_sent_total", "Messages sent to browsers, several to a frame.").collect_from(
    lambda: [metrics.Sample((), _Tally.messages)]
)
metrics.counter("livechannels_sent_bytes_total", "Bytes sent to browsers.").collect_from(
    lambda: [metrics.Sample((), _Tally.bytes)]
)
metrics.counter("livechannels_coalesced_total", "Messages slow viewers were spared for a newer one.").collect_from(
    lambda: [metrics.Sample((), Backlog.coalesced)]
)


class Outbox:
    """Sends messages in the order they came. All methods belong to the connection's event loop.

    `send` transmits one frame of text. `give_up` is called once: with SLOW if more than `limit` bytes wait, with
    WRITE_ERROR if sending fails; nothing is sent after that, except by `finish`.
    """

    __slots__ = (
        "_backlog",
        "_confirmed",
        "_due",
        "_finishing",
        "_give_up",
        "_open",
        "_ping_due",
        "_pings",
        "_released",
        "_send",
        "_sent",
        "_window",
        "_writer",
        "_writers",
        "asked",
    )

    def __init__(
        self,
        send: Callable[[str], Awaitable[None]],
        writers: Writers,
        *,
        limit: int,
        window: int,
        give_up: Callable[[Disconnect], None],
    ) -> None:
        self._send = send
        self._writers = writers
        self._window = window
        self._give_up = give_up
        self._backlog = Backlog(limit, _joiner)
        self._due = False
        self._writer: asyncio.Task[Any] | None = None
        self._released: asyncio.Future[None] | None = None
        self._open = True
        self._finishing = False
        self._sent = 0
        self._confirmed = 0
        self._ping_due = False
        # Where each unanswered ping stands in the bytes sent; a pong answers the oldest.
        self._pings: list[int] = []
        self.asked = 0

    @property
    def waiting(self) -> int:
        """Bytes not yet given to the server."""
        return self._backlog.size

    @property
    def in_flight(self) -> int:
        """Bytes given to the server since the last answered ping."""
        return self._sent - self._confirmed

    @property
    def answered(self) -> int:
        """How many of the `asked` pings were answered."""
        return self.asked - len(self._pings)

    def put(self, message: bytes, key: str | None = None) -> None:
        """Send a message soon. On overflow only the newest message of each key is kept, before giving up."""
        if not self._open:
            return
        if not self._backlog.put(message, key):
            self._open = False
            self._give_up(SLOW)
        elif not self._due and self._writer is None and self._sent - self._confirmed < self._window:
            self._due = True
            self._writers.add(self)

    def ping(self) -> None:
        """Ask the client for a sign of life, ahead of what waits. Does nothing while it owes an answer."""
        if self._open and not self._pings:
            self._ping_due = True
            self._start()

    def pong(self) -> bool:
        """The client answered; False if it was not asked."""
        if not self._pings:
            return False
        self._confirmed = self._pings.pop(0)
        # What was sent since may fill the window by itself: then nothing goes out before the next ping is answered.
        if self._open and (self._backlog or 2 * self.in_flight >= self._window):
            self._start()
        return True

    async def finish(self, last: bytes | None, *, drain: bool, seconds: float) -> bool:
        """Send what waits (if `drain`) and then `last`, and nothing any more. False if that took too long."""
        self._open = False
        if not drain:
            self.stop()
        if last is not None:
            self._backlog.put(last)
        self._finishing = True
        try:
            async with asyncio.timeout(seconds):
                while self._writer is not None:
                    self._released = asyncio.get_running_loop().create_future()
                    await self._released
                task = asyncio.current_task()
                assert task is not None
                await self.write(task)
        except TimeoutError:
            return False
        finally:
            self.stop()
        return True

    def stop(self) -> None:
        """Give up at once whatever is left."""
        self._open = self._finishing = False
        self._backlog.clear()
        if self._writer is not None:
            self._writer.cancel()

    def _start(self) -> None:
        if not self._due and self._writer is None:
            self._due = True
            self._writers.add(self)

    async def write(self, task: asyncio.Task[Any]) -> None:
        """Send what may be sent, in this task. For Writers."""
        self._due = False
        if self._writer is not None or not (self._open or self._finishing):
            return
        self._writer = task
        backlog = self._backlog
        try:
            while True:
                if self._ping_due or (not self._pings and 2 * (self._sent - self._confirmed) >= self._window):
                    await self._send_ping()
                if not backlog or (self._sent - self._confirmed >= self._window and not self._finishing):
                    break
                frame = backlog.take()
                self._sent += frame.size
                _Tally.frames += 1
                _Tally.messages += frame.messages
                _Tally.bytes += frame.size
                await self._send(frame.text)
        except Exception as error:
            # Servers raise what they like when the socket is gone; the reason is the socket's end, not a bug here.
            logger.debug("Sending failed: %r", error)
            backlog.clear()
            if self._open:
                self._open = False
                self._give_up(WRITE_ERROR)
        finally:
            self._writer = None
            if self._released is not None and not self._released.done():
                self._released.set_result(None)

    async def _send_ping(self) -> None:
        self._ping_due = False
        self._pings.append(self._sent)
        self.asked += 1
        await self._send(PING.decode())
