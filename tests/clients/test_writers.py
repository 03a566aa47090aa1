from __future__ import annotations

import asyncio
from typing import Any

from livechannels.clients.writers import Writers


class Socket:
    """Something to write to, which may block."""

    def __init__(self, log: list[int], number: int) -> None:
        self.log, self.number = log, number
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, task: asyncio.Task[Any]) -> None:
        await self.open.wait()
        self.log.append(self.number)


def sockets(log: list[int], count: int) -> list[Socket]:
    return [Socket(log, number) for number in range(count)]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_many_are_written_by_one_task() -> None:
    log: list[int] = []
    writers, before = Writers(), asyncio.all_tasks()
    for socket in sockets(log, 100):
        writers.add(socket)
    assert len(asyncio.all_tasks() - before) == 1
    await settle()
    assert log == list(range(100))
    assert asyncio.all_tasks() == before


async def test_nobody_waits_for_a_blocked_one() -> None:
    log: list[int] = []
    writers, some = Writers(), sockets(log, 5)
    some[1].open.clear()
    some[2].open.clear()
    for socket in some:
        writers.add(socket)
    await settle()
    assert log == [0, 3, 4]
    some[2].open.set()
    writers.add(some[0])
    await settle()
    assert log == [0, 3, 4, 2, 0]
    some[1].open.set()
    await settle()
    assert log == [0, 3, 4, 2, 0, 1]


async def test_a_cancelled_one_takes_nobody_along() -> None:
    log: list[int] = []
    writers, some = Writers(), sockets(log, 3)
    some[0].open.clear()
    before = asyncio.all_tasks()
    writers.add(some[0])
    await settle()
    (blocked,) = asyncio.all_tasks() - before
    writers.add(some[1])
    blocked.cancel()
    writers.add(some[2])
    await settle()
    assert log == [1, 2]
    assert asyncio.all_tasks() == before
