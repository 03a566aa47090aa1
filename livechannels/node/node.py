"""A node: everything livechannels holds for one process and one event loop.

It owns the port, the feeds, the mailboxes, groups and live channels of its loop, and every background
task. Made by the layer when a loop first receives; `close` ends it, and so does the end of the loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from typing import Any, TypeVar
from weakref import ReferenceType, ref

import msgspec

from .. import metrics
from ..engines.base import Command, Engine, Health, Port, RosterDrop, RosterSet, Trim
from ..engines.memory import MemoryEngine
from ..engines.options import Options
from ..exceptions import EngineUnavailable
from ..messages import topics
from ..messages.policy import Policy
from ..messages.positions import START, Entry
from ..serializers import Codec
from .feed import Feed
from .feeds import Feeds
from .groups import Groups
from .hub import Hub
from .inbox import RENEWED_FOR, InboxFeed, Letter
from .mailboxes import Body, Mailbox, Mailboxes
from .plain_consumers import ConsumerSubscription, event_maker
from .queues import QueueReader

logger = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[dict[str, Any]], None]

HEARTBEAT = 3.0
NODE_TTL = 10.0
SWEEP_EVERY = 10.0
LONG_READ = 600.0
CLOSE_WITHIN = 2.0
NAME_BYTES = 16

GAPS = metrics.counter("livechannels_gaps_total", "Gaps in what a node received that could not be filled.")


def _random_names() -> Iterator[str]:
    """Names nobody else has or guesses; many for each question to the system."""
    while True:
        several = secrets.token_hex(NAME_BYTES * 256)
        for start in range(0, len(several), NAME_BYTES * 2):
            yield several[start : start + NAME_BYTES * 2]


class ControlFeed(Feed):
    """Messages to every node of the cluster, at most once."""

    __slots__ = ("handle",)

    def __init__(self, handle: Callable[[bytes], None]) -> None:
        super().__init__(topics.CONTROL)
        self.handle = handle

    @property
    def retained(self) -> bool:
        return False

    @property
    def idle(self) -> bool:
        return False

    def deliver(self, entry: Entry, epoch: str, served: Collection[Any] = ()) -> None:
        self.handle(entry.body)


class Node:
    """One process and event loop in the cluster. All methods are called on that loop.

    `capacity` gives the most messages a channel holds; `check_name` raises TypeError for what is no channel's name.
    """

    def __init__(
        self,
        engine: Engine,
        codec: Codec,
        options: Options,
        *,
        policies: Callable[[str], Policy],
        capacity: Callable[[str], int],
        check_name: Callable[[str], Any],
    ) -> None:
        self._codec = codec
        self._options = options
        self._check_name = check_name
        self.loop = asyncio.get_running_loop()
        self.token = secrets.token_hex(6)
        self.names = _random_names()
        self.id = f"{socket.gethostname().split('.')[0][:40]}-{os.getpid()}-{self.token}"
        self.stopping = False
        self._interrupted = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._control: dict[str, list[Handler]] = {"flush": [self._on_flush]}
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._inboxes: dict[str, InboxFeed] = {}
        self._readers: dict[str, QueueReader] = {}
        self._consumers: dict[str, ReferenceType[asyncio.Task[Any]]] = {}
        self._subscriptions: dict[tuple[str, str], ConsumerSubscription] = {}
        self.mailboxes = Mailboxes(capacity)
        self.feeds = Feeds(self.spawn, self._on_path)
        self.feeds.port = engine.port(self.feeds, self.id)
        self.private = Feeds(self.spawn)
        self.private.port = MemoryEngine().port(self.private, self.id)
        self.hub = Hub(self.feeds, self.private, policies, codec.unseal)
        self._event = event_maker(codec)
        self.groups = Groups(
            self.feeds, self.mailboxes, expiry=options.expiry, group_expiry=options.group_expiry,
            meta_ttl=RENEWED_FOR, keeps=options.keeps_group, codec=codec, gap_event=self._gap_event,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Node {self.id}>"

    @property
    def port(self) -> Port:
        return self.feeds.port

    @property
    def health(self) -> Health:
        return self.feeds.port.health

    def start(self) -> None:
        """Begin: follow the control topic, register with the cluster. Waits for nothing."""
        self.spawn(self._follow(ControlFeed(self._on_control)), "livechannels-control")
        self.spawn(self._beat(), "livechannels-heartbeat")
        self.spawn(self._sweep(), "livechannels-sweep")
        self.spawn(self.feeds.keep_checking(), "livechannels-positions")

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run a coroutine as a task of this node: named, kept, cancelled at close, its failure logged."""
        task = self.loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("Task %s failed", task.get_name(), exc_info=error)

    async def run(self, command: Command[T]) -> T:
        """Run an engine command on this node's port."""
        return await self.port.run(command)

    def run_private(self, command: Command[T]) -> Awaitable[T]:
        """Run a command on the store of streams with scope="node"."""
        return self.private.port.run(command)

    async def _follow(self, feed: Feed) -> None:
        try:
            await self.feeds.join(feed)
        except EngineUnavailable:
            logger.info("%s: will be followed when the store is back", feed.topic)

    # Channels

    def mailbox(self, channel: str) -> Mailbox[Body]:
        return self.mailboxes.get(channel)

    def new_channel(self, part: str) -> str:
        """A name for the consumer that the calling task runs. TypeError if `part` is not fit for one."""
        channel = f"{part}!{next(self.names)}"
        if part not in self._inboxes:
            self._check_name(channel)
            self.open_inbox(part)
        consumer = asyncio.current_task(self.loop)
        if consumer is not None:
            self._consumers[channel] = ref(consumer)
        return channel

    def made(self, channel: str) -> bool:
        """Whether `new_channel` named it here, not long ago."""
        return channel in self._consumers

    def open_inbox(self, part: str) -> None:
        """Receive what is sent to channels that begin with `part!`. Nothing sent before is missed."""
        if part not in self._inboxes:
            feed = self._inboxes[part] = InboxFeed(
                part,
                self.mailboxes,
                expiry=self._options.expiry,
                unseal=self._codec.unseal,
                on_request=self._on_request,
                on_gap=self._on_inbox_gap,
            )
            self.spawn(self._follow(feed), "livechannels-inbox")

    def owns(self, part: str) -> bool:
        return part in self._inboxes

    def reader(self, channel: str) -> QueueReader:
        """The reader of a plain channel on this node."""
        reader = self._readers.get(channel)
        if reader is None:
            reader = self._readers[channel] = QueueReader(channel, self.feeds, self.spawn, self._options.expiry)
        return reader

    async def subscribe(self, channel: str, channel_name: str, since: Any) -> None:
        key = (channel, channel_name)
        if key in self._subscriptions:
            return
        subscription = self._subscriptions[key] = ConsumerSubscription(
            self.hub,
            channel,
            self.mailboxes.get(channel_name),
            spawn=self.spawn,
            event=self._event,
            expiry=self._options.expiry,
            gap_event=self._gap_event,
        )
        try:
            await subscription.start(since)
        except BaseException:
            self.unsubscribe(channel, channel_name)
            raise

    def unsubscribe(self, channel: str, channel_name: str) -> None:
        subscription = self._subscriptions.pop((channel, channel_name), None)
        if subscription is not None:
            subscription.end()

    def _on_request(self, letter: Letter) -> None:
        self.spawn(self._answer(letter), "livechannels-request")

    async def _answer(self, letter: Letter) -> None:
        if letter.kind == "j":
            await self.groups.add(letter.group, letter.channel)
        elif letter.kind == "l":
            self.groups.discard(letter.group, letter.channel)
        else:
            logger.warning("An inbox message of the unknown kind %r was skipped", letter.kind)
            return
        if letter.ack:
            await self.run(RosterSet("a/" + letter.ack, self.id, b"", 5))

    # Gaps and the path

    def _gap_event(self, name: str, reason: str) -> bytes | None:
        GAPS.inc()
        kind = self._options.on_gap
        return self._codec.dumps({"type": kind, "name": name, "reason": reason}) if kind else None

    def _on_inbox_gap(self, reason: str) -> None:
        self._tell_everyone(self._options.on_gap, name="", reason=reason)

    def _on_path(self, up: bool) -> None:
        options = self._options
        if not up:
            self._interrupted = True
            self._tell_everyone(options.on_disconnect)
        elif self._interrupted:
            self._interrupted = False
            self._tell_everyone(options.on_reconnect)

    def _tell_everyone(self, kind: str | None, **more: str) -> None:
        if kind:
            item = (time.monotonic() + self._options.expiry, self._codec.dumps({"type": kind, **more}))
            for box in self.mailboxes:
                box.put(item)

    # Control messages

    def on_control(self, kind: str, handler: Handler) -> None:
        """Call `handler` with the payload of every `broadcast` of this kind."""
        self._control.setdefault(kind, []).append(handler)

    def _on_control(self, sealed: bytes) -> None:
        try:
            kind, payload = msgspec.json.decode(self._codec.unseal(sealed), type=tuple[str, dict[str, Any]])
        except (ValueError, msgspec.DecodeError) as error:
            logger.warning("A control message was skipped: %s", error)
            return
        for handler in self._control.get(kind, ()):
            try:
                handler(payload)
            except Exception:
                logger.exception("The handler of control message %s failed", kind)

    def _on_flush(self, payload: dict[str, Any]) -> None:
        self.empty()
        if payload.get("ack"):
            self.spawn(self._run_quietly(RosterSet("a/" + payload["ack"], self.id, b"", 5)), "livechannels-flushed")

    def empty(self) -> None:
        """Forget all groups and unread messages."""
        self.mailboxes.clear()
        self.groups.clear()
        for reader in self._readers.values():
            reader.box.clear()
        for inbox in self._inboxes.values():
            inbox.position = START
            inbox.trimmed = START

    async def _run_quietly(self, command: Command[Any]) -> None:
        try:
            await self.run(command)
        except EngineUnavailable as error:
            logger.debug("Could not %s: %s", type(command).__name__, error)

    # Background

    async def _beat(self) -> None:
        value = msgspec.json.encode({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()})
        while True:
            await self._run_quietly(RosterSet(topics.NODES, self.id, value, NODE_TTL))
            await self._trim_inboxes()
            await asyncio.sleep(HEARTBEAT)

    async def _trim_inboxes(self) -> None:
        for feed in list(self._inboxes.values()):
            epoch, offset = position = feed.position or START
            if offset and position != feed.trimmed:
                feed.trimmed = position
                await self._run_quietly(Trim(feed.topic, offset, epoch))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            self.sweep()

    def sweep(self) -> None:
        """Let go of consumers that ended without goodbye."""
        grace = max(self._options.expiry, SWEEP_EVERY)
        self._consumers = {channel: self._consumers[channel] for channel in self._consumers if self._at_work(channel)}
        gone = self.mailboxes.sweep(time.monotonic(), grace, LONG_READ, self._at_work)
        if gone:
            logger.debug("%d channels whose consumers are gone were swept", len(gone))
            self.groups.forget(gone)
            names = {box.name for box in gone}
            for channel, name in [key for key in self._subscriptions if key[1] in names]:
                self.unsubscribe(channel, name)
        for channel in [channel for channel, reader in self._readers.items() if reader.idle]:
            del self._readers[channel]

    def _at_work(self, channel: str) -> bool:
        consumer = self._consumers[channel]() if channel in self._consumers else None
        return consumer is not None and not consumer.done()

    # The end

    def on_close(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Await `callback` when this node closes, before its connections do."""
        self._closers.append(callback)

    async def close(self) -> None:
        """Leave the cluster: closers first, then goodbye, then tasks and connections. Bounded."""
        if self.stopping:
            return
        self.stopping = True
        for closer in self._closers:
            try:
                async with asyncio.timeout(CLOSE_WITHIN):
                    await closer()
            except Exception:
                logger.exception("A close callback failed")
        await asyncio.gather(*(reader.close() for reader in self._readers.values()))
        try:
            async with asyncio.timeout(CLOSE_WITHIN):
                await self.run(RosterDrop(topics.NODES, self.id))
        except (EngineUnavailable, TimeoutError):
            logger.debug("Closed without goodbye: the store is away")
        current = asyncio.current_task()
        while tasks := [task for task in self._tasks if task is not current]:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self.port.close()
