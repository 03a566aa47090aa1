"""Mailboxes: what is waiting for one Channels channel in this process. Bounded, expiring, cancel-safe."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from .isolation import Shared

Body = bytes | Shared
B = TypeVar("B")
Waiter = asyncio.Future[None]


class Mailbox(Generic[B]):
    """The unread messages of one channel on one loop. All calls are made on that loop.

    An item leaves only in the step that returns it, so a cancelled `get` neither loses nor repeats one.
    """

    # The oldest item has a place of its own: a reader that keeps up costs no queue, and a fan-out to many such
    # readers allocates nothing, so it does not set off the garbage collector either.
    __slots__ = ("_first", "_loop", "_more", "_waiter", "capacity", "left_at", "name", "quit")

    def __init__(self, name: str, capacity: int) -> None:
        self.name = name
        self.capacity = capacity
        self.left_at = 0.0
        self.quit = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._first: tuple[float, B] | None = None
        self._more: deque[tuple[float, B]] | None = None
        self._waiter: Waiter | list[Waiter] | None = None

    def __len__(self) -> int:
        return (self._first is not None) + (len(self._more) if self._more else 0)

    @property
    def waiting(self) -> int:
        """How many readers wait now."""
        return len(self._waiter) if isinstance(self._waiter, list) else int(self._waiter is not None)

    def put(self, item: tuple[float, B]) -> bool:
        """Append (deadline on time.monotonic, message); False iff full: the oldest are kept, this one is not."""
        if self._first is None:
            self._first = item
        else:
            if len(self) >= self.capacity:
                self.expire(time.monotonic())
                if len(self) >= self.capacity:
                    return False
            self._append(item)
        if self._waiter is not None:
            self._wake()
        return True

    def _append(self, item: tuple[float, B]) -> None:
        if self._first is None:
            self._first = item
        elif self._more is None:
            self._more = deque((item,))
        else:
            self._more.append(item)

    def _pop(self) -> tuple[float, B] | None:
        found, more = self._first, self._more
        if more is None:
            self._first = None
        else:
            self._first = more.popleft()
            if not more:
                self._more = None
        return found

    def expire(self, now: float) -> bool:
        """Drop what is too old; True iff something was."""
        found = False
        while self._first is not None and self._first[0] <= now:
            self._pop()
            found = True
        return found

    def take(self) -> B | None:
        """The oldest unexpired message, or None."""
        while self._first is not None:
            deadline, body = self._first
            if self._more is None:
                self._first = None
            else:
                self._pop()
            now = time.monotonic()
            if deadline > now:
                self.left_at, self.quit = now, False
                return body
        return None

    def clear(self) -> None:
        self._first = self._more = None

    def drain(self) -> list[B]:
        """Take everything that has not expired."""
        found = []
        while (body := self.take()) is not None:
            found.append(body)
        return found

    async def get(self) -> B:
        """The oldest message, waiting for one. May be cancelled at any moment without loss."""
        self.quit = False
        while self._first is None or (body := self.take()) is None:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            waiter = self._loop.create_future()
            if self._waiter is None:
                self._waiter = waiter
            else:
                self._add(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                self.quit, self.left_at = True, time.monotonic()
                if self._first is not None and waiter.done() and not waiter.cancelled():
                    self._wake()
                raise
            finally:
                if self._waiter is waiter:
                    self._waiter = None
                else:
                    self._remove(waiter)
        return body

    def _add(self, waiter: Waiter) -> None:
        if isinstance(self._waiter, list):
            self._waiter.append(waiter)
        elif self._waiter is not None:
            self._waiter = [self._waiter, waiter]

    def _remove(self, waiter: Waiter) -> None:
        if isinstance(self._waiter, list) and waiter in self._waiter:
            self._waiter.remove(waiter)
            if not self._waiter:
                self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if isinstance(waiter, list):
            waiter = next((one for one in waiter if not one.done()), None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Mailboxes:
    """The mailboxes of one node, made on first use and swept when their consumer is gone."""

    def __init__(self, capacity: Callable[[str], int]) -> None:
        self._capacity = capacity
        self._boxes: dict[str, Mailbox[Body]] = {}

    def __len__(self) -> int:
        return len(self._boxes)

    def __iter__(self) -> Iterator[Mailbox[Body]]:
        return iter(list(self._boxes.values()))

    def __contains__(self, channel: str) -> bool:
        return channel in self._boxes

    def find(self, channel: str) -> Mailbox[Body] | None:
        """The mailbox if there is one."""
        return self._boxes.get(channel)

    def get(self, channel: str) -> Mailbox[Body]:
        box = self._boxes.get(channel)
        if box is None:
            box = self._boxes[channel] = Mailbox(channel, self._capacity(channel))
        return box

    def drop(self, channel: str) -> None:
        self._boxes.pop(channel, None)

    def clear(self) -> None:
        """Empty every mailbox; readers keep waiting."""
        for box in self._boxes.values():
            box.clear()

    def sweep(
        self, now: float, grace: float, patience: float, at_work: Callable[[str], bool] = lambda channel: False
    ) -> list[Mailbox[Body]]:
        """Take out the mailboxes nobody will read again.

        That is: the last read was cancelled `grace` seconds ago and no other followed (`patience` seconds, if the
        consumer is still `at_work`: it may be busy between two reads); or a message expired unread and the last
        read was `patience` seconds ago, or never.
        """
        gone = []
        for box in list(self._boxes.values()):
            if box.waiting:
                continue
            unread = box.expire(now)
            since = now - box.left_at
            if (box.quit and since > grace and not at_work(box.name)) or ((box.quit or unread) and since > patience):
                del self._boxes[box.name]
                gone.append(box)
        return gone
