from __future__ import annotations

import time

import msgspec

from livechannels.engines.base import Command, RosterSet
from livechannels.engines.memory import MemoryEngine
from livechannels.exceptions import EngineUnavailable
from livechannels.messages import topics
from livechannels.node.activity import ENTER_EVERY, Activity, active_channels, active_channels_sync


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Store:
    """A memory engine behind the two methods of a layer that are needed, counting what is asked of it."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.commands: list[Command] = []
        self.away = False

    async def run(self, command: Command):
        self.commands.append(command)
        if self.away:
            raise EngineUnavailable
        return await self.engine.run_detached(command)

    def run_sync(self, command: Command):
        return self.engine.run_sync(command)


async def test_channels_are_listed_by_name_with_rate_and_last_time() -> None:
    store = Store()
    activity = Activity(store, Clock())
    await activity.published("stream/x/b", 3)
    await activity.published("stream/x/a")
    listed = await active_channels(store)
    assert [(one.channel, one.rate) for one in listed] == [("stream/x/a", 1), ("stream/x/b", 3)]
    assert all(abs(one.last - time.time()) < 60 for one in listed)
    assert active_channels_sync(store) == listed


async def test_the_roster_is_written_at_most_every_five_seconds_for_each_channel() -> None:
    store, clock = Store(), Clock()
    activity = Activity(store, clock)
    for _ in range(100):
        await activity.published("stream/x/a")
        await activity.published("stream/x/b")
        clock.now += 0.1
    assert ENTER_EVERY == 5
    assert len(store.commands) == 4


async def test_the_rate_is_that_of_the_last_minute() -> None:
    store, clock = Store(), Clock()
    activity = Activity(store, clock)
    for _ in range(301):
        await activity.published("stream/x/a")
        clock.now += 1
    assert [one.rate for one in await active_channels(store)] == [56]  # 11 whole slots of 5 s, and 1 second
    clock.now += 3600
    await activity.published("stream/x/a")
    assert [one.rate for one in await active_channels(store)] == [1]


async def test_rates_of_several_processes_add_up_and_old_ones_count_nothing() -> None:
    store = Store()
    now = time.time()
    for process, rate, at in [("one-1", 60, now), ("two-1", 30, now - 5), ("gone-1", 500, now - 100)]:
        entry = msgspec.json.encode({"rate": rate, "at": at})
        await store.run(RosterSet(topics.CHANNELS, f"stream/x/a {process}", entry, 300))
    await store.run(RosterSet(topics.CHANNELS, "stream/x/b of-another-version", b"?", 300))
    assert [tuple(one) for one in await active_channels(store)] == [("stream/x/a", 90, now)]


async def test_a_store_that_is_away_is_no_error_for_who_published() -> None:
    store = Store()
    store.away = True
    await Activity(store).published("stream/x/a")
    assert len(store.commands) == 1


async def test_the_number_of_channels_kept_is_bounded() -> None:
    activity = Activity(Store(), Clock())
    for number in range(10_500):
        await activity.published(f"stream/x/m{number}")
    assert len(activity._meters) <= 10_000
