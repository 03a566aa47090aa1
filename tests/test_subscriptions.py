from __future__ import annotations

import asyncio
import json
from typing import Any

from livechannels.feeds import Feeds
from livechannels.hub import Hub
from livechannels.mailboxes import Mailbox
from livechannels.policies import Policy
from livechannels.positions import Position
from livechannels.subscriptions import ConsumerSubscription
from tests.test_feeds import eventually, feeds
from tests.test_hub import publish

__all__ = ["feeds"]


async def test_continuity_that_ends_while_subscribing_costs_and_repeats_nothing(feeds: Any) -> None:
    """An epoch may change between asking for the position and hearing it."""
    hub = Hub(feeds, feeds, lambda channel: Policy(history_size=100, history_ttl=60))
    box = Mailbox("consumer", 100)
    subscription = ConsumerSubscription(
        hub, "cpu", box, spawn=spawner(feeds), dumps=lambda event: json.dumps(event).encode(), expiry=60,
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
    assert [json.loads(body)["data"] for body in box.drain()] == [2, 3, 4]
    assert subscription.position is not None
    assert subscription.position == Position(subscription.position.epoch, 4)


def spawner(feeds: Feeds) -> Any:
    return feeds._spawn
