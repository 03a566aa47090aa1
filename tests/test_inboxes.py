from __future__ import annotations

from livechannels.inboxes import InboxFeed, Letter
from livechannels.mailboxes import Mailboxes
from livechannels.positions import START, Entry


def test_letters_reach_their_mailbox_and_requests_their_handler():
    boxes, requests, gaps = Mailboxes(lambda channel: 2), [], []
    feed = InboxFeed("node!", boxes, expiry=60, unseal=bytes, on_request=requests.append, on_gap=gaps.append)
    join = Letter("j", "node!a", group="room", ack="x")
    letters = [Letter("m", "node!a", b"1"), join, *(Letter("m", "node!a", body) for body in (b"2", b"3"))]
    for number, raw in enumerate([letters[0].encode(), b"\xc1junk", *(letter.encode() for letter in letters[1:])], 1):
        feed.deliver(Entry(number, 0, raw), "e")
    assert boxes.get("node!a").drain() == [b"1", b"2"], "the oldest are kept, junk is skipped"
    assert requests == [join]
    assert feed.gap("trimmed") and gaps == ["trimmed"]
    assert feed.topic == "n/node!" and feed.position == START and not feed.idle
