from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from livechannels.engines.base import Flush, Publish, Retention
from livechannels.node.feeds import Feeds
from livechannels.node.groups import DROPPED, UNREADABLE, Groups
from livechannels.node.mailboxes import Mailboxes
from livechannels.serializers import Codec
from tests.node.test_feeds import eventually, feeds

__all__ = ["feeds"]

KEEP = Retention(100, 60, 120)


class Room:
    """The groups of a node over a memory store; what is sent to "room", and what each channel has to read."""

    def __init__(self, feeds: Feeds, *, group_expiry: float = 60, on_gap: bool = True, codec: Codec | None = None):
        self.feeds = feeds
        self.codec = codec or Codec()
        self.boxes = Mailboxes(lambda channel: 1 if channel == "small" else 9)
        self.groups = Groups(
            feeds, self.boxes, expiry=60, group_expiry=group_expiry, meta_ttl=60, keeps=lambda name: True,
            codec=self.codec,
            gap_event=lambda name, reason: self.codec.dumps({"type": name, "why": reason}) if on_gap else None,
        )  # fmt: skip

    async def add(self, *channels: str) -> None:
        for channel in channels:
            await self.groups.add("room", channel)

    async def send(self, *numbers: int, **more: Any) -> None:
        for number in numbers:
            await self.publish(Publish("g/room", self.codec.seal(self.codec.dumps({"n": number, **more})), KEEP))

    async def publish(self, command: Publish) -> None:
        await self.feeds.port._port.run(command)  # type: ignore[attr-defined]
        await asyncio.sleep(0)  # the memory engine delivers in the next turn

    def read(self, channel: str) -> list[Any]:
        bodies = self.boxes.get(channel).drain()
        return [self.codec.loads(body) if isinstance(body, bytes) else body.message() for body in bodies]

    def numbers(self, channel: str) -> list[int]:
        return [message["n"] for message in self.read(channel)]


async def test_each_member_gets_each_message_once(feeds: Feeds) -> None:
    room = Room(feeds)
    await room.add("a", "b", "b")
    await room.groups.add("elsewhere", "c")
    await room.send(1, 2)
    assert room.numbers("a") == room.numbers("b") == [1, 2] and room.numbers("c") == []


async def test_members_have_their_own_copies(feeds: Feeds) -> None:
    room = Room(feeds)
    await room.add("a", "b", "c")
    await room.send(1, deep=[{"er": [1]}])
    (first,) = room.read("a")
    first["deep"][0]["er"].append("edited")
    assert room.read("b") == room.read("c") == [{"n": 1, "deep": [{"er": [1]}]}]


