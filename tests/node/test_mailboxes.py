from __future__ import annotations

import asyncio
import time

import pytest

from livechannels.node.mailboxes import Mailbox, Mailboxes


def item(body: bytes, seconds: float = 60) -> tuple[float, bytes]:
    return time.monotonic() + seconds, body


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


class TestPut:
    @pytest.mark.parametrize("capacity", [1, 2, 5])
    def test_a_full_mailbox_keeps_the_oldest(self, capacity):
        box = Mailbox("c", capacity)
        assert [box.put(item(body)) for body in numbered(7)] == [True] * capacity + [False] * (7 - capacity)
        assert len(box) == capacity
        assert box.drain() == numbered(capacity)
        assert len(box) == 0

    def test_what_expired_makes_room(self):
        box = Mailbox("c", 2)
        assert box.put(item(b"old", -1)) and box.put(item(b"older", -2))
        assert box.put(item(b"new"))
        assert box.drain() == [b"new"]

    def test_reading_makes_room(self):
        box = Mailbox("c", 2)
        assert [box.put(item(body)) for body in numbered(3)] == [True, True, False]
        assert box.take() == b"0"
        assert box.put(item(b"3"))
        assert box.drain() == [b"1", b"3"]


class TestTake:
    def test_nothing(self):
        assert Mailbox("c", 1).take() is None

    def test_what_expired_is_skipped(self):
        box = Mailbox("c", 10)
        for body, seconds in [(b"a", -1), (b"b", 60), (b"c", -1), (b"d", 60)]:
            box.put(item(body, seconds))
        assert (box.take(), box.take(), box.take()) == (b"b", b"d", None)

    def test_expire_says_whether_something_was_too_old(self):
        box = Mailbox("c", 10)
        box.put(item(b"a", 5))
        box.put(item(b"b", 60))
        assert not box.expire(time.monotonic())
        assert box.expire(time.monotonic() + 10)
        assert box.drain() == [b"b"]

    def test_clear(self):
        box = Mailbox("c", 3)
        for body in numbered(3):
            box.put(item(body))
        box.clear()
        assert len(box) == 0 and box.take() is None
        assert box.put(item(b"again")) and box.take() == b"again"


class TestGet:
    async def test_waits_for_a_message(self):
        box = Mailbox("c", 10)
        reader = asyncio.ensure_future(box.get())
        await asyncio.sleep(0)
        assert box.waiting == 1
        box.put(item(b"x"))
        assert await asyncio.wait_for(reader, 5) == b"x"
        assert box.waiting == 0

    async def test_timeouts_at_any_moment_lose_and_repeat_nothing(self):
        box, sent, seen = Mailbox("c", 1000), numbered(300), []

        async def send() -> None:
            for body in sent:
                box.put(item(body))
                await asyncio.sleep(0.0012)

        sender = asyncio.ensure_future(send())
        timeouts = 0
        async with asyncio.timeout(20):
            while len(seen) < len(sent):
                try:
                    seen.append(await asyncio.wait_for(box.get(), 0.001))
                except TimeoutError:
                    timeouts += 1
        await sender
        assert seen == sent
        assert timeouts and len(box) == 0 and box.waiting == 0

    @pytest.mark.parametrize("steps_before", [0, 1, 2])
    @pytest.mark.parametrize("steps_after", [0, 1, 2])
    async def test_cancelled_around_the_send(self, steps_before, steps_after):
        """The message is with the cancelled reader or in the mailbox: in one of the two."""
        box = Mailbox("c", 10)
        reader = asyncio.ensure_future(box.get())
        for _ in range(steps_before):
            await asyncio.sleep(0)
        box.put(item(b"x"))
        for _ in range(steps_after):
            await asyncio.sleep(0)
        reader.cancel()
        (got,) = await asyncio.gather(reader, return_exceptions=True)
        assert ([got] if isinstance(got, bytes) else []) + box.drain() == [b"x"]
        assert box.waiting == 0

    async def test_a_cancelled_reader_hands_its_wake_up_on(self):
        box = Mailbox("c", 10)
        first, second = asyncio.ensure_future(box.get()), asyncio.ensure_future(box.get())
        await asyncio.sleep(0)
        assert box.waiting == 2
        box.put(item(b"x"))
        first.cancel()
        assert await asyncio.wait_for(second, 5) == b"x"
        assert first.cancelled() and box.waiting == 0

    async def test_several_readers_share_everything_once(self):
        box, sent, seen = Mailbox("c", 1000), numbered(300), []

        async def read() -> None:
            while len(seen) < len(sent):
                try:
                    seen.append(await asyncio.wait_for(box.get(), 0.001))
                except TimeoutError:
                    pass

        async def send() -> None:
            for number, body in enumerate(sent):
                box.put(item(body))
                if number % 3 == 0:
                    await asyncio.sleep(0.001)

        async with asyncio.timeout(20):
            await asyncio.gather(send(), *(read() for _ in range(5)))
        assert sorted(seen) == sorted(sent)
        assert len(box) == 0 and box.waiting == 0

    async def test_readers_are_served_in_their_order(self):
        box = Mailbox("c", 10)
        readers = [asyncio.ensure_future(box.get()) for _ in range(3)]
        for body in numbered(3):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            box.put(item(body))
        assert await asyncio.wait_for(asyncio.gather(*readers), 5) == numbered(3)


