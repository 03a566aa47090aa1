"""Continuity: a node's view of each topic, in order, without repeats, with gaps filled or reported.

`Feeds` listens to a port and keeps every feed's position: a repeat is dropped, a jump makes it read the
missing part from history first, and a broken path makes it check all positions. Nothing here knows Redis
or sockets.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from typing import Any

from ..engines.base import Port, Positions, Publish, Read
from ..exceptions import EngineUnavailable
from ..messages.positions import START, Entry, Position, Slice, continues, diverged, recover
from .feed import Feed
from .served import Served

logger = logging.getLogger(__name__)

HELD = 1000
CHUNK = 200
RECHECK_AFTER = 0.05
CHECK_EVERY = 30.0
LINGER = 1.0

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class Feeds:
    """All feeds of a node on one port; the port's listener."""

    def __init__(self, spawn: Spawn, on_path: Callable[[bool], None] = lambda up: None) -> None:
        self._spawn = spawn
        self._on_path = on_path
        self._feeds: dict[str, Feed] = {}
        self._unchecked: set[str] = set()
        self._joining: dict[int, list[Feed]] = {}
        self._leaving: list[Feed] = []
        self._served = Served()
        self.port: Port

    def get(self, topic: str) -> Feed | None:
        return self._feeds.get(topic)

    def __len__(self) -> int:
        return len(self._feeds)

    def __iter__(self) -> Iterator[Feed]:
        return iter(self._feeds.values())

    # Joining and leaving

    async def join(self, feed: Feed) -> None:
        """Follow a topic. Returns when the store has confirmed and the position is known.

        Raises EngineUnavailable if the store cannot be reached; the feed is kept all the same and
        settles by itself when the store is back, and so it does after a cancellation: others may want it too.
        """
        self._feeds[feed.topic] = feed
        feed.filling = feed.busy = feed.retained
        feed.joining = [joined := asyncio.get_running_loop().create_future()]
        shard = self.port.shard(feed.topic)
        if shard in self._joining:
            self._joining[shard].append(feed)
        else:
            together = self._joining[shard] = [feed]
            joining = self._spawn(self._join_together(shard), "livechannels-join")
            joining.add_done_callback(lambda _: self._cut_short(shard, together))
        await joined

    async def joined(self, feed: Feed) -> None:
        """Wait until a `join` of this feed begun elsewhere has ended, well or not."""
        if feed.joining is not None:
            feed.joining.append(joined := asyncio.get_running_loop().create_future())
            try:
                await joined
            except EngineUnavailable:
                logger.debug("%s: joined by another while the store is away", feed.topic)

    async def _join_together(self, shard: int) -> None:
        """The joins of one turn: they are subscribed to in one write, and their positions read at the same time."""
        feeds = self._joining.pop(shard)
        problem: EngineUnavailable | None = EngineUnavailable("joining was cut short")
        try:
            confirmed = self.port.subscribe(*[feed.topic for feed in feeds])
            try:
                await self._settle_all([feed for feed in feeds if feed.retained])
            finally:
                await confirmed
            problem = None
        except EngineUnavailable as error:
            problem = error
        finally:
            for feed in feeds:
                self._joined(feed, problem)

    def _cut_short(self, shard: int, together: list[Feed]) -> None:
        if self._joining.get(shard) is together:  # cancelled before its first step
            del self._joining[shard]
            for feed in together:
                self._joined(feed, EngineUnavailable("joining was cut short"))

    def _joined(self, feed: Feed, problem: EngineUnavailable | None) -> None:
        if feed.filling and not feed.busy:
            self._start_fill(feed)
        elif feed.retained:
            self.check_again(feed)
        waiting, feed.joining = feed.joining or (), None
        for joined in waiting:
            if not joined.done():
                joined.set_exception(problem) if problem is not None else joined.set_result(None)

    async def _settle_all(self, feeds: list[Feed]) -> None:
        fresh = [feed for feed in feeds if feed.position is None and not feed.create]
        reads: list[Coroutine[Any, Any, None]] = [
            self._place(fresh[start : start + CHUNK]) for start in range(0, len(fresh), CHUNK)
        ]
        reads += [self._settle(feed) for feed in feeds if feed.position is not None or feed.create]
        if len(reads) == 1:
            await reads[0]
        else:
            for outcome in await asyncio.gather(*reads, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome

    async def _place(self, feeds: list[Feed]) -> None:
        """Let feeds begin where the store is: then the position is all there is to read."""
        try:
            found = await self.port.run(Positions(feeds[0].topic, [feed.topic for feed in feeds]))
        finally:
            for feed in feeds:
                feed.busy = False
        for feed, position in zip(feeds, found, strict=True):
            feed.position = position
            self._replay(feed)

    async def _settle(self, feed: Feed) -> None:
        try:
            await self._catch_up(feed)
        finally:
            feed.busy = False

    def leave_soon(self, feed: Feed) -> None:
        """Unsubscribe a moment from now, unless somebody joins again meanwhile."""
        if not self._leaving:
            asyncio.get_running_loop().call_later(LINGER, self._leave)
        self._leaving.append(feed)

    def _leave(self) -> None:
        leaving, self._leaving = self._leaving, []
        self.leave([feed for feed in leaving if feed.idle])

    def leave(self, feeds: list[Feed]) -> None:
        """Follow these no more; whoever joins again begins anew."""
        gone = {feed.topic: feed for feed in feeds if self._feeds.get(feed.topic) is feed}
        for feed in gone.values():
            del self._feeds[feed.topic]
            feed.left()
        if gone:
            self.port.unsubscribe(*gone)

    def check_again(self, feed: Feed) -> None:
        """Look once more in a moment, unless nobody wants this feed by then."""
        # The position may have been read before the subscription took effect: one more look closes that window.
        # It also makes a record that a publisher began live as long as it is followed.
        self._unchecked.add(feed.topic)
        if len(self._unchecked) == 1:
            asyncio.get_running_loop().call_later(RECHECK_AFTER, self._start_recheck)

    def _start_recheck(self) -> None:
        topics, self._unchecked = self._unchecked, set()
        self._spawn(self._compare(topics, renew=True), "livechannels-recheck")

    # Messages

    def on_message(self, topic: str, position: Position | None, time: int, body: bytes, id: bytes = b"") -> None:
        feed = self._feeds.get(topic)
        if feed is None:
            return
        if position is None:
            self._deliver(feed, Entry(0, time, body, id), "")
        elif feed.filling:
            self._hold(feed, position, Entry(position.offset, time, body, id))
        else:
            self._accept(feed, position, Entry(position.offset, time, body, id))

    @staticmethod
    def _hold(feed: Feed, position: Position, entry: Entry) -> None:
        if feed.held is None:
            feed.held = deque(maxlen=HELD)
        feed.held.append((position, entry))

    def _accept(self, feed: Feed, position: Position, entry: Entry) -> None:
        """Deliver a message if it is the next, drop it if it is old, else hold it and read what is missing."""
        known = feed.position or START
        if position.epoch == known.epoch or (not known.epoch and position.offset == 1):
            if position.offset == known.offset + 1:
                if not known.epoch:
                    self.check_again(feed)
                feed.position = position
                self._deliver(feed, entry, position.epoch)
                return
            if position.offset <= known.offset:
                return
        self._hold(feed, position, entry)
        self._start_fill(feed)

    def _replay(self, feed: Feed) -> None:
        """Go on with what was held. One of another epoch is either stale or newer than the read: look once more."""
        held, feed.held, feed.filling = feed.held or (), None, False
        stray = False
        for position, entry in held:
            epoch = (feed.position or START).epoch
            if feed.filling:
                self._hold(feed, position, entry)
            elif epoch and position.epoch != epoch:
                stray = True
            else:
                self._accept(feed, position, entry)
        if stray and not feed.filling:
            self._start_fill(feed)

    # Filling gaps

    def _start_fill(self, feed: Feed) -> None:
        feed.filling = True
        self._spawn(self._fill(feed), "livechannels-fill")

    async def _fill(self, feed: Feed) -> None:
        """Read until this feed has caught up; waits out an absent store. One at a time per feed."""
        if feed.busy:
            return
        feed.busy = feed.filling = mine = True
        pause = 0.1
        try:
            while self._feeds.get(feed.topic) is feed:
                try:
                    await self._catch_up(feed)
                    return
                except EngineUnavailable:
                    feed.busy = mine = False  # a path that comes back meanwhile need not wait
                    await asyncio.sleep(pause)
                    if feed.busy or not feed.filling:
                        return
                    feed.busy = mine = True
                    pause = min(pause * 2, 2.0)
        finally:
            if mine:
                feed.busy = False

    async def _catch_up(self, feed: Feed) -> None:
        if feed.position is None:
            found = await self.port.run(Read(feed.topic, limit=0, create=feed.create, renew=feed.renew))
            since = feed.position
            if since is None:
                feed.position = found.position
        else:
            since = feed.position
        if since is not None:
            found = await self.port.run(
                Read(feed.topic, since, max_age=feed.max_age, create=feed.create, renew=feed.renew, witness=True)
            )
            await self._apply(feed, since, found)
        feed.busy = False
        self._replay(feed)

    async def _apply(self, feed: Feed, since: Position, found: Slice) -> None:
        outcome = recover(since, found)
        top = found.position
        if outcome.recovered:
            feed.position = top
            if not since.epoch or top.epoch == since.epoch or feed.rebased():
                for entry in outcome.entries:
                    self._deliver(feed, entry, top.epoch)
            return
        logger.warning(
            "%s: messages were lost (%s); was at %s:%s, is at %s:%s", feed.topic, outcome.reason, *since, *top
        )
        kept: list[Entry] = []
        if top.epoch and continues(since, top, found.epochs):
            kept = found.entries
        elif top.epoch:
            after = diverged(since, found.epochs)
            newer = await self.port.run(Read(feed.topic, Position(top.epoch, after), max_age=feed.max_age))
            top, kept = newer.position, newer.entries
        feed.position = top
        if feed.gap(outcome.reason):
            for entry in kept:
                self._deliver(feed, entry, top.epoch)

    def deliver_unplaced(self, command: Publish) -> None:
        """Serve this node's members with what the store has not confirmed, unless it has come from there already.

        Those served here are passed over should it come from the store after all.
        """
        feed = self._feeds.get(command.topic)
        if feed is not None and self._served.serve(command.id.encode(), feed.audience):
            self._hand_over(feed, Entry(0, 0, command.body), "", ())

    def _deliver(self, feed: Feed, entry: Entry, epoch: str) -> None:
        self._hand_over(feed, entry, epoch, self._served.delivered(entry.id))

    @staticmethod
    def _hand_over(feed: Feed, entry: Entry, epoch: str, served: Collection[Any]) -> None:
        # One message nobody can use shall not end what carries all the others.
        try:
            feed.deliver(entry, epoch, served)
        except Exception:
            logger.exception("%s: a message could not be delivered", feed.topic)

    # The path

    def on_interrupted(self) -> None:
        self._on_path(False)

    def on_resumed(self, topics: list[str]) -> None:
        self._on_path(True)
        self._spawn(self._check(topics), "livechannels-resume")

    async def _check(self, topics: Iterable[str]) -> None:
        """Compare positions with the store and fill what is missing, a bounded number at a time."""
        feeds = [feed for topic in topics if (feed := self._feeds.get(topic)) is not None and feed.retained]
        for start in range(0, len(feeds), CHUNK):
            await asyncio.gather(*(self._fill(feed) for feed in feeds[start : start + CHUNK]))

    async def _compare(self, topics: Iterable[str], renew: bool = False) -> None:
        """Compare positions cheaply, in few commands, and fill the feeds that are behind."""
        batches: dict[tuple[int, float], list[str]] = {}
        for topic in topics:
            feed = self._feeds.get(topic)
            if feed is not None and feed.retained and not feed.idle:
                batches.setdefault((self.port.shard(topic), feed.renew if renew else 0), []).append(topic)
        for (_, keep), names in batches.items():
            for start in range(0, len(names), CHUNK):
                chunk = names[start : start + CHUNK]
                try:
                    found = await self.port.run(Positions(chunk[0], chunk, keep))
                except EngineUnavailable:
                    break  # this shard is away; the others are not
                for topic, position in zip(chunk, found, strict=True):
                    feed = self._feeds.get(topic)
                    known = feed.position or START if feed is not None else position
                    behind = position.epoch != known.epoch or position.offset > known.offset
                    if feed is not None and behind and not feed.filling:
                        self._start_fill(feed)

    async def keep_checking(self, every: float = CHECK_EVERY) -> None:
        """Compare all positions now and then, and keep their records in the store alive. Runs until cancelled."""
        while True:
            await asyncio.sleep(every)
            await self._compare(list(self._feeds), renew=True)
