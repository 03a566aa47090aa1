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

    __slots__ = ("_audiences", "_clock", "_delivered")

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._delivered: deque[bytes] = deque(maxlen=REMEMBERED)
        self._audiences: dict[bytes, tuple[float, Collection[Any]]] = {}

    def serve(self, id: bytes, audience: Collection[Any]) -> bool:
        """Whether to serve `audience` without the store: False iff this publication was delivered here before."""
        if not id:
            return True  # it was never sent
        if id in self._delivered or id in self._audiences:
            return False
        while len(self._audiences) >= REMEMBERED:
            del self._audiences[next(iter(self._audiences))]
        self._audiences[id] = self._clock() + SERVED_FOR, frozenset(audience)
        return True

    def delivered(self, id: bytes) -> Collection[Any]:
        """Note what comes from the store; returns who has got it before, within the last five minutes."""
        self._delivered.append(id)
        if not self._audiences:
            return ()
        until, audience = self._audiences.pop(id, (0.0, ()))
        return audience if until > self._clock() else ()