class TestMailboxes:
    def test_made_on_first_use_with_the_channels_capacity(self):
        boxes = Mailboxes(lambda channel: len(channel))
        assert boxes.find("abc") is None and "abc" not in boxes
        box = boxes.get("abc")
        assert box.capacity == 3 and boxes.get("abc") is box and boxes.find("abc") is box
        assert len(boxes) == 1 and list(boxes) == [box]
        boxes.drop("abc")
        boxes.drop("abc")
        assert len(boxes) == 0

    def test_clear_empties_and_keeps_them(self):
        boxes = Mailboxes(lambda channel: 5)
        boxes.get("a").put(item(b"x"))
        boxes.clear()
        assert "a" in boxes and len(boxes.get("a")) == 0


class TestSweep:
    """Readers are given up `grace` = 10 s after a cancelled read, `patience` = 100 s where messages expire unread."""

    def swept(self, boxes: Mailboxes, after: float) -> list[str]:
        return [box.name for box in boxes.sweep(time.monotonic() + after, grace=10, patience=100)]

    async def cancelled(self, boxes: Mailboxes, name: str) -> Mailbox:
        box = boxes.get(name)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(box.get(), 0.001)
        return box

    async def test_gone_after_a_cancelled_read_and_the_grace(self):
        boxes = Mailboxes(lambda channel: 5)
        await self.cancelled(boxes, "a")
        assert self.swept(boxes, 9) == []
        assert self.swept(boxes, 11) == ["a"]
        assert "a" not in boxes

    async def test_a_consumer_at_work_may_be_busy_between_two_reads(self):
        boxes = Mailboxes(lambda channel: 5)
        for name in "ab":
            await self.cancelled(boxes, name)
        now = time.monotonic()
        assert [box.name for box in boxes.sweep(now + 99, 10, 100, "a".__eq__)] == ["b"]
        assert [box.name for box in boxes.sweep(now + 101, 10, 100, "a".__eq__)] == ["a"]

    async def test_a_read_that_followed_keeps_it(self):
        boxes = Mailboxes(lambda channel: 5)
        box = await self.cancelled(boxes, "a")
        box.put(item(b"x"))
        assert await box.get() == b"x"
        assert self.swept(boxes, 11) == []

    async def test_a_waiting_reader_keeps_it(self):
        boxes = Mailboxes(lambda channel: 5)
        box = await self.cancelled(boxes, "a")
        reader = asyncio.ensure_future(box.get())
        await asyncio.sleep(0)
        box.put(item(b"old", -1))
        assert self.swept(boxes, 1000) == []
        reader.cancel()

    def test_expired_unread_and_never_read(self):
        boxes = Mailboxes(lambda channel: 5)
        boxes.get("unread").put(item(b"x", 50))
        boxes.get("fresh").put(item(b"x", 5000))
        boxes.get("empty")
        assert self.swept(boxes, 1) == []
        assert self.swept(boxes, 101) == ["unread"]
        assert "fresh" in boxes and "empty" in boxes

    async def test_expired_unread_soon_after_a_read(self):
        boxes = Mailboxes(lambda channel: 5)
        box = boxes.get("a")
        box.put(item(b"x"))
        assert await box.get() == b"x"
        box.put(item(b"y", 20))
        assert self.swept(boxes, 50) == []
        box.put(item(b"z", 20))
        assert self.swept(boxes, 150) == ["a"]
