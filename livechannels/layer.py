"""The channel layer: the only door to the engine, and the whole of what projects call.

Settings: CHANNEL_LAYERS = {"default": {"BACKEND": "livechannels.layer.LiveChannelLayer", "CONFIG": {…}}}
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
from channels.exceptions import ChannelFull, MessageTooLarge
from channels.layers import BaseChannelLayer

from . import topics
from .codec import Codec
from .engines.base import (
    Command,
    Engine,
    Fence,
    Flush,
    PlainAdd,
    PlainDrop,
    Publish,
    QueuePush,
    Read,
    Retention,
    RosterDrop,
    RosterGet,
    RosterSet,
)
from .exceptions import ConfigurationError, EngineUnavailable, LiveChannelsError, ScopeError, UnknownChannel
from .groups import DROPPED
from .hub import JOIN, LEAVE, META_TTL
from .inboxes import BYTES, META_TTL as INBOX_META_TTL, SIZE, Letter
from .node import Node
from .options import Options, parse
from .policies import Policy
from .positions import START, Position, continues, recover
from .publications import ClientInfo, Publication, encode_body

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")

PRESENCE_TTL = 60.0
ACK_WITHIN = 1.0
ACK_POLL = 0.02


class History(NamedTuple):
    """Publications of a live channel, its position, and whether nothing after `since` is missing."""

    publications: list[Publication]
    position: Position
    recovered: bool


def undeclared(channel: str) -> Policy:
    """The policy of every channel while `livechannels` is not in INSTALLED_APPS."""
    raise UnknownChannel(f'{channel!r}: no live channels are declared; add "livechannels" to INSTALLED_APPS.')


def make_engine(options: Options) -> Engine:
    """The engine that the options name. Makes no connection."""
    if options.engine == "memory":
        from .engines.memory import MemoryEngine

        return MemoryEngine(options.prefix)
    from .engines.redis import RedisEngine

    return RedisEngine(options)


class LiveChannelLayer(BaseChannelLayer):
    """A drop-in for channels_redis that keeps positions, history and one leader per stream in its engine.

    Takes every channels_redis option and `ha_engine`, `ha_engine_address`, `ha_engine_password`, `ha_prefix`,
    `on_gap`, `no_history`. Making one does no I/O; a wrong option raises ConfigurationError. One instance
    serves all threads and event loops of a process, also after a fork.
    """

    extensions = ["groups", "flush"]
    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge
    policies: Callable[[str], Policy] = staticmethod(undeclared)

    def __init__(self, **config: Any) -> None:
        self.options = parse(config)
        super().__init__(
            expiry=self.options.expiry, capacity=self.options.capacity, channel_capacity=self.options.channel_capacity
        )
        self.channel_capacity = self.compile_capacities(self.channel_capacity)
        self.group_expiry = self.options.group_expiry
        self.group_meta_ttl = max(600.0, 2 * self.options.expiry)
        self.prefix = self.options.prefix
        self.hosts = self.options.hosts
        self.client_prefix = secrets.token_hex(6)
        self.codec = Codec(self.options.serializer_format, self.options.symmetric_encryption_keys)
        self._group_retention = Retention(self.options.capacity, self.options.expiry, self.group_meta_ttl)
        self._inbox_retention = Retention(SIZE, self.options.expiry, INBOX_META_TTL)
        self._reset()
        _layers.add(self)

    def __repr__(self) -> str:
        return f"<LiveChannelLayer {self.options.engine} prefix={self.prefix!r}>"

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._nodes: dict[asyncio.AbstractEventLoop, Node] = {}
        self.engine = make_engine(self.options)

    # Nodes and commands

    def node(self) -> Node:
        """The running loop's node, started on first use. Only for loops that receive: servers and workers."""
        loop = asyncio.get_running_loop()
        node = self._nodes.get(loop)
        if node is None:
            with self._lock:
                for other in [other for other in self._nodes if other.is_closed()]:
                    del self._nodes[other]
                node = self._nodes[loop] = Node(self)
            node.start()
        return node

    def nodes(self) -> list[Node]:
        """The nodes of this process, of loops that are still open."""
        with self._lock:
            return [node for loop, node in self._nodes.items() if not loop.is_closed()]

    def _node_here(self) -> Node | None:
        return self._nodes.get(asyncio.get_running_loop())

    async def run(self, command: Command[T]) -> T:
        """Run an engine command from any loop. Raises EngineUnavailable when the engine cannot be reached."""
        node = self._node_here()
        if node is not None:
            return await node.port.run(command)
        return await self.engine.run_detached(command)

    def run_sync(self, command: Command[T]) -> T:
        """Run an engine command from plain synchronous code; blocks the thread at most two seconds."""
        return self.engine.run_sync(command)

    # The Channels contract

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
        part = f"{prefix}.{node.token}"
        node.open_inbox(part)
        return f"{part}!{uuid.uuid4().hex}"

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
        if node.loop is _running_loop():
            self._mind_full(channel, node.mailbox(channel).put(item))
        else:
            box = node.mailbox(channel)
            self._mind_full(channel, len(box) < box.capacity)
            node.loop.call_soon_threadsafe(box.put, item)
        return True

    def _owner(self, channel: str) -> Node | None:
        part, bang, _ = channel.partition("!")
        if not bang:
            return None
        return next((node for node in self.nodes() if node.owns(part)), None)

    def _send_command(self, channel: str, body: bytes) -> Publish | QueuePush:
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
                body = box.take()
                if body is None:
                    body = await box.get()
                try:
                    return self.codec.loads(body)  # type: ignore[no-any-return]
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
        from .groups import UNREADABLE, logger

        UNREADABLE.inc()
        logger.warning("%s: a message could not be decoded and was skipped: %s", channel, error)

    async def group_add(self, group: str, channel: str) -> None:
        """Add any channel to a group; returns when the engine has confirmed, or at once while it is away."""
        await self._membership("j", group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel; unknown groups and members are ignored."""
        await self._membership("l", group, channel)

    async def _membership(self, kind: str, group: str, channel: str) -> None:
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
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
        ack = secrets.token_hex(8) if kind == "j" else ""
        await self.run(self._letter(part, Letter(kind, channel, b"", group, ack)))
        if ack:
            await self._acknowledged(ack, 1)

    async def _acknowledged(self, ack: str, wanted: int) -> bool:
        """Wait until so many nodes have acknowledged, at most a second."""
        until = time.monotonic() + ACK_WITHIN
        while len(await self.run(RosterGet("a/" + ack))) < wanted:
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
            self._deliver_here(error, lambda node: node.groups.deliver_unplaced(group, command.body))
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
            self._deliver_here(error, lambda node: node.groups.deliver_unplaced(group, command.body))
            raise
        for channel in published.plain:
            self.run_sync(self._send_command(channel, body))

    def _deliver_here(self, error: EngineUnavailable, deliver: Callable[[Node], int]) -> None:
        """Serve local members without a position, but only if the engine surely did not take the message."""
        if error.sent:
            return
        for node in self.nodes():
            if node.loop is _running_loop():
                deliver(node)
            else:
                node.loop.call_soon_threadsafe(deliver, node)
        error.delivered_locally = True

    async def flush(self) -> None:
        """Empty groups, inboxes and plain channels of this prefix on every live node. Live channels stay."""
        await self.run(Flush())
        here = self._node_here()
        for node in self.nodes():
            node.empty() if node is here else node.loop.call_soon_threadsafe(node.empty)
        others = set(await self.run(RosterGet(topics.NODES))) - {node.id for node in self.nodes()}
        if others:
            ack = secrets.token_hex(8)
            await self.broadcast("flush", {"ack": ack})
            await self._acknowledged(ack, len(others))

    async def close(self) -> None:
        """Close this loop's node: leaderships are given up, connections closed. The layer stays usable."""
        node = self._node_here()
        if node is not None:
            await node.close()
            self._nodes.pop(node.loop, None)

    close_pools = close

    # Live channels

    def _live_command(
        self,
        channel: str,
        body: bytes,
        policy: Policy,
        fence: Fence | None,
        key: str | None,
        seen: Position = START,
    ) -> Publish:
        retention = Retention(policy.history_size, policy.history_ttl, META_TTL) if policy.keeps_history else None
        replicate = ACK_WITHIN if policy.durability == "replicated" else 0
        sealed = self.codec.seal(body)
        return Publish(topics.live(channel), sealed, retention, fence, key, seen, replicate=replicate)

    def _prepare(
        self, channel: str, data: Any, tags: Mapping[str, str] | None, info: ClientInfo | None, raw: bytes | None
    ) -> tuple[Policy, bytes]:
        policy = type(self).policies(topics.check_live_name(channel))
        plain = data.to_dict() if hasattr(data, "to_dict") else data
        try:
            body = encode_body(plain, raw=raw, tags=dict(tags) if tags else None, info=info)
        except (TypeError, msgspec.EncodeError) as error:
            raise TypeError(f"{channel}: the data is not JSON: {error}") from error
        if len(body) > self.options.message_limit:
            raise MessageTooLarge(
                f"{channel}: a publication of {len(body)} bytes is over the limit of {self.options.message_limit}."
            )
        return policy, body

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        info: ClientInfo | None = None,
        fence: Fence | None = None,
        raw: bytes | None = None,
        from_source: bool = False,
        deliver_locally: bool = True,
    ) -> Position | None:
        """Publish to every viewer of a live channel in the cluster; its Position, None without history.

        `data` is a Frame or anything JSON carries (`raw`: the same as JSON text). A repeated `idempotency_key`
        within five minutes publishes nothing and returns the first position. While the engine is away local
        viewers get the publication without a position, unless `deliver_locally` is off (for callers that send
        again). Raises UnknownChannel,
        LeaseLost (with `fence`), ScopeError, MessageTooLarge, PublishUnknown, EngineUnavailable.
        """
        policy, body = self._prepare(channel, data, tags, info, raw)
        node = self._node_here()
        if policy.scope == "node":
            if not from_source or node is None:
                raise ScopeError
            command = self._live_command(channel, body, policy, None, idempotency_key)
            return (await node.run_private(command)).position
        seen = node.hub.position(channel) if node is not None else START
        command = self._live_command(channel, body, policy, fence, idempotency_key, seen)
        try:
            return (await self.run(command)).position
        except EngineUnavailable as error:
            if fence is None and deliver_locally:
                self._deliver_here(error, lambda node: node.hub.deliver_unplaced(channel, command.body))
            raise

    def publish_sync(
        self,
        channel: str,
        data: Any,
        *,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        info: ClientInfo | None = None,
        fence: Fence | None = None,
        raw: bytes | None = None,
    ) -> Position | None:
        """`publish` for plain synchronous code."""
        policy, body = self._prepare(channel, data, tags, info, raw)
        if policy.scope == "node":
            raise ScopeError
        command = self._live_command(channel, body, policy, fence, idempotency_key)
        try:
            return self.run_sync(command).position
        except EngineUnavailable as error:
            if fence is None:
                self._deliver_here(error, lambda node: node.hub.deliver_unplaced(channel, command.body))
            raise

    async def subscribe(self, channel: str, channel_name: str, since: Position | tuple[str, int] | None = None) -> None:
        """Let a consumer follow a live channel: it gets the last publication, then every next one, as events.

        With `since` it gets everything after that position instead, or (if the layer's `on_gap` names an event)
        is told that something is missing. Trusted server code: no permission is asked. Counts as a viewer.
        """
        type(self).policies(topics.check_live_name(channel))
        self.require_valid_channel_name(channel_name)
        position = Position(*since) if since is not None else None
        owner = self._owner(channel_name) or self.node()
        if owner.loop is asyncio.get_running_loop():
            await owner.subscribe(channel, channel_name, position)
        else:
            joining = asyncio.run_coroutine_threadsafe(owner.subscribe(channel, channel_name, position), owner.loop)
            async with asyncio.timeout(ACK_WITHIN * 3):
                await asyncio.wrap_future(joining)

    async def unsubscribe(self, channel: str, channel_name: str) -> None:
        """Stop following; unknown subscriptions are ignored."""
        owner = self._owner(channel_name) or self.node()
        if owner.loop is asyncio.get_running_loop():
            owner.unsubscribe(channel, channel_name)
        else:
            owner.loop.call_soon_threadsafe(owner.unsubscribe, channel, channel_name)

    def _history_command(self, channel: str, since: Position | None, limit: int, reverse: bool) -> Read:
        policy = type(self).policies(topics.check_live_name(channel))
        return Read(
            topics.live(channel), since or START, limit, reverse, max_age=policy.history_ttl, create=policy.keeps_history
        )  # fmt: skip

    def _history(self, channel: str, since: Position | None, command: Read, found: Any) -> History:
        entries = found.entries
        recovered = since is None or continues(since, found.position, found.epochs)
        if since is not None and not command.reverse and command.limit < 0:
            outcome = recover(since, found)
            recovered, entries = outcome.recovered, outcome.entries
        epoch = found.position.epoch
        return History(
            [Publication.from_entry(channel, entry, epoch, self.codec.unseal) for entry in entries], found.position, recovered
        )

    async def history(
        self, channel: str, *, since: Position | None = None, limit: int = -1, reverse: bool = False
    ) -> History:
        """Stored publications: oldest first after `since`, or newest first with `reverse`; `limit` 0 asks the position."""
        command = self._history_command(channel, since, limit, reverse)
        node = self._node_here()
        if type(self).policies(channel).scope == "node":
            if node is None:
                raise ScopeError
            return self._history(channel, since, command, await node.run_private(command))
        return self._history(channel, since, command, await self.run(command))

    def history_sync(
        self, channel: str, *, since: Position | None = None, limit: int = -1, reverse: bool = False
    ) -> History:
        """`history` for plain synchronous code."""
        command = self._history_command(channel, since, limit, reverse)
        return self._history(channel, since, command, self.run_sync(command))

    # Presence

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        """Client id to ClientInfo of everyone on a live channel, on every node; empty where presence is off."""
        return self._clients(await self.run(RosterGet(topics.presence(topics.check_live_name(channel)))))

    def presence_sync(self, channel: str) -> dict[str, ClientInfo]:
        """`presence` for plain synchronous code."""
        return self._clients(self.run_sync(RosterGet(topics.presence(topics.check_live_name(channel)))))

    @staticmethod
    def _clients(found: dict[str, bytes]) -> dict[str, ClientInfo]:
        return {client: ClientInfo.from_json(value) for client, value in found.items()}

    async def presence_enter(self, channel: str, info: ClientInfo) -> None:
        """Show a client as present for a minute; say so to the others where the channel has `join_leave`."""
        raw = info.to_json()
        policy = type(self).policies(channel)
        if policy.presence:
            await self.run(RosterSet(topics.presence(channel), info.client, raw, PRESENCE_TTL))
        if policy.join_leave:
            await self._announce(channel, policy, JOIN + raw)

    async def presence_refresh(self, channel: str, info: ClientInfo) -> None:
        """Keep a client present for another minute."""
        if type(self).policies(channel).presence:
            await self.run(RosterSet(topics.presence(channel), info.client, info.to_json(), PRESENCE_TTL))

    async def presence_leave(self, channel: str, info: ClientInfo) -> None:
        """Strike a client off at once, and say so where the channel has `join_leave`."""
        policy = type(self).policies(channel)
        if policy.presence:
            await self.run(RosterDrop(topics.presence(channel), info.client))
        if policy.join_leave:
            await self._announce(channel, policy, LEAVE + info.to_json())

    async def _announce(self, channel: str, policy: Policy, body: bytes) -> None:
        command = Publish(topics.live(channel), self.codec.seal(body))
        node = self._node_here()
        if policy.scope == "node" and node is not None:
            await node.run_private(command)
        else:
            await self.run(command)

    # The cluster

    def _control(self, kind: str, payload: Mapping[str, Any]) -> Publish:
        return Publish(topics.CONTROL, self.codec.seal(msgspec.json.encode((kind, payload))))

    async def broadcast(self, kind: str, payload: Mapping[str, Any]) -> None:
        """A control message to every live node, this one included, at most once."""
        await self.run(self._control(kind, payload))

    def broadcast_sync(self, kind: str, payload: Mapping[str, Any]) -> None:
        """`broadcast` for plain synchronous code."""
        self.run_sync(self._control(kind, payload))

    def leader_lock(self, name: str, **options: Any) -> Any:
        """A lease on `name` for your own code: `async with` or `with`. See `livechannels.locks.LeaderLock`."""
        from .locks import LeaderLock

        return LeaderLock(self, name, **options)

    def health(self) -> dict[str, Any]:
        """The state of this process's path to the engine; does no I/O."""
        nodes = self.nodes()
        bad = [node.health for node in nodes if not node.health.ok]
        worst = min(bad, key=lambda health: health.since) if bad else None
        state = worst or (nodes[0].health if nodes else None)
        rewind = all(node.health.rewind_detection for node in nodes)
        return {
            "status": "degraded" if worst else "ok",
            "since": state.since if state else time.time(),
            "node": nodes[0].id if nodes else "",
            "engine": self.engine.name,
            "detail": state.detail if state else "",
            "rewind_detection": "on" if rewind else "off",
        }

    async def __aenter__(self) -> LiveChannelLayer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


_layers: weakref.WeakSet[LiveChannelLayer] = weakref.WeakSet()


def _after_fork() -> None:
    # Nothing of the parent's may be touched: not its sockets, not its threads.
    for layer in list(_layers):
        layer._reset()


os.register_at_fork(after_in_child=_after_fork)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def live_layer(alias: str | None = None) -> LiveChannelLayer:
    """The layer behind an alias of CHANNEL_LAYERS, by default LIVECHANNELS["LAYER"].

    Raises ConfigurationError if it is missing or not ours.
    """
    from channels.layers import get_channel_layer

    from .conf import settings

    alias = alias or settings.LAYER
    layer = get_channel_layer(alias)
    if not isinstance(layer, LiveChannelLayer):
        raise ConfigurationError(
            f'CHANNEL_LAYERS["{alias}"] is not a LiveChannelLayer: set its BACKEND to '
            '"livechannels.layer.LiveChannelLayer", or LIVECHANNELS["LAYER"] to the right alias.',
            check_id="livechannels.E009",
        )
    return layer


__all__ = ["History", "LiveChannelLayer", "LiveChannelsError", "live_layer"]
