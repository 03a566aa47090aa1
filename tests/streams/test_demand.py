from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from livechannels.engines.base import RosterGet
from livechannels.messages import topics
from livechannels.streams import demand as module
from livechannels.streams.demand import Demand
from livechannels.streams.status import StreamStatus, decode
from tests.leadership.test_election import Bus, Cluster


class Site:
    """One node's demand, and what it was told."""

    def __init__(self, name: str, cluster: Cluster) -> None:
        self.bus = cluster.buses[name] = Bus(name, cluster)
        self.changes: list[tuple[str, bool]] = []
        self.running: list[StreamStatus] = []
        self.demand = Demand(
            self.bus,
            relevant=lambda channel: channel.startswith("source/"),
            changed=lambda channel, news: self.changes.append((channel, news)),
            report=lambda: self.running,
        )


MakeSite = Callable[[str], Site]


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeSite]:
    """Makes nodes of one cluster whose clockwork runs ten times as fast."""
    monkeypatch.setattr(module, "REFRESH", 0.5)
    monkeypatch.setattr(module, "TTL", 1.5)
    monkeypatch.setattr(module, "PAUSE", 0.02)
    cluster = Cluster()
    made: list[Site] = []

    def make(name: str) -> Site:
        made.append(Site(name, cluster))
        return made[-1]

    yield make
    for one in made:
        one.bus.cut = False
        await one.demand.close()


async def eventually(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


async def test_a_viewer_anywhere_is_known_everywhere_at_once(site):
    a, b = site("a"), site("b")
    await eventually(lambda: set(a.demand.nodes()) == {"a", "b"} == set(b.demand.nodes()), "they know each other")
    a.demand.on_first_viewer("source/x")
    assert a.changes == [("source/x", True)]
    began = time.monotonic()
    await eventually(lambda: b.demand.wanted("source/x"), "b knows")
    assert time.monotonic() - began < 0.2
    assert b.changes == [("source/x", True)]
    assert not b.demand.wanted_here("source/x")
    assert a.demand.wanted_here("source/x")


async def test_only_backend_streams_are_wanted(site):
    a = site("a")
    a.demand.on_first_viewer("stream/x")
    a.demand.on_last_viewer("stream/x")
    assert not a.demand.wanted("stream/x")
    assert a.changes == []


async def test_the_last_viewer_of_the_last_node_ends_it(site):
    a, b = site("a"), site("b")
    for one in (a, b):
        one.demand.on_first_viewer("source/x")
    await eventually(lambda: len(a.changes) == 2, "a heard of b")
    a.demand.on_last_viewer("source/x")
    await asyncio.sleep(0.1)
    assert a.demand.wanted("source/x")
    b.demand.on_last_viewer("source/x")
    await eventually(lambda: not a.demand.wanted("source/x"), "nobody wants it")
    assert a.changes[-1] == ("source/x", False)


async def test_a_missed_broadcast_is_made_good_by_the_roster(site):
    a, b = site("a"), site("b")
    await eventually(lambda: "a" in b.demand.nodes(), "they know each other")
    b.bus.cut = True
    a.demand.on_first_viewer("source/x")
    await asyncio.sleep(0.1)
    assert not b.demand.wanted("source/x")
    b.bus.cut = False
    await eventually(lambda: b.demand.wanted("source/x"), "b reads it")
    assert ("source/x", True) in b.changes


async def test_a_node_that_joins_learns_what_is_wanted_without_calling_it_news(site):
    a = site("a")
    a.demand.on_first_viewer("source/x")
    await asyncio.sleep(0.2)
    b = site("b")
    await eventually(lambda: b.demand.wanted("source/x"), "b reads it")
    assert b.changes == [("source/x", False)]


async def test_a_node_that_dies_falls_out_of_the_roster(site):
    a, b = site("a"), site("b")
    a.demand.on_first_viewer("source/x")
    await eventually(lambda: b.demand.wanted("source/x"), "b knows")
    a.bus.cut = True
    await eventually(lambda: not b.demand.wanted("source/x"), "a is forgotten")
    assert set(b.demand.nodes()) == {"b"}


async def test_a_node_that_leaves_is_gone_at_once_and_does_not_come_back(site):
    a, b = site("a"), site("b")
    a.demand.on_first_viewer("source/x")
    await eventually(lambda: b.demand.wanted("source/x"), "b knows")
    entries = await b.bus.run(RosterGet(topics.STREAMS))
    await a.demand.close()
    await eventually(lambda: not b.demand.wanted("source/x"), "a is gone")
    b.demand._learn(decode(entries))
    assert set(b.demand.nodes()) == {"b"}


async def test_an_old_entry_does_not_undo_newer_news(site):
    a, b = site("a"), site("b")
    await asyncio.sleep(0.1)
    old = await b.bus.run(RosterGet(topics.STREAMS))
    a.demand.on_first_viewer("source/x")
    await eventually(lambda: b.demand.wanted("source/x"), "b knows")
    b.demand._learn(decode(old))
    assert b.demand.wanted("source/x")


async def test_what_a_node_runs_is_entered_when_it_changes(site):
    a = site("a")
    a.running.append(
        StreamStatus(channel="source/x", node="a", scope="cluster", state="ended", token=1, since=time.time())
    )
    a.demand.touch()
    b = site("b")
    await eventually(lambda: b.demand.ended("source/x"), "b knows that it ended")
