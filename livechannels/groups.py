"""Channels groups on one node: which mailboxes stand in which group, and delivery to them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from time import monotonic
from typing import cast

from . import metrics, topics
from .codec import Codec
from .exceptions import EngineUnavailable
from .feeds import Feed, Feeds
from .isolation import Shared
from .mailboxes import Body, Mailbox, Mailboxes
from .positions import Entry

logger = logging.getLogger(__name__)

DROPPED = metrics.counter("livechannels_dropped_total", "Messages dropped at a full mailbox.", "kind")
UNREADABLE = metrics.counter("livechannels_unreadable_total", "Messages that could not be decoded and were skipped.")
WARN_EVERY = 10.0


class GroupFeed(Feed):
    """One group with local members: mailbox to the time its membership ends, none of them before `ends`."""

    __slots__ = ("ends", "groups", "kept", "members")

    def __init__(self, groups: Groups, topic: str, retained: bool) -> None:
        super().__init__(topic)
        self.groups = groups
        self.kept = retained
        self.members: dict[Mailbox[Body], float] = {}
        self.ends = 0.0

    @property
    def name(self) -> str:
        return topics.group_name(self.topic)

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
    def audience(self) -> Collection[Mailbox[Body]]:
        return self.members

    def deliver(self, entry: Entry, epoch: str, served: Collection[Mailbox[Body]] = ()) -> None:
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
        codec: Codec,
        gap_event: Callable[[str, str], bytes | None],
    ) -> None:
        self.expiry = expiry
        self.meta_ttl = meta_ttl
        self._group_expiry = group_expiry
        self._feeds = feeds
        self._mailboxes = mailboxes
        self._keeps = keeps
        self._codec = codec
        self._gap_event = gap_event
        self._warned: dict[str, float] = {}

    def __iter__(self) -> Iterator[GroupFeed]:
        return iter([feed for feed in self._feeds if isinstance(feed, GroupFeed) and feed.members])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, group: object) -> bool:
        return isinstance(group, str) and self._find(group) is not None

    def _find(self, group: str) -> GroupFeed | None:
        return cast("GroupFeed | None", self._feeds.get(topics.group(group)))

    async def add(self, group: str, channel: str) -> None:
        """Join; returns when the store has confirmed, or at once while it is away (the group heals by itself)."""
        feed = known = self._find(group)
        if feed is None:
            feed = GroupFeed(self, topics.group(group), self._keeps(group))
        until = monotonic() + self._group_expiry
        if not feed.members:
            feed.ends = until
            if known is not None:
                self._feeds.check_again(feed)
        feed.members[self._mailboxes.get(channel)] = until
        if known is not None and feed.joining is None:
            return
        try:
            await (self._feeds.join(feed) if known is None else self._feeds.joined(feed))
        except EngineUnavailable:
            logger.info("%s: joined while the store is away; it will be followed when the store is back", feed.topic)

    def discard(self, group: str, channel: str) -> None:
        """Leave; unknown groups and members are ignored."""
        feed, box = self._find(group), self._mailboxes.find(channel)
        if feed is not None and box is not None and feed.members.pop(box, None) is not None:
            self._let_go(feed)

    def forget(self, gone: list[Mailbox[Body]]) -> None:
        """Take swept mailboxes out of every group."""
        for feed in self:
            for box in gone:
                feed.members.pop(box, None)
            self._let_go(feed)

    def clear(self) -> None:
        """Empty every group; used by flush."""
        for feed in self:
            feed.members.clear()
        self._feeds.leave([feed for feed in self._feeds if isinstance(feed, GroupFeed)])

    def _let_go(self, feed: GroupFeed) -> None:
        if not feed.members:
            self._feeds.leave_soon(feed)

    def deliver(self, feed: GroupFeed, sealed: bytes, served: Collection[Mailbox[Body]] = ()) -> None:
        try:
            raw = self._codec.unseal(sealed)
        except ValueError as error:
            UNREADABLE.inc()
            logger.warning("group %s: a message was skipped: %s", feed.name, error)
            return
        now = monotonic()
        if feed.ends < now:
            self._end_memberships(feed, now)
        body = Shared(raw, self._codec.loads) if len(feed.members) > 1 else raw
        item = (now + self.expiry, body)
        full = 0
        for box in [box for box in feed.members if box not in served] if served else feed.members:
            if not box.put(item):
                full += 1
        if full:
            self._report_full(feed, full, now)

    def _end_memberships(self, feed: GroupFeed, now: float) -> None:
        """A membership past its end goes on while its consumer reads."""
        for box, until in list(feed.members.items()):
            if until < now:
                if box.waiting or now - box.left_at <= self._group_expiry:
                    feed.members[box] = now + self._group_expiry
                else:
                    del feed.members[box]
        feed.ends = min(feed.members.values(), default=0.0)
        self._let_go(feed)

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
            item = (monotonic() + self.expiry, event)
            for box in feed.members:
                box.put(item)
