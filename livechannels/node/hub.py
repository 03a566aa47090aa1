"""A node's local fan-out of live channels: one feed per channel, any number of subscribers.

A subscriber never sees a message twice, out of order, or with one missing before it: either the next
publication, or `on_insufficient`. Each publication is one shared object that is encoded once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

from ..engines.base import Read
from ..messages.policy import Policy
from ..messages.positions import START, Entry, Position, Recovery, recover
from ..messages.publications import Publication, readable
from ..messages.topics import live
from .feed import Feed
from .feeds import Feeds

logger = logging.getLogger(__name__)

META_TTL = 30 * 86400.0
BUFFERED = 4096

JOIN, LEAVE = b"+", b"-"


class Subscriber(Protocol):
    """Who listens. Calls come on the node's loop, in order, and must not block."""

    def on_publication(self, publication: Publication) -> None: ...

    def on_join(self, channel: str, info: bytes) -> None:
        """`info` is a ClientInfo as JSON."""

    def on_leave(self, channel: str, info: bytes) -> None: ...

    def on_insufficient(self, channel: str, reason: str) -> None:
        """Continuity ended ("restart", "trimmed" or "overflow"); the hub has already let go of this subscriber."""


class DemandObserver(Protocol):
    """Who wants to know whether a live channel is watched on this node."""

    def on_first_viewer(self, channel: str) -> None: ...

    def on_last_viewer(self, channel: str) -> None: ...


class Subscribed(NamedTuple):
    """What a new subscriber is told. `position` is None on a channel without history.

    `publications` are oldest first: what was missed if `recovered`, else the newest ones asked for.
    """

    position: Position | None
    publications: list[Publication]
    recovered: bool
    was_recovering: bool
    policy: Policy


class _Member:
    """One subscriber's state: publications are buffered until `activate`; those up to `skip` it already has."""

    __slots__ = ("buffer", "epoch", "skip")

    def __init__(self) -> None:
        self.buffer: list[Publication | tuple[bytes, bytes]] | None = []
        self.skip = 0
        self.epoch = ""


class LiveFeed(Feed):
    """A live channel as this node follows it."""

    __slots__ = ("channel", "members", "on_empty", "on_left", "policy", "reads", "unseal")

    def __init__(
        self,
        channel: str,
        policy: Policy,
        on_empty: Callable[[str], None],
        on_left: Callable[[LiveFeed], None],
        unseal: Callable[[bytes], bytes],
    ) -> None:
        super().__init__(live(channel))
        self.channel = channel
        self.unseal = unseal
        self.policy = policy
        self.on_empty = on_empty
        self.on_left = on_left
        self.members: dict[Subscriber, _Member] = {}
        self.reads: dict[Position, asyncio.Future[Recovery]] = {}

    @property
    def retained(self) -> bool:
        return self.policy.keeps_history

    @property
    def max_age(self) -> float:
        return self.policy.history_ttl

    @property
    def renew(self) -> float:
        return META_TTL

    @property
    def create(self) -> bool:
        return True

    @property
    def idle(self) -> bool:
        return not self.members

    @property
    def audience(self) -> Collection[Subscriber]:
        return [subscriber for subscriber, member in self.members.items() if member.buffer is None]

    def deliver(self, entry: Entry, epoch: str, served: Collection[Subscriber] = ()) -> None:
        try:
            body = self.unseal(entry.body)
        except ValueError as error:
            logger.warning("%s: a message was skipped: %s", self.topic, error)
            return
        kind = body[:1]
        if kind == b"{":
            self._publication(Publication(self.channel, body, entry.offset, epoch, entry.time), served)
        elif kind in (JOIN, LEAVE):
            self._presence(kind, body[1:])
        else:
            logger.warning("%s: a message of an unknown kind was skipped", self.topic)

    def _publication(self, publication: Publication, served: Collection[Subscriber]) -> None:
        for subscriber, member in list(self.members.items()):
            if served and subscriber in served and member.epoch == publication.epoch:
                continue
            try:
                self._hand(publication, subscriber, member)
            except Exception:
                logger.exception("%s: a subscriber failed at %r", self.topic, publication)

    def _hand(self, publication: Publication, subscriber: Subscriber, member: _Member) -> None:
        if member.buffer is not None:
            if self.retained and not publication.offset:
                return  # not delivered by the store: one that is still joining will find it there, or never
            member.buffer.append(publication)
            if len(member.buffer) > BUFFERED:
                self._dismiss(subscriber, "overflow")
        elif not publication.offset:
            subscriber.on_publication(publication)
        elif member.epoch == publication.epoch:
            if publication.offset > member.skip:
                subscriber.on_publication(publication)
        elif not member.epoch:
            member.epoch = publication.epoch
            subscriber.on_publication(publication)
        else:
            self._dismiss(subscriber, "restart")

    def _presence(self, kind: bytes, info: bytes) -> None:
        for subscriber, member in list(self.members.items()):
            if member.buffer is not None:
                member.buffer.append((kind, info))
            elif kind == JOIN:
                subscriber.on_join(self.channel, info)
            else:
                subscriber.on_leave(self.channel, info)

    def _dismiss(self, subscriber: Subscriber, reason: str) -> None:
        if self.members.pop(subscriber, None) is not None:
            subscriber.on_insufficient(self.channel, reason)
            if not self.members:
                self.on_empty(self.channel)

    def _dismiss_all(self, reason: str) -> None:
        for subscriber in list(self.members):
            self._dismiss(subscriber, reason)

    def left(self) -> None:
        self.on_left(self)

    def gap(self, reason: str) -> bool:
        self._dismiss_all(reason)
        return False

    def rebased(self) -> bool:
        # SDK clients keep the epoch of their subscribe reply, so they have to subscribe anew to learn this one.
        self._dismiss_all("restart")
        return False


