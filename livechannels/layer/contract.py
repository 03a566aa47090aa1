"""The channel layer: the only door to the engine, and the whole of what projects call.

Settings: CHANNEL_LAYERS = {"default": {"BACKEND": "livechannels.layer.LiveChannelLayer", "CONFIG": {…}}}

`access` holds the engine and the nodes, `live` the methods for live channels; here is the Channels contract.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any

from channels.exceptions import ChannelFull, MessageTooLarge
from channels.layers import BaseChannelLayer

from ..engines.base import Command, Flush, PlainAdd, PlainDrop, Publish, QueuePush, Retention, RosterGet
from ..exceptions import ConfigurationError, EngineUnavailable
from ..messages import topics
from ..node.groups import DROPPED, UNREADABLE
from ..node.inbox import BYTES, SIZE, Letter
from ..node.isolation import Shared
from ..node.node import Node
from .live import History, LiveMethods
from .process import ACK_WITHIN, running_loop

logger = logging.getLogger(__name__)

ACK_POLL = 0.02
RECORD_OUTLIVES = 5.0
"""Seconds that a position record nobody follows outlives its messages; nodes with members keep theirs alive."""


class LiveChannelLayer(LiveMethods, BaseChannelLayer):
    """A drop-in for channels_redis that keeps positions, history and one leader per stream in its engine.

    Takes every channels_redis option and `ha_engine`, `ha_engine_address`, `ha_engine_password`, `ha_prefix`,
    `on_gap`, `no_history`. Making one does no I/O; a wrong option raises ConfigurationError. One instance
    serves all threads and event loops of a process, also after a fork.
    """

    extensions = ["groups", "flush"]
    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge

    def __init__(self, **config: Any) -> None:
        LiveMethods.__init__(self, config)
        BaseChannelLayer.__init__(
            self,
            expiry=self.options.expiry,  # type: ignore[arg-type]  # fractions of a second are honoured
            capacity=self.options.capacity,
            channel_capacity=dict(self.options.channel_capacity),
        )
        self.channel_capacity: Any = self.compile_capacities(self.channel_capacity)
        self.group_expiry = self.options.group_expiry
        self.prefix = self.options.prefix
        self.hosts = self.options.hosts
        self.client_prefix = secrets.token_hex(6)
        outlive = self.options.expiry + RECORD_OUTLIVES
        self._group_retention = Retention(self.options.capacity, self.options.expiry, outlive)
        self._inbox_retention = Retention(SIZE, self.options.expiry, outlive)

    def __repr__(self) -> str:
        return f"<LiveChannelLayer {self.options.engine} prefix={self.prefix!r}>"

    def _make_node(self) -> Node:
        return Node(
            self.engine,
            self.codec,
            self.options,
            policies=self.policies,
            capacity=self.get_capacity,
            check_name=self.require_valid_channel_name,
        )

    def _encode(self, message: Mapping[str, Any]) -> bytes:
        if not isinstance(message, dict):
            raise TypeError(f"A message is a dict, not {type(message).__name__}.")
        if "__asgi_channel__" in message:
            raise TypeError('A message may not have the key "__asgi_channel__".')
        body = self.codec.dumps(message)
        if len(body) > self.options.message_limit:
            raise MessageTooLarge(f"A message of {len(body)} bytes is over the limit of {self.options.message_limit}.")
        return body

    async def new_channel(self, prefix: str = "specific") -> str:
        """A name for one consumer on this loop; what is sent to it is kept from now on."""
        node = self.node()
        return node.new_channel(f"{prefix}.{node.token}")

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send to one channel. Raises ChannelFull, MessageTooLarge, or EngineUnavailable."""
        self.require_valid_channel_name(channel)
        body = self._encode(message)
        if self._send_here(channel, body):
            return
        command = self._send_command(channel, body)
        if isinstance(command, QueuePush):
            self._mind_full(channel, await self.run(command))
        else:
            await self.run(command)

    def send_sync(self, channel: str, message: dict[str, Any]) -> None:
        """`send` for plain synchronous code: no event loop, one kept connection per process."""
        self.require_valid_channel_name(channel)
        body = self._encode(message)
        if self._send_here(channel, body):
            return
        command = self._send_command(channel, body)
        if isinstance(command, QueuePush):
            self._mind_full(channel, self.run_sync(command))
        else:
            self.run_sync(command)

    @staticmethod
    def _mind_full(channel: str, taken: bool) -> None:
        if not taken:
            DROPPED.inc(kind="channel")
            raise ChannelFull(f"{channel} is full")

    def _send_here(self, channel: str, body: bytes) -> bool:
        """Hand a message to a channel of this process; False if it lives elsewhere. Raises ChannelFull."""
        node = self._owner(channel)
        if node is None:
            return False
        item = (time.monotonic() + self.expiry, body)
        if node.loop is running_loop():
            self._mind_full(channel, node.mailbox(channel).put(item))
        else:
            box = node.mailbox(channel)
            self._mind_full(channel, len(box) < box.capacity)
            node.loop.call_soon_threadsafe(box.put, item)
        return True

    def _send_command(self, channel: str, body: bytes) -> Command[Any]:
        part, bang, _ = channel.partition("!")
        if bang:
            return self._letter(part, Letter("m", channel, body))
        return QueuePush(topics.queue(channel), self.codec.seal(body), self.get_capacity(channel), self.expiry)

    def _letter(self, part: str, letter: Letter) -> Publish:
        sealed = self.codec.seal(letter.encode())
        return Publish(topics.inbox(part), sealed, self._inbox_retention, byte_limit=BYTES)

    async def receive(self, channel: str) -> dict[str, Any]:
        """The next message. Never raises because the engine is away; may be cancelled without loss."""
        node = self.node()
        box = node.mailboxes.find(channel)
        if box is None:
            self.require_valid_channel_name(channel)
            part, bang, _ = channel.partition("!")
            if bang:
                if not node.owns(part):
                    node.open_inbox(part)
                box = node.mailbox(channel)
        if box is not None:
            while True:
                body = await box.get()
                try:
                    message: dict[str, Any] = body.message() if isinstance(body, Shared) else self.codec.loads(body)
                    return message
                except Exception as error:
                    self._skip(channel, error)
        while True:
            sealed = await node.reader(channel).get()
            try:
                return self.codec.loads(self.codec.unseal(sealed))  # type: ignore[no-any-return]
            except Exception as error:
                self._skip(channel, error)

    @staticmethod
    def _skip(channel: str, error: Exception) -> None:
        UNREADABLE.inc()
        logger.warning("%s: a message could not be decoded and was skipped: %s", channel, error)

    async def group_add(self, group: str, channel: str) -> None:
        """Add any channel to a group; returns when the engine has confirmed, or at once while it is away."""
        node = self._at_home(group, channel)
        await (node.groups.add(group, channel) if node is not None else self._membership("j", group, channel))

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel; unknown groups and members are ignored."""
        node = self._at_home(group, channel)
        if node is not None:
            node.groups.discard(group, channel)
        else:
            await self._membership("l", group, channel)

    def _at_home(self, group: str, channel: str) -> Node | None:
        """This loop's node if the channel is one of its own. Names are checked, but for those known already."""
        node = self._node_here()
        if node is None or group not in node.groups:
            self.require_valid_group_name(group)
        if node is not None and node.made(channel):
            return node
        self.require_valid_channel_name(channel)
        return node if node is not None and node.owns(channel.partition("!")[0]) else None

    async def _membership(self, kind: str, group: str, channel: str) -> None:
        part, bang, _ = channel.partition("!")
        if not bang:
            topic = topics.group(group)
            await self.run(PlainAdd(topic, channel, self.group_expiry) if kind == "j" else PlainDrop(topic, channel))
            return
        owner = self._owner(channel)
        if owner is None and not self._made_by_a_node(part):
            owner = self.node()
        if owner is None:
            await self._ask_remote(part, kind, group, channel)
        elif owner.loop is asyncio.get_running_loop():
            await self._apply(owner, kind, group, channel)
        else:
            change = asyncio.run_coroutine_threadsafe(self._apply(owner, kind, group, channel), owner.loop)
            async with asyncio.timeout(ACK_WITHIN * 3):
                await asyncio.wrap_future(change)

    @staticmethod
    def _made_by_a_node(part: str) -> bool:
        token = part.rpartition(".")[2]
        return len(token) == 12 and all(char in "0123456789abcdef" for char in token)

    @staticmethod
    async def _apply(node: Node, kind: str, group: str, channel: str) -> None:
        if kind == "j":
            await node.groups.add(group, channel)
        else:
            node.groups.discard(group, channel)

    async def _ask_remote(self, part: str, kind: str, group: str, channel: str) -> None:
        ack = secrets.token_hex(8)
        await self.run(self._letter(part, Letter(kind, channel, b"", group, ack)))
        await self._acknowledged(ack, 1)

    async def _roster(self, topic: str) -> dict[str, bytes]:
        found: dict[str, bytes] = await self.run(RosterGet(topic))
        return found

    async def _acknowledged(self, ack: str, wanted: int) -> bool:
        """Wait until so many nodes have acknowledged, at most a second."""
        until = time.monotonic() + ACK_WITHIN
        while len(await self._roster("a/" + ack)) < wanted:
            if time.monotonic() > until:
                return False
            await asyncio.sleep(ACK_POLL)
        return True

    def _group_command(self, group: str, body: bytes) -> Publish:
        retention = self._group_retention if self.options.keeps_group(group) else None
        return Publish(topics.group(group), self.codec.seal(body), retention)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Send to every member of a group, on every node, in one order.

        Never raises ChannelFull: a full member keeps its oldest messages. Raises MessageTooLarge, and
        EngineUnavailable when only the local members could be served.
        """
        self.require_valid_group_name(group)
        body = self._encode(message)
        command = self._group_command(group, body)
        try:
            published = await self.run(command)
        except EngineUnavailable as error:
            self._deliver_here(error, command)
            raise
        for channel in published.plain:
            await self.run(self._send_command(channel, body))

    def group_send_sync(self, group: str, message: dict[str, Any]) -> None:
        """`group_send` for plain synchronous code: no event loop, one kept connection per process."""
        self.require_valid_group_name(group)
        body = self._encode(message)
        command = self._group_command(group, body)
        try:
            published = self.run_sync(command)
        except EngineUnavailable as error:
            self._deliver_here(error, command)
            raise
        for channel in published.plain:
            self.run_sync(self._send_command(channel, body))

    async def flush(self) -> None:
        """Empty groups, inboxes and plain channels of this prefix on every live node. Live channels stay."""
        await self.run(Flush())
        here = self._node_here()
        for node in self.nodes():
            node.empty() if node is here else node.loop.call_soon_threadsafe(node.empty)
        others = set(await self._roster(topics.NODES)) - {node.id for node in self.nodes()}
        if others:
            ack = secrets.token_hex(8)
            await self.broadcast("flush", {"ack": ack})
            await self._acknowledged(ack, len(others))

    async def close(self) -> None:
        """Close what this loop has: leaderships are given up, connections closed. The layer stays usable."""
        node = self._node_here()
        if node is not None:
            await node.close()
            self._nodes.pop(node.loop, None)
        await self.engine.close_loop()
        if not self.nodes():
            self.engine.close()

    close_pools = close

    def leader_lock(self, name: str, **options: Any) -> Any:
        """A lease on `name` for your own code: `async with` or `with`. See `leadership.lock.LeaderLock`."""
        from ..leadership.lock import LeaderLock

        return LeaderLock(self, name, **options)


def live_layer(alias: str | None = None) -> LiveChannelLayer:
    """The layer behind an alias of CHANNEL_LAYERS, by default LIVECHANNELS["LAYER"].

    Raises ConfigurationError if it is missing or not ours.
    """
    from channels.layers import get_channel_layer

    from ..conf import settings

    alias = alias or settings.LAYER
    layer = get_channel_layer(alias)
    if not isinstance(layer, LiveChannelLayer):
        raise ConfigurationError(
            f'CHANNEL_LAYERS["{alias}"] is not a LiveChannelLayer: set its BACKEND to '
            '"livechannels.layer.LiveChannelLayer", or LIVECHANNELS["LAYER"] to the right alias.',
            check_id="livechannels.E009",
        )
    return layer


__all__ = ["History", "LiveChannelLayer", "live_layer"]
