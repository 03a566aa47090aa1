from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from livechannels.clients.outbox import Outbox
from livechannels.clients.writers import Writers
from livechannels.messages.codes import SLOW, WRITE_ERROR, Disconnect


class Wire:
    """A transport that can be blocked, and that breaks on request."""

    def __init__(self) -> None:
        self.frames: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.broken = False
        self.told: list[Disconnect] = []

    async def send(self, text: str) -> None:
        await self.open.wait()
        if self.broken:
            raise OSError("gone")
        self.frames.append(text)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def outbox(wire: Wire) -> Iterator[Outbox]:
    outbox = make(wire)
    yield outbox
    outbox.stop()


def make(wire: Wire, limit: int = 1000, window: int = 10**6) -> Outbox:
    return Outbox(
        wire.send,
        Writers(),
        limit=limit,
        window=window,
        give_up=wire.told.append,
    )


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class TestSending:
    async def test_what_comes_in_one_turn_leaves_in_one_frame(self, wire: Wire, outbox: Outbox) -> None:
        for number in range(3):
            outbox.put(b"%d" % number)
        await settle()
        assert wire.frames == ["0\n1\n2"]
        outbox.put(b"3")
        await settle()
        assert wire.frames == ["0\n1\n2", "3"]

    async def test_there_is_no_task_while_there_is_nothing_to_send(self, wire: Wire, outbox: Outbox) -> None:
        before = asyncio.all_tasks()
        outbox.put(b"1")
        assert len(asyncio.all_tasks() - before) == 1
        await settle()
        assert asyncio.all_tasks() == before

    async def test_a_blocked_wire_gathers(self, wire: Wire, outbox: Outbox) -> None:
        wire.open.clear()
        outbox.put(b"1")
        await settle()
        outbox.put(b"2")
        outbox.put(b"3")
        wire.open.set()
        await settle()
        assert wire.frames == ["1", "2\n3"]

    async def test_failure_is_told_once_and_ends_it(self, wire: Wire, outbox: Outbox) -> None:
        wire.broken = True
        outbox.put(b"1")
        await settle()
        outbox.put(b"2")
        await settle()
        assert (wire.told, wire.frames) == ([WRITE_ERROR], [])

    async def test_over_the_limit_is_told_once(self, wire: Wire) -> None:
        outbox = make(wire, limit=10)
        wire.open.clear()
        outbox.put(b"x")
        await settle()
        for _ in range(5):
            outbox.put(b"12345")
        assert wire.told == [SLOW]
        outbox.stop()

    async def test_newest_wins_for_a_slow_viewer(self, wire: Wire) -> None:
        outbox = make(wire, limit=10)
        wire.open.clear()
        outbox.put(b"first")
        await settle()
        for number in range(100):
            outbox.put(b"%05d" % number, "gauge")
        wire.open.set()
        await settle()
        assert wire.told == []
        assert wire.frames[0] == "first"
        assert wire.frames[-1].endswith("00099")
        assert len("".join(wire.frames[1:])) <= 11


class TestWindow:
    async def test_ping_at_half_and_stop_past_it(self, wire: Wire) -> None:
        outbox = make(wire, window=100)
        for _ in range(4):
            outbox.put(b"x" * 30)
            await settle()
        # 30, 60: past half, so a ping; 90; 120: past the window, so the next one has to wait.
        assert wire.frames == ["x" * 30, "x" * 30, "{}", "x" * 30, "x" * 30]
        outbox.put(b"held")
        await settle()
        assert wire.frames[-1] != "held"
        assert (outbox.in_flight, outbox.waiting) == (120, 4)
        assert outbox.pong()
        await settle()
        # The pong confirms 60 bytes; 60 are still more than half, so the next ping leaves before what was held.
        assert wire.frames[-2:] == ["{}", "held"]
        assert outbox.in_flight == 64
        outbox.stop()

    async def test_a_window_filled_behind_a_ping_is_confirmed_by_the_next(self, wire: Wire) -> None:
        outbox = make(wire, limit=1000, window=100)
        outbox.ping()
        await settle()
        outbox.put(b"x" * 200)
        await settle()
        assert outbox.pong()
        await settle()
        assert wire.frames[-1] == "{}", "it is asked again at once, or nothing would leave before the next keepalive"
        assert outbox.pong()
        outbox.put(b"next")
        await settle()
        assert wire.frames[-1] == "next"

    async def test_an_unasked_pong_is_refused(self, outbox: Outbox) -> None:
        assert not outbox.pong()

    async def test_ping_passes_what_is_held(self, wire: Wire) -> None:
        outbox = make(wire, window=10)
        outbox.put(b"x" * 10)
        await settle()
        assert wire.frames == ["x" * 10, "{}"]
        outbox.put(b"held")
        outbox.ping()
        await settle()
        assert wire.frames == ["x" * 10, "{}"], "one unanswered ping is enough"
        assert (outbox.asked, outbox.answered) == (1, 0)
        outbox.pong()
        outbox.ping()
        await settle()
        assert wire.frames[2:] == ["{}", "held"]
        assert (outbox.asked, outbox.answered) == (2, 1)
        outbox.stop()


class TestFinish:
    async def test_the_rest_is_sent_also_past_the_window(self, wire: Wire) -> None:
        outbox = make(wire, window=10)
        outbox.put(b"x" * 20)
        await settle()
        outbox.put(b"rest")
        assert await outbox.finish(b"bye", drain=True, seconds=5)
        assert wire.frames[-1] == "rest\nbye"
        outbox.put(b"late")
        await settle()
        assert wire.frames[-1] == "rest\nbye"

    async def test_without_draining_only_the_last_word(self, wire: Wire) -> None:
        outbox = make(wire, window=10)
        outbox.put(b"x" * 20)
        await settle()
        outbox.put(b"rest")
        assert await outbox.finish(b"bye", drain=False, seconds=5)
        assert wire.frames[-1] == "bye"

    async def test_a_client_that_does_not_read_has_no_say(self, wire: Wire, outbox: Outbox) -> None:
        wire.open.clear()
        outbox.put(b"1")
        await settle()
        assert not await outbox.finish(b"bye", drain=True, seconds=0.01)
        await settle()
        assert wire.frames == []

    async def test_a_broken_wire_does_not_wait(self, wire: Wire, outbox: Outbox) -> None:
        wire.broken = True
        assert await outbox.finish(b"bye", drain=True, seconds=5)
        assert wire.told == []
