"""The hub over the memory engine: who gets what, from which offset on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from livechannels.engines.base import Publish, Retention
from livechannels.exceptions import EngineUnavailable
from livechannels.messages.policy import Policy
from livechannels.messages.positions import START, Position
from livechannels.messages.publications import Publication, encode_body
from livechannels.messages.topics import live
from livechannels.node import feeds as feeds_module
from livechannels.node.feeds import Feeds
from livechannels.node.hub import Hub
from tests.node.test_feeds import eventually, feeds

__all__ = ["feeds"]

KEEP = Retention(100, 60, 120)


class Viewer:
    def __init__(self, fails: bool = False) -> None:
        self.seen: list[int] = []
        self.lost: list[str] = []
        self.fails = fails

    def on_publication(self, publication: Publication) -> None:
        if self.fails:
            raise RuntimeError("a viewer's mistake")
        self.seen.append(publication.data)

    def on_join(self, channel: str, info: bytes) -> None: ...

    def on_leave(self, channel: str, info: bytes) -> None: ...

    def on_insufficient(self, channel: str, reason: str) -> None:
        self.lost.append(reason)


@pytest.fixture
def hub(feeds: Feeds) -> Hub:
    return Hub(feeds, feeds, lambda channel: Policy(history_size=100, history_ttl=60))


async def publish(feeds: Any, *numbers: int, channel: str = "cpu") -> Position:
    for number in numbers:
        published = await feeds.port._port.run(Publish(live(channel), encode_body(number), KEEP))
    return published.position


async def test_recovery_and_live_make_one_sequence(hub: Hub, feeds: Feeds) -> None:
    since = await publish(feeds, 1)
    await publish(feeds, 2, 3)
    viewer = Viewer()
    welcome = await hub.subscribe("cpu", viewer, since=since)
    await publish(feeds, 4)
    await asyncio.sleep(0)
    assert (welcome.recovered, [one.data for one in welcome.publications]) == (True, [2, 3])
    assert viewer.seen == []
    hub.activate("cpu", viewer)
    await publish(feeds, 5)
    await eventually(lambda: viewer.seen == [4, 5], "what came after the welcome")


async def test_who_comes_after_a_failed_first_subscribe_misses_nothing(hub: Hub, feeds: Any) -> None:
    """The channel's own position is not known yet when the second viewer is told where it stands."""
    feeds.port.refusing = lambda command: True
    with pytest.raises(EngineUnavailable):
        await hub.subscribe("cpu", Viewer())
    feeds.port.refusing = lambda command: False
    viewer = Viewer()
    welcome = await hub.subscribe("cpu", viewer)
    hub.activate("cpu", viewer)
    assert welcome.position is not None
    await publish(feeds, 1, 2)
    await eventually(lambda: viewer.seen == [1, 2], "both publications")


async def test_one_failing_viewer_costs_the_others_nothing(hub: Hub, feeds: Feeds) -> None:
    viewers = [Viewer(), Viewer(fails=True), Viewer()]
    for viewer in viewers:
        await hub.subscribe("cpu", viewer)
        hub.activate("cpu", viewer)
    await publish(feeds, 1, 2)
    await eventually(lambda: viewers[0].seen == viewers[2].seen == [1, 2], "both publications at both viewers")


async def test_a_channel_nobody_watches_is_forgotten(hub: Hub, feeds: Feeds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds_module, "LINGER", 0.01)
    for number in range(20):
        viewer, channel = Viewer(), f"cpu/{number}"
        await publish(feeds, 1, channel=channel)
        await hub.subscribe(channel, viewer)
        hub.unsubscribe(channel, viewer)
    await eventually(lambda: len(feeds) == 0, "all were left")
    assert not hub._live
    assert hub.position("cpu/1") == START


async def test_a_viewer_that_comes_back_in_time_is_served_on(
    hub: Hub, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds_module, "LINGER", 0.01)
    first, second = Viewer(), Viewer()
    await hub.subscribe("cpu", first)
    hub.unsubscribe("cpu", first)
    await hub.subscribe("cpu", second)
    hub.activate("cpu", second)
    await asyncio.sleep(0.05)
    await publish(feeds, 1)
    await eventually(lambda: second.seen == [1], "the publication")
