"""Plain channels: queues in the store, read by competing workers. Each message goes to exactly one."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
import time
from typing import Any

from ..engines.base import Command, QueuePop, QueueReturn, Turn
from ..exceptions import EngineUnavailable
from ..messages import topics
from .feed import Feed
from .feeds import Feeds, Spawn
from .mailboxes import Mailbox

logger = logging.getLogger(__name__)

POLL = 5.0
GRACE = 1.0
CLOSE_WITHIN = 1.5
ASK_AGAIN_AFTER = 0.5


class QueueFeed(Feed):
    """The wake-ups of one queue."""

    __slots__ = ("reader",)

    def __init__(self, channel: str, reader: QueueReader) -> None:
        super().__init__(topics.queue(channel))
        self.reader = reader

    @property
    def retained(self) -> bool:
        return False

    @property
    def idle(self) -> bool:
        return self.reader.ended

    def deliver(self, entry: object, epoch: str, served: object = ()) -> None:
        self.reader.wake()

    def gap(self, reason: str) -> bool:
        return True


class QueueReader:
    """All readers of one plain channel on one node.

    One task takes from the store what the waiting readers can use. What it took for a reader that was
    cancelled goes to the next one here, or after a second back to the front of the queue. A request without an
    answer is made again, under its number, before any other: so what it did is neither lost nor repeated.
    """

    def __init__(self, channel: str, feeds: Feeds, spawn: Spawn, expiry: float) -> None:
        self.box: Mailbox[bytes] = Mailbox(channel, sys.maxsize)  # the store minds the capacity
        self.ended = False
        self._closing = False
        self._channel = channel
        self._feeds = feeds
        self._spawn = spawn
        self._expiry = expiry
        self._signal = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._turn = Turn(secrets.token_hex(6), 0)
        self._unanswered: Command[Any] | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody reads and nothing waits to be read."""
        return self.ended and not self.box.waiting and not len(self.box)

    def wake(self) -> None:
        self._signal.set()

    async def get(self) -> bytes:
        """The next message for this reader. Waits out an absent store; may be cancelled without loss."""
        if self._task is None or self._task.done():
            self.ended = False
            self._task = self._spawn(self._pump(), f"livechannels-queue-{self._channel}")
        self._signal.set()
        return await self.box.get()

    async def close(self) -> None:
        """Take no more, and put back what was taken and not read."""
        self._closing = True
        self._signal.set()
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task], timeout=CLOSE_WITHIN)
            self._task.cancel()
            await asyncio.wait([self._task])
        try:
            if self._unanswered is not None:
                await self._ask(self._unanswered)
            await self._give_back()
        except EngineUnavailable as error:
            logger.warning("%s: messages taken from the queue may be lost: %s", self._channel, error)

    async def _pump(self) -> None:
        feed = QueueFeed(self._channel, self)
        try:
            await self._join(feed)
            while not self._closing and (self._unanswered is not None or await self._wanted()):
                self._signal.clear()
                if not await self._take() and not self._signal.is_set():
                    await self._sleep(POLL)
        finally:
            self.ended = True
            self._feeds.leave_soon(feed)

    async def _join(self, feed: QueueFeed) -> None:
        try:
            await self._feeds.join(feed)
        except EngineUnavailable:
            logger.info("%s: waiting for the store to come back", feed.topic)

    async def _wanted(self) -> bool:
        """True while somebody waits here; gives leftovers back and ends when nobody came for a while."""
        until = time.monotonic() + (GRACE if len(self.box) else POLL)
        while not self._closing and self.box.waiting <= len(self.box) and (pause := until - time.monotonic()) > 0:
            self._signal.clear()
            await self._sleep(pause)
        if self.box.waiting > len(self.box):
            return True
        try:
            if not self.box.waiting:
                await self._give_back()
        except EngineUnavailable:
            await asyncio.sleep(ASK_AGAIN_AFTER)
            return True
        return self.box.waiting > 0

    async def _give_back(self) -> None:
        left = self.box.drain()
        if left:
            await self._ask(QueueReturn(topics.queue(self._channel), left, self._expiry, self._next_turn()))

    async def _take(self) -> bool:
        """Take what is wanted, or finish what has no answer yet; True to go on at once."""
        wanted = max(1, self.box.waiting - len(self.box))
        request = self._unanswered or QueuePop(topics.queue(self._channel), wanted, self._next_turn())
        try:
            return await self._ask(request)
        except EngineUnavailable:
            await asyncio.sleep(ASK_AGAIN_AFTER)
            return True

    def _next_turn(self) -> Turn:
        self._turn = self._turn._replace(number=self._turn.number + 1)
        return self._turn

    async def _ask(self, request: Command[Any]) -> bool:
        """Have the store carry it out; False iff the queue was empty. After EngineUnavailable it stays unanswered."""
        self._unanswered = request
        bodies: list[bytes] | None = await self._feeds.port.run(request)
        self._unanswered = None
        for body in bodies or ():
            self.box.put((time.monotonic() + self._expiry, body))
        return bodies != []

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._signal.wait()
        except TimeoutError:
            pass
