from __future__ import annotations

import logging

from livechannels.engines.base import Publish
from livechannels.feeds import Feeds
from livechannels.groups import Groups
from livechannels.mailboxes import Mailboxes
from tests.test_feeds import feeds

__all__ = ["feeds"]


async def test_each_member_once_and_a_full_one_keeps_its_oldest(feeds: Feeds, caplog):
    boxes = Mailboxes(lambda channel: 1 if channel == "small" else 9)
    groups = Groups(feeds, boxes, expiry=60, group_expiry=60, meta_ttl=60, keeps=lambda name: True, unseal=bytes,
                    gap_event=lambda name, reason: None)  # fmt: skip
    for channel in ("small", "large", "large"):
        await groups.add("room", channel)
    with caplog.at_level(logging.INFO, "livechannels.groups"):
        for body in (b"1", b"2", b"3"):
            feeds.deliver_unplaced(Publish("g/room", body))
    assert boxes.get("small").drain() == [b"1"] and boxes.get("large").drain() == [b"1", b"2", b"3"]
    assert [record.getMessage() for record in caplog.records] == ["1 of 2 channels over capacity in group room"]
    groups.discard("room", "small")
    groups.discard("room", "nobody")
    feeds.deliver_unplaced(Publish("g/room", b"4"))
    assert boxes.get("small").drain() == [] and boxes.get("large").drain() == [b"4"]
    groups.clear()
    feeds.deliver_unplaced(Publish("g/room", b"5"))
    assert len(groups) == 0 and boxes.get("large").drain() == []
