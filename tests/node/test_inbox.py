from __future__ import annotations

import logging

import msgspec
import pytest

from livechannels.messages.positions import START, Entry
from livechannels.node.groups import DROPPED, UNREADABLE
from livechannels.node.inbox import RENEWED_FOR, InboxFeed, Letter
from livechannels.node.mailboxes import Mailboxes
from livechannels.serializers import Codec


class Inbox:
    """An inbox whose letters come without a store; each mailbox holds two."""

    def __init__(self, codec: Codec | None = None, expiry: float = 60) -> None:
        self.boxes = Mailboxes(lambda channel: 2)
        self.requests: list[Letter] = []
        self.gaps: list[str] = []
        self.codec = codec or Codec()
        self.feed = InboxFeed(
            "node!", self.boxes, expiry=expiry, unseal=self.codec.unseal,
            on_request=self.requests.append, on_gap=self.gaps.append,
        )  # fmt: skip

    def get(self, raw: bytes) -> None:
        self.feed.deliver(Entry(1, 0, raw), "e")

    def mail(self, *bodies: bytes, channel: str = "node!a") -> None:
        for body in bodies:
            self.get(self.codec.seal(Letter("m", channel, body).encode()))


def test_a_letter_goes_to_its_own_mailbox_in_order():
    inbox = Inbox()
    inbox.mail(b"1")
    inbox.mail(b"other", channel="node!b")
    inbox.mail(b"2")
    assert inbox.boxes.get("node!a").drain() == [b"1", b"2"] and inbox.boxes.get("node!b").drain() == [b"other"]
    assert not inbox.requests


def test_a_full_mailbox_keeps_the_oldest_and_the_loss_is_counted():
    inbox = Inbox()
    before = DROPPED.value(kind="channel")
    inbox.mail(b"1", b"2", b"3", b"4")
    assert DROPPED.value(kind="channel") == before + 2
    assert inbox.boxes.get("node!a").drain() == [b"1", b"2"]


def test_a_letter_that_waited_too_long_is_not_read():
    inbox = Inbox(expiry=0)
    inbox.mail(b"1")
    assert inbox.boxes.get("node!a").drain() == []


@pytest.mark.parametrize("kind", ["j", "l", "from the future"])
def test_anything_but_a_message_is_a_request(kind):
    inbox, request = Inbox(), Letter(kind, "node!a", group="room", ack="x")
    inbox.get(request.encode())
    assert inbox.requests == [request] and len(inbox.boxes) == 0


@pytest.mark.parametrize("junk", [b"", b"\xc1junk", msgspec.msgpack.encode(["m", "node!a"]), msgspec.msgpack.encode(1)])
def test_junk_is_skipped_counted_and_logged(junk, caplog):
    inbox = Inbox()
    before = UNREADABLE.value()
    with caplog.at_level(logging.WARNING, "livechannels.node.inbox"):
        inbox.get(junk)
        inbox.mail(b"1")
    assert UNREADABLE.value() == before + 1
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["n/node!"]
    assert inbox.boxes.get("node!a").drain() == [b"1"]


def test_only_who_has_the_key_can_write():
    pytest.importorskip("cryptography")
    inbox = Inbox(Codec(keys=["a"]))
    inbox.get(Letter("m", "node!a", b"unsealed").encode())
    inbox.get(Codec(keys=["b"]).seal(Letter("m", "node!a", b"foreign").encode()))
    inbox.mail(b"1")
    assert inbox.boxes.get("node!a").drain() == [b"1"]


def test_how_it_is_followed():
    """From the beginning: what was sent before the first look is not missed; and as long as the node lives."""
    feed = Inbox(expiry=7).feed
    assert feed.topic == "n/node!" and feed.position == feed.trimmed == START
    assert feed.retained and not feed.idle and feed.max_age == 7 and feed.renew == RENEWED_FOR


def test_after_a_gap_what_is_left_is_delivered_and_the_node_told():
    inbox = Inbox()
    assert inbox.feed.gap("trimmed") is True
    assert inbox.gaps == ["trimmed"]
