"""Pauses between restarts of something that fails. Pure: time is passed in."""

from __future__ import annotations

FIRST = 0.1
MOST = 5.0
HEALTHY = 1.0


class Backoff:
    """0.1 s, doubling to 5 s; back to 0.1 s after a life longer than a second and than the pause before it."""

    def __init__(self, first: float = FIRST, most: float = MOST, healthy: float = HEALTHY) -> None:
        self._first = first
        self._most = most
        self._healthy = healthy
        self._pause = 0.0

    def after(self, lived: float) -> float:
        """The pause, in seconds, after a life of `lived` seconds."""
        if lived > max(self._healthy, self._pause):
            self._pause = 0.0
        self._pause = min(self._pause * 2, self._most) if self._pause else self._first
        return self._pause
