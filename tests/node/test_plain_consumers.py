from __future__ import annotations

import asyncio
from typing import Any

from livechannels.messages.policy import Policy
from livechannels.messages.positions import Position
from livechannels.node.feeds import Feeds
from livechannels.node.hub import Hub
from livechannels.node.isolation import Shared
from livechannels.node.mailboxes import Body, Mailbox
from livechannels.node.plain_consumers import ConsumerSubscription, event_maker
from livechannels.serializers import Codec
from tests.node.test_feeds import eventually, feeds
from tests.node.test_hub import publish

__all__ = ["feeds"]


async def test_continuity_that_ends_while_subscribing_costs_and_repeats_nothing(feeds: Any) -> None:
    """An epoch may change between asking for the position and hearing it."""
    hub = Hub(feeds, feeds, lambda channel: Policy(history_size=100, history_ttl=60))
    box: Mailbox[Body] = Mailbox("consumer", 100)
    subscription = ConsumerSubscription(
        hub, "cpu", box, spawn=spawner(feeds), event=event_maker(Codec("json")), expiry=60,
        gap_event=lambda name, reason: b'{"data": "gap"}',
    )  # fmt: skip
    await publish(feeds, 1, 2)
    feeds.port.open.clear()
    starting = asyncio.ensure_future(subscription.start(None))
    await asyncio.sleep(0)
    hub._live["cpu"].rebased()
    feeds.port.open.set()
    await starting
    await publish(feeds, 3)
    await eventually(lambda: len(box) >= 2, "the last one before and the one after")
    await eventually(lambda: "cpu" in hub.counts(), "subscribed again")
    await publish(feeds, 4)
    await eventually(lambda: len(box) >= 3, "live again")
    assert [event.message()["data"] for event in box.drain() if isinstance(event, Shared)] == [2, 3, 4]
    assert subscription.position is not None
    assert subscription.position == Position(subscription.position.epoch, 4)


async def test_an_event_is_made_once_for_all_consumers_and_each_has_its_own(feeds: Any) -> None:
    hub = Hub(feeds, feeds, lambda channel: Policy(history_size=100, history_ttl=60))
    event = event_maker(Codec())
    boxes: list[Mailbox[Body]] = [Mailbox(name, 100) for name in ("a", "b")]
    for box in boxes:
        await ConsumerSubscription(
            hub, "cpu", box, spawn=spawner(feeds), event=event, expiry=60, gap_event=lambda name, reason: None
        ).start(None)
    await publish(feeds, 7)
    await eventually(lambda: all(len(box) for box in boxes), "one for each")
    (first,), (second,) = boxes[0].drain(), boxes[1].drain()
    assert first is second and isinstance(first, Shared)
    one, other = first.message(), first.message()
    one["tags"] = one["data"] = "edited"
    assert (other["type"], other["channel"], other["data"], other["tags"]) == ("live.publication", "cpu", 7, None)


def spawner(feeds: Feeds) -> Any:
    return feeds._spawn
