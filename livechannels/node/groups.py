"""Channels groups on one node: which mailboxes stand in which group, and delivery to them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from time import monotonic
from typing import cast

from .. import metrics
from ..exceptions import EngineUnavailable
from ..messages import topics
from ..messages.positions import Entry
from ..serializers import Codec
from .feed import Feed
from .feeds import Feeds
from .isolation import Shared
from .mailboxes import Body, Mailbox, Mailboxes

logger = logging.getLogger(__name__)

DROPPED = metrics.counter("livechannels_dropped_total", "Messages dropped at a full mailbox.", "kind")
UNREADABLE = metrics.counter("livechannels_unreadable_total", "Messages that could not be decoded and were skipped.")
WARN_EVERY = 10.0


class GroupFeed(Feed):
    """One group with local members: each mailbox with the time its membership ends, none of them before `ends`.

    Most groups have one member, such as the one that each user has for himself: it does without a dict.
    """

    __slots__ = ("_many", "_one", "ends", "groups", "kept")

    def __init__(self, groups: Groups, topic: str, retained: bool) -> None:
        super().__init__(topic)
        self.groups = groups
        self.kept = retained
        self.ends = 0.0
        self._one: Mailbox[Body] | None = None
        self._many: dict[Mailbox[Body], float] | None = None

    def enter(self, box: Mailbox[Body], until: float) -> None:
        """Add a member, or let it stay longer."""
        if self._many is not None:
            self._many[box] = until
        elif self._one is None or self._one is box:
            self._one, self.ends = box, until
        else:
            self._many = {self._one: self.ends, box: until}
            self._one = None

    def strike(self, box: Mailbox[Body]) -> bool:
        """Remove a member; False if it is none."""
        if self._many is None:
            found, self._one = self._one is box, None if self._one is box else self._one
            return found
        found = self._many.pop(box, None) is not None
        if not self._many:
            self._many = None
        return found

    def end_memberships(self, now: float, more: float) -> None:
        """Strike off who is past its end. A consumer that reads stays; its end is then `more` seconds from now."""
        ends: dict[Mailbox[Body], float] = self._many or dict.fromkeys(self.audience, self.ends)
        for box, until in list(ends.items()):
            if until < now:
                if box.waiting or now - box.left_at <= more:
                    self.enter(box, now + more)
                else:
                    self.strike(box)
        if self._many is not None:
            self.ends = min(self._many.values())

    def clear(self) -> None:
        """Strike everybody off."""
        self._one = self._many = None

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
        return self._one is None and self._many is None

    @property
    def audience(self) -> Collection[Mailbox[Body]]:
        return self._many or (() if self._one is None else (self._one,))

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
        return iter([feed for feed in self._feeds if isinstance(feed, GroupFeed) and not feed.idle])

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
        elif feed.idle:
            self._feeds.check_again(feed)
        feed.enter(self._mailboxes.get(channel), monotonic() + self._group_expiry)
        if known is not None and feed.joining is None:
            return
        try:
            await (self._feeds.join(feed) if known is None else self._feeds.joined(feed))
        except EngineUnavailable:
            logger.info("%s: joined while the store is away; it will be followed when the store is back", feed.topic)

    def discard(self, group: str, channel: str) -> None:
        """Leave; unknown groups and members are ignored."""
        feed, box = self._find(group), self._mailboxes.find(channel)
        if feed is not None and box is not None and feed.strike(box):
            self._let_go(feed)

    def forget(self, gone: list[Mailbox[Body]]) -> None:
        """Take swept mailboxes out of every group."""
        for feed in self:
            for box in gone:
                feed.strike(box)
            self._let_go(feed)

    def clear(self) -> None:
        """Empty every group; used by flush."""
        for feed in self:
            feed.clear()
        self._feeds.leave([feed for feed in self._feeds if isinstance(feed, GroupFeed)])

    def _let_go(self, feed: GroupFeed) -> None:
        if feed.idle:
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
            feed.end_memberships(now, self._group_expiry)
            self._let_go(feed)
        audience = feed.audience
        item = (now + self.expiry, Shared(raw, self._codec.loads) if len(audience) > 1 else raw)
        full = 0
        for box in [box for box in audience if box not in served] if served else audience:
            if not box.put(item):
                full += 1
        if full:
            self._report_full(feed, full, now)

    def _report_full(self, feed: GroupFeed, full: int, now: float) -> None:
        DROPPED.inc(full, kind="group")
        if now - self._warned.get(feed.name, -WARN_EVERY) >= WARN_EVERY:
            if len(self._warned) > 1000:
                self._warned.clear()
            self._warned[feed.name] = now
            logger.info("%d of %d channels over capacity in group %s", full, len(feed.audience), feed.name)

    def on_gap(self, feed: GroupFeed, reason: str) -> None:
        event = self._gap_event(feed.name, reason)
        if event is not None:
            item = (monotonic() + self.expiry, event)
            for box in feed.audience:
                box.put(item)
