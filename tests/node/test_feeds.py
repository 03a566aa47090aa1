"""Feeds over the memory engine, with a path that can be held up, refuse, and go back in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import pytest

from livechannels.engines.base import Command, Positions, Publish, Read, Retention
from livechannels.engines.memory import MemoryEngine
from livechannels.exceptions import EngineUnavailable
from livechannels.messages.positions import Beginning, Entry, Position, Slice
from livechannels.node.feed import Feed
from livechannels.node.feeds import Feeds

TOPIC = "g/room"
KEEP = Retention(100, 60, 120)


class Heard(Feed):
    """Keeps what it is given; chokes on b"poison"."""

    __slots__ = ("bodies", "gaps", "given", "gone", "names")

    def __init__(self, topic: str = TOPIC, position: Position | None = None) -> None:
        super().__init__(topic, position)
        self.bodies: list[bytes] = []
        self.names = ["one"]
        self.given: list[list[str]] = []
        self.gaps: list[str] = []
        self.gone = False

    @property
    def idle(self) -> bool:
        return False

    @property
    def audience(self) -> list[str]:
        return self.names

    def deliver(self, entry: Entry, epoch: str, served: Collection[Any] = ()) -> None:
        if entry.body == b"poison":
            raise OverflowError("too big")
        self.bodies.append(entry.body)
        self.given.append([name for name in self.names if name not in served])

    def gap(self, reason: str) -> bool:
        self.gaps.append(reason)
        return True


class Path:
    """A memory port whose reads wait for `open`, fail while `refusing`, or are answered by `reads`."""

    def __init__(self, feeds: Feeds, engine: MemoryEngine) -> None:
        self._port = engine.port(feeds, "node")
        self.open = asyncio.Event()
        self.open.set()
        self.refusing: Callable[[Command[Any]], bool] = lambda command: False
        self.reads: list[Slice] = []
        self.asked: list[Read] = []
        self.subscribed: list[tuple[str, ...]] = []
        self.ran: list[Command[Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def subscribe(self, *topics: str) -> Any:
        self.subscribed.append(topics)
        return self._port.subscribe(*topics)

    async def run(self, command: Command[Any]) -> Any:
        self.ran.append(command)
        await self.open.wait()
        if self.refusing(command):
            raise EngineUnavailable
        if isinstance(command, Read) and self.reads:
            self.asked.append(command)
            return self.reads.pop(0)
        return await self._port.run(command)


@pytest.fixture
async def feeds() -> AsyncIterator[Feeds]:
    tasks: set[asyncio.Task[None]] = set()

    def spawn(coroutine: Any, name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        tasks.add(task)
        return task

    feeds = Feeds(spawn)
    feeds.port = Path(feeds, MemoryEngine())  # type: ignore[assignment]
    yield feeds
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def publish(feeds: Feeds, *bodies: bytes) -> Position:
    for body in bodies:
        published = await feeds.port._port.run(Publish(TOPIC, body, KEEP))  # type: ignore[attr-defined]
    return published.position


async def eventually(condition: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


async def test_messages_after_a_join_arrive_in_order(feeds: Feeds) -> None:
    await publish(feeds, b"before")
    feed = Heard()
    await feeds.join(feed)
    await publish(feeds, b"1", b"2")
    await eventually(lambda: feed.bodies == [b"1", b"2"], "both in order")


async def test_a_cancelled_join_leaves_a_feed_that_works(feeds: Feeds) -> None:
    """Others may have joined meanwhile, and for them this was the only attempt."""
    feeds.port.open.clear()  # type: ignore[attr-defined]
    feed = Heard()
    joining = asyncio.ensure_future(feeds.join(feed))
    await asyncio.sleep(0)
    other = asyncio.ensure_future(feeds.joined(feed))
    await asyncio.sleep(0)
    joining.cancel()
    await asyncio.wait([joining])
    feeds.port.open.set()  # type: ignore[attr-defined]
    await other
    assert not feed.filling, "the feed has settled"
    await publish(feeds, b"1")
    await eventually(lambda: feed.bodies == [b"1"], "the message")


async def test_a_join_that_was_refused_settles_by_itself(feeds: Feeds) -> None:
    """Nothing was disconnected, so no reconnect will come to the rescue."""
    feeds.port.refusing = lambda command: True  # type: ignore[attr-defined]
    feed = Heard()
    with pytest.raises(EngineUnavailable):
        await feeds.join(feed)
    feeds.port.refusing = lambda command: False  # type: ignore[attr-defined]
    await eventually(lambda: not feed.filling, "the feed has settled")
    await publish(feeds, b"1")
    await eventually(lambda: feed.bodies == [b"1"], "the message")


async def test_one_message_nobody_can_use_does_not_stop_the_others(
    feeds: Feeds, caplog: pytest.LogCaptureFixture
) -> None:
    live, late = Heard(), Heard()
    await feeds.join(live)
    start = await publish(feeds, b"0")
    await publish(feeds, b"poison", b"2")
    await eventually(lambda: live.bodies == [b"0", b"2"], "what came live")
    late.position = start
    await feeds.join(late)
    assert late.bodies == [b"2"]
    assert sum("could not be delivered" in record.message for record in caplog.records) == 2


async def test_after_a_loss_all_that_survives_is_delivered_however_often_the_epoch_changed(feeds: Feeds) -> None:
    top, record = Position("c", 16), (Beginning("a", 0), Beginning("b", 10), Beginning("c", 12))
    survived = [Entry(offset, 0, b"%d" % offset) for offset in range(11, 17)]
    feeds.port.reads = [Slice(top, record, []), Slice(top, record, survived)]  # type: ignore[attr-defined]
    feed = Heard(position=Position("a", 30))
    await feeds.join(feed)
    assert feed.gaps == ["restart"]
    assert feeds.port.asked[1].since == Position("c", 10)  # type: ignore[attr-defined]
    assert feed.bodies == [b"11", b"12", b"13", b"14", b"15", b"16"]


async def test_a_shard_that_is_away_does_not_keep_others_from_being_checked(feeds: Feeds) -> None:
    away, here = Heard("g/away"), Heard()
    await feeds.join(away)
    await feeds.join(here)
    feeds.port.shard = lambda topic: int(topic == TOPIC)  # type: ignore[method-assign]
    feeds.port.refusing = lambda command: command.topic == "g/away"  # type: ignore[attr-defined]
    feeds.port.unsubscribe(TOPIC)
    await publish(feeds, b"unheard")
    await feeds._compare(["g/away", TOPIC])
    await eventually(lambda: here.bodies == [b"unheard"], "the check found it")


async def test_who_was_served_without_the_store_is_passed_over_when_it_took_the_message_after_all(feeds: Feeds) -> None:
    feed = Heard()
    await feeds.join(feed)
    unanswered = Publish(TOPIC, b"1", KEEP, id="abcdefghijk")
    feeds.deliver_unplaced(unanswered)
    feeds.deliver_unplaced(unanswered)
    feed.names.append("two")
    feeds.on_message(TOPIC, Position("e", 1), 0, b"1", b"abcdefghijk")
    feeds.on_message(TOPIC, Position("e", 2), 0, b"2", b"lmnopqrstuv")
    assert feed.bodies == [b"1", b"1", b"2"]
    assert feed.given == [["one"], ["two"], ["one", "two"]]
    assert feed.position == Position("e", 2)


async def test_what_came_from_the_store_is_not_served_again_without_it(feeds: Feeds) -> None:
    """The store took it and told everybody, but its answer was lost."""
    feed = Heard()
    await feeds.join(feed)
    feeds.on_message(TOPIC, Position("e", 1), 0, b"1", b"abcdefghijk")
    feeds.deliver_unplaced(Publish(TOPIC, b"1", KEEP, id="abcdefghijk"))
    assert feed.bodies == [b"1"]


async def test_the_joins_of_one_turn_share_one_subscribe_and_one_read(feeds: Feeds) -> None:
    path: Path = feeds.port  # type: ignore[assignment]
    await publish(feeds, b"before")
    many = [Heard(f"g/{number}") for number in range(5)] + [Heard()]
    await asyncio.gather(*map(feeds.join, many))
    topics = [feed.topic for feed in many]
    assert path.subscribed == [tuple(topics)]
    assert path.ran == [Positions(topics[0], topics)]
    assert [feed.position.offset for feed in many if feed.position] == [0, 0, 0, 0, 0, 1]
    await feeds.join(Heard("g/later"))
    assert path.subscribed[1:] == [("g/later",)]


async def test_who_joins_first_and_who_joins_along_hear_both_that_the_store_is_away(feeds: Feeds) -> None:
    """The first by an error; for the others it is not theirs."""
    feeds.port.refusing = lambda command: True  # type: ignore[attr-defined]
    feed = Heard()
    first = asyncio.ensure_future(feeds.join(feed))
    await asyncio.sleep(0)
    await feeds.joined(feed)
    with pytest.raises(EngineUnavailable):
        await first


async def test_messages_that_come_while_the_position_is_read_are_neither_lost_nor_repeated(feeds: Feeds) -> None:
    path: Path = feeds.port  # type: ignore[assignment]
    feed = Heard()
    joining = asyncio.ensure_future(feeds.join(feed))
    path.open.clear()
    await eventually(lambda: path.ran, "the read has left")
    await publish(feeds, b"1", b"2")
    path.open.set()
    await joining
    await publish(feeds, b"3")
    await eventually(lambda: feed.bodies[-1:] == [b"3"], "the last")
    assert feed.bodies == [b"3"], "1 and 2 were there before the position was read"


async def test_a_join_that_is_cancelled_before_its_first_step_ends(feeds: Feeds) -> None:
    """As when the node closes in the same turn of the loop."""
    spawn, spawned = feeds._spawn, []

    def spawn_and_keep(coroutine: Any, name: str) -> asyncio.Task[None]:
        spawned.append(spawn(coroutine, name))
        return spawned[-1]

    feeds._spawn = spawn_and_keep
    joining = asyncio.ensure_future(feeds.join(Heard()))
    while not spawned:
        await asyncio.sleep(0)
    spawned[0].cancel()
    async with asyncio.timeout(5):
        with pytest.raises(EngineUnavailable):
            await joining
