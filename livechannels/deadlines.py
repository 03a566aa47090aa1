"""What falls due for one connection, behind a single timer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable


def between(shortest: float, longest: float) -> float:
    """A random time, so that what began together does not fall due together."""
    return random.uniform(shortest, longest)  # noqa: S311 - it spreads load and guards nothing


class Deadlines:
    """Named moments (seconds from now), each with a callback on the loop. Setting a name again moves it."""

    __slots__ = ("_due", "_loop", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: dict[str, tuple[float, Callable[[], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def set(self, name: str, seconds: float, callback: Callable[[], None]) -> None:
        when = self._loop.time() + seconds
        self._due[name] = (when, callback)
        if self._timer is None or when < self._timer.when():
            self._arm(when)

    def drop(self, name: str) -> None:
        self._due.pop(name, None)

    def clear(self) -> None:
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.time()
        for name, (when, callback) in sorted(self._due.items(), key=lambda item: item[1][0]):
            if when <= now and self._due.get(name) == (when, callback):
                del self._due[name]
                callback()
        if self._due and self._timer is None:
            self._arm(min(when for when, _ in self._due.values()))