class Hub:
    """The live channels of one node.

    `feeds` follows the cluster; `private` the streams with scope="node", which never leave this process.
    """

    def __init__(
        self,
        feeds: Feeds,
        private: Feeds,
        policies: Callable[[str], Policy],
        unseal: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self._cluster = feeds
        self._private = private
        self._policies = policies
        self._unseal = unseal
        self._live: dict[str, LiveFeed] = {}
        self.observers: list[DemandObserver] = []

    def counts(self) -> dict[str, int]:
        """Live channel to its number of subscribers on this node. May be called from any thread."""
        return {channel: len(feed.members) for channel, feed in list(self._live.items()) if feed.members}

    def position(self, channel: str) -> Position:
        """The highest position this node knows of a channel."""
        feed = self._live.get(channel)
        return (feed.position or START) if feed is not None else START

    async def subscribe(
        self, channel: str, subscriber: Subscriber, *, since: Position | None = None, history: int = 0
    ) -> Subscribed:
        """Add a subscriber; nothing is delivered before `activate`.

        With `since` everything after it is recovered, or `recovered` is False. Without, or if nothing could be
        recovered, the `history` newest publications are returned. Raises UnknownChannel, or EngineUnavailable
        (then nothing was added).
        """
        policy = self._policies(channel)
        feeds = self._feeds(policy)
        feed = self._live.get(channel)
        joining = feed is None or feeds.get(feed.topic) is not feed
        if joining or feed is None:
            feed = self._live[channel] = LiveFeed(channel, policy, self._emptied, self._left, self._unseal)
        member = _Member()
        first = not feed.members
        feed.members[subscriber] = member
        if first:
            self._tell(lambda observer: observer.on_first_viewer(channel))
            if not joining:
                feeds.check_again(feed)
        try:
            await (feeds.join(feed) if joining else feeds.joined(feed))
            return await self._welcome(feeds, feed, member, policy, since, history)
        except BaseException:
            self.unsubscribe(channel, subscriber)
            raise

    def _feeds(self, policy: Policy) -> Feeds:
        return self._private if policy.scope == "node" else self._cluster

    async def _welcome(
        self, feeds: Feeds, feed: LiveFeed, member: _Member, policy: Policy, since: Position | None, history: int
    ) -> Subscribed:
        if not policy.keeps_history:
            return Subscribed(None, [], False, since is not None, policy)
        if since is None and not history and feed.position is not None and not feed.filling:
            found = Recovery(False, [], feed.position, "")
        elif since is None or policy.recovery == "cache":
            read = Read(
                feed.topic, limit=max(history, 1) if since is not None else history, reverse=True,
                max_age=feed.max_age, create=True, renew=feed.renew,
            )  # fmt: skip
            newest = await feeds.port.run(read)
            found = Recovery(since is not None, newest.entries[::-1], newest.position, "")
            if since is not None:
                found = self._cached(found, since)
        else:
            found = await self._recover(feeds, feed, since)
            if not found.recovered and history:
                found = await self._newest(feeds, feed, history, found)
        member.skip, member.epoch = found.position.offset, found.position.epoch
        if feed.position is None:
            feed.position = found.position  # its own read failed; from here on the first member misses nothing
        publications = readable(feed.channel, found.entries, found.position.epoch, self._unseal)
        return Subscribed(found.position, publications, found.recovered, since is not None, policy)

    @staticmethod
    async def _newest(feeds: Feeds, feed: LiveFeed, history: int, found: Recovery) -> Recovery:
        read = Read(feed.topic, limit=history, reverse=True, max_age=feed.max_age, create=True, renew=feed.renew)
        newest = await feeds.port.run(read)
        return found._replace(entries=newest.entries[::-1], position=newest.position)

    @staticmethod
    def _cached(found: Recovery, since: Position) -> Recovery:
        if since == found.position:
            return found._replace(entries=[])
        newest = found.entries[-1:]
        at_top = bool(newest) and newest[0].offset == found.position.offset
        return found._replace(entries=newest if at_top else [], recovered=at_top)

    async def _recover(self, feeds: Feeds, feed: LiveFeed, since: Position) -> Recovery:
        """Read what was missed. Many clients coming back to one position at once cost one read."""
        delivered = feed.position or START
        pending = feed.reads.get(since)
        if pending is None:
            pending = asyncio.ensure_future(self._read(feeds, feed, since))
            feed.reads[since] = pending
            pending.add_done_callback(lambda _: feed.reads.pop(since, None))
        found = await asyncio.shield(pending)
        if found.position.epoch == delivered.epoch and found.position.offset < delivered.offset:
            # The shared read was sent before this subscriber came: what was delivered in between is in neither.
            found = await self._read(feeds, feed, since)
        return found

    async def _read(self, feeds: Feeds, feed: LiveFeed, since: Position) -> Recovery:
        found = await feeds.port.run(Read(feed.topic, since, max_age=feed.max_age, create=True, renew=feed.renew))
        return recover(since, found)

    def activate(self, channel: str, subscriber: Subscriber) -> None:
        """Hand over what arrived since `subscribe`, and go live."""
        feed = self._live.get(channel)
        member = feed.members.get(subscriber) if feed is not None else None
        if feed is None or member is None or member.buffer is None:
            return
        buffered, member.buffer = member.buffer, None
        for one in buffered:
            if subscriber not in feed.members:
                return
            if isinstance(one, tuple):
                (subscriber.on_join if one[0] == JOIN else subscriber.on_leave)(channel, one[1])
            elif not one.offset or (one.epoch == member.epoch and one.offset > member.skip):
                subscriber.on_publication(one)
            elif one.epoch != member.epoch and one.epoch == (feed.position or START).epoch:
                feed._dismiss(subscriber, "restart")

    def unsubscribe(self, channel: str, subscriber: Subscriber) -> None:
        """Remove a subscriber; unknown ones are ignored."""
        feed = self._live.get(channel)
        if feed is None or feed.members.pop(subscriber, None) is None:
            return
        if not feed.members:
            self._emptied(channel)

    def _emptied(self, channel: str) -> None:
        self._tell(lambda observer: observer.on_last_viewer(channel))
        self._feeds(self._policies(channel)).leave_soon(self._live[channel])

    def _left(self, feed: LiveFeed) -> None:
        if self._live.get(feed.channel) is feed:
            del self._live[feed.channel]

    def _tell(self, call: Callable[[DemandObserver], None]) -> None:
        for observer in self.observers:
            try:
                call(observer)
            except Exception:
                logger.exception("A demand observer failed")