async def test_a_full_mailbox_keeps_its_oldest_and_the_loss_is_said_once(feeds: Feeds, caplog) -> None:
    room = Room(feeds)
    await room.add("small", "large")
    before = DROPPED.value(kind="group")
    with caplog.at_level(logging.INFO, "livechannels.node.groups"):
        await room.send(1, 2, 3)
    assert room.numbers("small") == [1] and room.numbers("large") == [1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == ["1 of 2 channels over capacity in group room"]
    assert DROPPED.value(kind="group") == before + 2


async def test_who_left_gets_nothing_more(feeds: Feeds) -> None:
    room = Room(feeds)
    await room.add("a", "b")
    room.groups.discard("room", "a")
    room.groups.discard("room", "nobody")
    room.groups.discard("unknown", "b")
    await room.send(1)
    assert room.numbers("a") == [] and room.numbers("b") == [1]
    room.groups.forget([room.boxes.get("b")])
    await room.send(2)
    assert room.numbers("b") == [] and len(room.groups) == 0


async def test_the_last_leaves_and_one_comes_back_before_the_topic_is_let_go(feeds: Feeds, monkeypatch) -> None:
    monkeypatch.setattr("livechannels.node.feeds.LINGER", 0.05)
    room = Room(feeds)
    await room.add("a")
    room.groups.discard("room", "a")
    await room.send(1)
    await room.add("b")
    feed = feeds.get("g/room")
    await asyncio.sleep(0.1)
    assert feeds.get("g/room") is feed
    await room.send(2)
    assert room.numbers("a") == [] and room.numbers("b") == [2]
    room.groups.discard("room", "b")
    await eventually(lambda: feeds.get("g/room") is None, "nobody wants it any more")


async def test_a_group_is_looked_at_again_when_somebody_comes_back(feeds: Feeds) -> None:
    """The second look after a join passes over a group that nobody is in any more."""
    room = Room(feeds)
    await room.add("a")
    room.groups.discard("room", "a")
    feeds.port.unsubscribe("g/room")
    await room.send(1)
    await asyncio.sleep(0.1)
    assert feeds.get("g/room").position.offset == 0  # type: ignore[union-attr]
    await room.add("b")
    await eventually(lambda: feeds.get("g/room").position.offset == 1, "what was not heard is found")  # type: ignore[union-attr]


async def test_a_membership_ends_unless_its_consumer_reads(feeds: Feeds) -> None:
    room = Room(feeds, group_expiry=0.05)
    await room.add("gone", "waits", "has read")
    reading = asyncio.ensure_future(room.boxes.get("waits").get())
    await asyncio.sleep(0.1)
    room.boxes.get("has read").left_at = time.monotonic()
    await room.send(1)
    await reading
    assert room.numbers("gone") == [] and room.numbers("has read") == [1]
    await asyncio.sleep(0.1)
    await room.send(2)
    assert len(room.groups) == 0 and room.numbers("waits") == []


async def test_what_no_key_opens_is_skipped(feeds: Feeds, caplog) -> None:
    pytest.importorskip("cryptography")
    room = Room(feeds, codec=Codec(keys=["ours"]))
    await room.add("a", "b")
    before = UNREADABLE.value()
    await room.publish(Publish("g/room", b"foreign", KEEP))
    await room.send(1)
    assert room.numbers("a") == room.numbers("b") == [1]
    assert UNREADABLE.value() == before + 1 and "group room: a message was skipped" in caplog.text


async def test_a_flush_ends_every_membership_and_who_joins_again_begins_anew(feeds: Feeds) -> None:
    room = Room(feeds)
    await room.add("a")
    await room.send(1, 2)
    await room.feeds.port._port.run(Flush())  # type: ignore[attr-defined]
    room.groups.clear()
    await room.send(3)
    assert len(room.groups) == 0 and room.numbers("a") == [1, 2]
    await room.add("a")
    await room.send(4)
    assert room.numbers("a") == [4], "and no gap is told of"


async def test_a_group_joined_while_the_store_is_away_heals(feeds: Feeds) -> None:
    room = Room(feeds)
    feeds.port.refusing = lambda command: True  # type: ignore[attr-defined]
    await room.add("a")
    feeds.port.refusing = lambda command: False  # type: ignore[attr-defined]
    await eventually(lambda: not feeds.get("g/room").filling, "the store is back")  # type: ignore[union-attr]
    await room.send(1)
    assert room.numbers("a") == [1]


async def test_those_who_come_while_a_join_is_under_way_wait_for_it(feeds: Feeds) -> None:
    room = Room(feeds)
    feeds.port.open.clear()  # type: ignore[attr-defined]
    joins = [asyncio.ensure_future(room.add(channel)) for channel in ("a", "b")]
    done, _ = await asyncio.wait(joins, timeout=0.05)
    assert not done
    feeds.port.open.set()  # type: ignore[attr-defined]
    await asyncio.gather(*joins)
    await room.send(1)
    assert room.numbers("a") == room.numbers("b") == [1]


@pytest.mark.parametrize("told", [True, False])
async def test_a_gap_is_told_to_every_member_where_that_is_wanted(feeds: Feeds, told: bool) -> None:
    room = Room(feeds, on_gap=told)
    await room.add("a", "b")
    assert feeds.get("g/room").gap("trimmed") is True  # type: ignore[union-attr]
    expected = [{"type": "room", "why": "trimmed"}] if told else []
    assert room.read("a") == room.read("b") == expected


async def test_who_was_served_without_the_store_is_passed_over(feeds: Feeds) -> None:
    room = Room(feeds)
    await room.add("a")
    command = Publish("g/room", room.codec.dumps({"n": 1}), KEEP, id="12345678901")
    feeds.deliver_unplaced(command)
    await room.add("b")
    feeds.on_message("g/room", None, 0, command.body, id=command.id.encode())
    assert room.numbers("a") == [1]
    assert room.numbers("b") == [1], "joined before the store had it"
