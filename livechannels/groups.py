"""Channels groups on one node: which mailboxes stand in which group, and delivery to them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from . import metrics, topics
from .exceptions import EngineUnavailable
from .feeds import Feed, Feeds
from .mailboxes import Mailbox, Mailboxes
from .positions import Entry

logger = logging.getLogger(__name__)

DROPPED = metrics.counter("livechannels_dropped_total", "Messages dropped at a full mailbox.", "kind")
UNREADABLE = metrics.counter("livechannels_unreadable_total", "Messages that could not be decoded and were skipped.")
WARN_EVERY = 10.0


class GroupFeed(Feed):
    """One group with local members: mailbox to the time its membership ends."""

    __slots__ = ("groups", "kept", "members", "name")

    def __init__(self, groups: Groups, name: str, retained: bool) -> None:
        super().__init__(topics.group(name))
        self.groups = groups
        self.name = name
        self.kept = retained
        self.members: dict[Mailbox, float] = {}

    @property
    def retained(self) -> bool:
        return self.kept

    @property
    def max_age(self) -> float:
        return self.groups.expiry

    @property
    def renew(self) -> float:
        return self.groups.meta_ttl

    @property
    def idle(self) -> bool:
        return not self.members

    @property
    def audience(self) -> Collection[Mailbox]:
        return self.members

    def deliver(self, entry: Entry, epoch: str, served: Collection[Mailbox] = ()) -> None:
        self.groups.deliver(self, entry.body, served)

    def gap(self, reason: str) -> bool:
        self.groups.on_gap(self, reason)
        return True


class Groups:
    """All groups of a node.

    A group's message reaches each local member once, whatever the others do: a full mailbox keeps its oldest
    messages, drops this one, and is counted.
    """

    def __init__(
        self,
        feeds: Feeds,
        mailboxes: Mailboxes,
        *,
        expiry: float,
        group_expiry: float,
        meta_ttl: float,
        keeps: Callable[[str], bool],
        unseal: Callable[[bytes], bytes],
        gap_event: Callable[[str, str], bytes | None],
    ) -> None:
        self.expiry = expiry
        self.meta_ttl = meta_ttl
        self._group_expiry = group_expiry
        self._feeds = feeds
        self._mailboxes = mailboxes
        self._keeps = keeps
        self._unseal = unseal
        self._gap_event = gap_event
        self._groups: dict[str, GroupFeed] = {}
        self._warned: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._groups)

    async def add(self, group: str, channel: str) -> None:
        """Join; returns when the store has confirmed, or at once while it is away (the group heals by itself)."""
        feed = self._groups.get(group)
        known = feed is not None and self._feeds.get(feed.topic) is feed
        if feed is None or not known:
            feed = self._groups[group] = GroupFeed(self, group, self._keeps(group))
        feed.members[self._mailboxes.get(channel)] = time.monotonic() + self._group_expiry
        if known and feed.ready is None:
            return
        try:
            await (self._feeds.joined(feed) if known else self._feeds.join(feed))
        except EngineUnavailable:
            logger.info("%s: joined while the store is away; it will be followed when the store is back", feed.topic)

    def discard(self, group: str, channel: str) -> None:
        """Leave; unknown groups and members are ignored."""
        feed = self._groups.get(group)
        if feed is None or channel not in self._mailboxes:
            return
        feed.members.pop(self._mailboxes.get(channel), None)
        self._let_go(feed)

    def forget(self, gone: list[Mailbox]) -> None:
        """Take swept mailboxes out of every group."""
        for feed in list(self._groups.values()):
            for box in gone:
                feed.members.pop(box, None)
            self._let_go(feed)

    def clear(self) -> None:
        """Empty every group; used by flush."""
        for feed in list(self._groups.values()):
            feed.members.clear()
            self._let_go(feed)

    def _let_go(self, feed: GroupFeed) -> None:
        if not feed.members:
            self._groups.pop(feed.name, None)
            self._feeds.leave_soon(feed)

    def deliver(self, feed: GroupFeed, sealed: bytes, served: Collection[Mailbox] = ()) -> None:
        try:
            body = self._unseal(sealed)
        except ValueError as error:
            UNREADABLE.inc()
            logger.warning("group %s: a message was skipped: %s", feed.name, error)
            return
        now = time.monotonic()
        item = (now + self.expiry, body)
        full = 0
        expired = []
        members = {box: feed.members[box] for box in feed.members if box not in served} if served else feed.members
        for box, until in members.items():
            if until < now and not self._renew(feed, box, now):
                expired.append(box)
            elif not box.put(item):
                full += 1
        for box in expired:
            del feed.members[box]
        if expired:
            self._let_go(feed)
        if full:
            self._report_full(feed, full, now)

    def _renew(self, feed: GroupFeed, box: Mailbox, now: float) -> bool:
        """A membership past its end goes on while its consumer reads."""
        if not box.waiting and now - box.left_at > self._group_expiry:
            return False
        feed.members[box] = now + self._group_expiry
        return True

    def _report_full(self, feed: GroupFeed, full: int, now: float) -> None:
        DROPPED.inc(full, kind="group")
        if now - self._warned.get(feed.name, -WARN_EVERY) >= WARN_EVERY:
            if len(self._warned) > 1000:
                self._warned.clear()
            self._warned[feed.name] = now
            logger.info("%d of %d channels over capacity in group %s", full, len(feed.members), feed.name)

    def on_gap(self, feed: GroupFeed, reason: str) -> None:
        event = self._gap_event(feed.name, reason)
        if event is not None:
            item = (time.monotonic() + self.expiry, event)
            for box in feed.members:
                box.put(item)
