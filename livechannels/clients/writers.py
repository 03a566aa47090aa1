"""Tasks that write to many connections: as many as there are blocked sockets, and one more while there is work."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol


class Writable(Protocol):
    """What has something to send."""

    async def write(self, task: asyncio.Task[Any]) -> None:
        """Send it, in this task; may wait for a blocked socket as long as it likes. Raises CancelledError only."""


class Writers:
    """Writes what is due, one after the other. A socket that blocks keeps its task; the others go on in a new one.

    So a message to a thousand readers costs one task, not a thousand, and nobody waits for anybody. All calls are
    made on one loop.
    """

    __slots__ = ("_due", "_looking", "_tasks")

    def __init__(self) -> None:
        self._due: deque[Writable] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking = False

    def add(self, one: Writable) -> None:
        """Have it written soon, after what else this turn of the loop brings."""
        self._due.append(one)
        if not self._looking:
            self._begin()

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._work(), name="livechannels-writer")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Comes after the task's first step: what is still due then stands behind a blocked socket.
        self._looking = True
        loop.call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        if self._due:
            self._begin()

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        while self._due:
            await self._due.popleft().write(task)
