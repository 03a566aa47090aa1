"""Who was served while the store was away, so that nobody gets a message twice when the store took it after all.

A publish whose answer never came may have been carried out, or may be when the server wakes, or is repeated under its
idempotency key. Publications are recognised by their id. Pure but for the clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from time import monotonic
from typing import Any

REMEMBERED = 4096
SERVED_FOR = 300.0


class Served:
    """What one node delivered lately, and to whom without the store."""

    __slots__ = ("_audiences", "_clock", "_delivered", "_last")

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._delivered: deque[bytes] = deque(maxlen=REMEMBERED)
        self._audiences: dict[bytes, tuple[float, Collection[Any]]] = {}
        self._last: frozenset[Any] = frozenset()

    def serve(self, id: bytes, audience: Collection[Any]) -> bool:
        """Whether to serve `audience` without the store: False iff this publication was delivered here before."""
        if not id:
            return True  # it was never sent
        self._forget()
        if id in self._delivered or id in self._audiences:
            return False
        if len(self._audiences) >= REMEMBERED:
            del self._audiences[next(iter(self._audiences))]
        present = frozenset(audience)
        if present == self._last:
            present = self._last  # mostly the same as for the message before
        self._last = present
        self._audiences[id] = self._clock() + SERVED_FOR, present
        return True

    def delivered(self, id: bytes) -> Collection[Any]:
        """Note what comes from the store; returns who has got it before, within the last five minutes."""
        self._delivered.append(id)
        if not self._audiences:
            return ()
        self._forget()
        return self._audiences.pop(id, (0.0, ()))[1]

    def _forget(self) -> None:
        """Let go of those whose five minutes are over; the oldest stand first."""
        now = self._clock()
        while self._audiences and (oldest := next(iter(self._audiences.items())))[1][0] <= now:
            del self._audiences[oldest[0]]
        if not self._audiences:
            self._last = frozenset()
