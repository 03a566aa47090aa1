"""What falls due for one connection, behind a single timer of the loop for all of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from heapq import heappop, heappush
from weakref import WeakKeyDictionary

NEVER = float("inf")
AT_MOST = 60.0
"""Seconds that an entry stands in the clock: what was dropped or moved meanwhile holds its connection no longer."""

_clocks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Clock] = WeakKeyDictionary()


def between(shortest: float, longest: float) -> float:
    """A random time, so that what began together does not fall due together."""
    return random.uniform(shortest, longest)  # noqa: S311 - it spreads load and guards nothing


class _Clock:
    """Rings many Deadlines of one loop. A timer of the loop's for each would cost half a KiB of every connection.

    It holds neither its loop nor a handle, which would: a timer that was overtaken rings in vain.
    """

    __slots__ = ("_armed", "_order", "_waiting")

    def __init__(self) -> None:
        self._armed = NEVER
        self._order = 0
        self._waiting: list[tuple[float, int, Deadlines]] = []

    def wake(self, deadlines: Deadlines, when: float) -> None:
        self._order += 1
        heappush(self._waiting, (when, self._order, deadlines))
        self._arm()

    def _arm(self) -> None:
        if self._waiting and self._waiting[0][0] < self._armed:
            self._armed = self._waiting[0][0]
            asyncio.get_running_loop().call_at(self._armed, self._ring, self._armed)

    def _ring(self, armed: float) -> None:
        if armed != self._armed:
            return
        self._armed = NEVER
        now = asyncio.get_running_loop().time()
        try:
            while self._waiting and self._waiting[0][0] <= now:
                when, _, deadlines = heappop(self._waiting)
                deadlines._ring(when, now)
        finally:
            self._arm()


class Deadlines:
    """Named moments (seconds from now), each with a callback on the loop. Setting a name again moves it."""

    __slots__ = ("_clock", "_due", "_next")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        clock = _clocks.get(loop)
        if clock is None:
            clock = _clocks[loop] = _Clock()
        self._clock = clock
        self._due: dict[str, tuple[float, Callable[[], None]]] = {}
        self._next = NEVER

    def set(self, name: str, seconds: float, callback: Callable[[], None]) -> None:
        when = asyncio.get_running_loop().time() + seconds
        self._due[name] = (when, callback)
        self._wake(when)

    def drop(self, name: str) -> None:
        self._due.pop(name, None)

    def clear(self) -> None:
        self._due.clear()

    def _wake(self, when: float) -> None:
        if when < self._next:
            self._next = min(when, asyncio.get_running_loop().time() + AT_MOST)
            self._clock.wake(self, self._next)

    def _ring(self, when: float, now: float) -> None:
        if when == self._next:
            self._next = NEVER
        try:
            for name, (due, callback) in sorted(self._due.items(), key=lambda item: item[1][0]):
                if due <= now and self._due.get(name) == (due, callback):
                    del self._due[name]
                    callback()
        finally:
            # The earliest only: what stands in the clock stays there until it is due.
            if self._due:
                self._wake(min(due for due, _ in self._due.values()))
