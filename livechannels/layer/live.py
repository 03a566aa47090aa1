"""The layer's methods for live channels: publish, subscribe, history, presence."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from channels.exceptions import MessageTooLarge

from ..engines.base import Fence, Publish, Published, Read, Retention, RosterDrop, RosterGet, RosterSet
from ..exceptions import EngineUnavailable, NotReplicated, ScopeError
from ..messages import topics
from ..messages.policy import Policy
from ..messages.positions import START, Position, Slice, continues, recover
from ..messages.publications import ClientInfo, Publication, encode_body, readable
from ..node.hub import JOIN, LEAVE, META_TTL
from .process import ACK_WITHIN, EngineAccess

PRESENCE_TTL = 60.0
REPLICATE_WITHIN = 0.8


class History(NamedTuple):
    """Publications of a live channel, its position, and whether nothing after `since` is missing."""

    publications: list[Publication]
    position: Position
    recovered: bool


class LiveMethods(EngineAccess):
    """Live channels by name. What a channel keeps is decided by its class, through `policies`."""

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
        replicate = REPLICATE_WITHIN if policy.durability == "replicated" else 0
        sealed = self.codec.seal(body)
        return Publish(topics.live(channel), sealed, retention, fence, key, seen, replicate=replicate)

    def _prepare(
        self, channel: str, data: Any, tags: Mapping[str, str] | None, info: ClientInfo | None, raw: bytes | None
    ) -> tuple[Policy, bytes]:
        policy = self.policies(topics.check_live_name(channel))
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
        again). Raises UnknownChannel, LeaseLost (with `fence`), ScopeError, MessageTooLarge, PublishUnknown,
        EngineUnavailable, and NotReplicated (with durability="replicated").
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
            return self._position(channel, await self.run(command))
        except EngineUnavailable as error:
            if fence is None and deliver_locally:
                self._deliver_here(error, command)
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
            return self._position(channel, self.run_sync(command))
        except EngineUnavailable as error:
            if fence is None:
                self._deliver_here(error, command)
            raise

    @staticmethod
    def _position(channel: str, published: Published) -> Position | None:
        if published.replicas == 0:
            raise NotReplicated(
                f"{channel}: stored, but no replica confirmed it within {REPLICATE_WITHIN} s.",
                position=published.position,
            )
        return published.position

    async def subscribe(self, channel: str, channel_name: str, since: Position | tuple[str, int] | None = None) -> None:
        """Let a consumer follow a live channel: it gets the last publication, then every next one, as events.

        With `since` it gets everything after that position instead, or (if the layer's `on_gap` names an event)
        is told that something is missing. Trusted server code: no permission is asked. Counts as a viewer.
        """
        self.policies(topics.check_live_name(channel))
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
        policy = self.policies(topics.check_live_name(channel))
        if reverse and since is not None and since.offset == 0:
            limit = 0  # nothing stands before the beginning
        return Read(
            topics.live(channel), since or START, limit, reverse, policy.history_ttl, create=policy.keeps_history
        )

    def _history(self, channel: str, since: Position | None, command: Read, found: Slice) -> History:
        entries = found.entries
        recovered = since is None or continues(since, found.position, found.epochs)
        if since is not None and not command.reverse and command.limit < 0:
            outcome = recover(since, found)
            recovered, entries = outcome.recovered, outcome.entries
        epoch = found.position.epoch
        return History(readable(channel, entries, epoch, self.codec.unseal), found.position, recovered)

    async def history(
        self, channel: str, *, since: Position | None = None, limit: int = -1, reverse: bool = False
    ) -> History:
        """Stored publications: oldest first after `since`; with `reverse` newest first, those before `since`.

        `limit` 0 reads the position only, -1 everything.
        """
        command = self._history_command(channel, since, limit, reverse)
        node = self._node_here()
        if self.policies(channel).scope == "node":
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
        policy = self.policies(channel)
        if policy.presence:
            await self.run(RosterSet(topics.presence(channel), info.client, raw, PRESENCE_TTL))
        if policy.join_leave:
            await self._announce(channel, policy, JOIN + raw)

    async def presence_refresh(self, channel: str, info: ClientInfo) -> None:
        """Keep a client present for another minute."""
        if self.policies(channel).presence:
            await self.run(RosterSet(topics.presence(channel), info.client, info.to_json(), PRESENCE_TTL))

    async def presence_leave(self, channel: str, info: ClientInfo) -> None:
        """Strike a client off at once, and say so where the channel has `join_leave`."""
        policy = self.policies(channel)
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
