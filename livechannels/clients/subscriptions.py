"""A session's places on live channels: what the hub tells them goes to the outbox, and presence follows."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Protocol

from ..channels import LiveChannel
from ..exceptions import EngineUnavailable
from ..layer import LiveChannelLayer
from ..messages.codes import (
    INSUFFICIENT_STATE,
    UNSUBSCRIBED_BY_SERVER,
    UNSUBSCRIBED_INSUFFICIENT,
    Disconnect,
    Unsubscribe,
)
from ..messages.policy import Policy
from ..messages.positions import Position
from ..messages.publications import ClientInfo, Publication
from ..node.hub import Subscribed
from ..node.node import Node
from .centrifuge import join_push, leave_push, publication_push, unsubscribe_push
from .deadlines import Deadlines, between
from .outbox import Outbox

logger = logging.getLogger(__name__)

PRESENCE_EVERY = 25.0
SPREAD = 1.0
BACK_WITHIN = 10.0


class Client(Protocol):
    """Whose places they are; a ClientSession."""

    info: ClientInfo
    layer: LiveChannelLayer
    node: Node
    outbox: Outbox
    deadlines: Deadlines

    def do(self, job: Callable[[], Awaitable[None]]) -> None:
        """Run something in order with the client's commands."""

    def close(self, disconnect: Disconnect) -> None:
        """End the connection."""


class Membership:
    """One client on one live channel; a hub Subscriber.

    `live` is None for a subscription that the server made: nobody's right was asked for. Until `ready`, only the
    command that makes it may end it.
    """

    __slots__ = ("_key", "_outbox", "_owner", "channel", "live", "lost", "policy", "ready")

    def __init__(self, channel: str, live: LiveChannel | None, owner: Memberships, outbox: Outbox) -> None:
        self.channel = channel
        self.live = live
        self.policy = Policy()
        self.ready = False
        self.lost = False
        self._owner = owner
        self._outbox = outbox
        self._key: str | None = None

    def __repr__(self) -> str:
        return f"<Membership {self.channel}>"

    def adopt(self, policy: Policy) -> None:
        self.policy = policy
        self._key = self.channel if policy.coalesce else None

    @property
    def shown(self) -> bool:
        """Whether others can see who is here."""
        return self.policy.presence or self.policy.join_leave

    def on_publication(self, publication: Publication) -> None:
        self._outbox.put(publication.encoded(publication_push), self._key)

    def on_join(self, channel: str, info: bytes) -> None:
        if self.policy.join_leave:
            self._outbox.put(join_push(channel, info))

    def on_leave(self, channel: str, info: bytes) -> None:
        if self.policy.join_leave:
            self._outbox.put(leave_push(channel, info))

    def on_insufficient(self, channel: str, reason: str) -> None:
        self.lost = True
        if self.ready:
            self._owner.lose(self)


class Memberships:
    """All places of one session, by channel."""

    __slots__ = ("_by_channel", "_client", "_present")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._by_channel: dict[str, Membership] = {}
        # Channels whose presence may name this client: rather one too many than one too few. Frozen, for the
        # empty set costs nothing then.
        self._present: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self._by_channel)

    def __iter__(self) -> Iterator[Membership]:
        return iter(list(self._by_channel.values()))

    def get(self, channel: str) -> Membership | None:
        return self._by_channel.get(channel)

    async def join(
        self, channel: str, live: LiveChannel | None, since: Position | None
    ) -> tuple[Membership, Subscribed]:
        """Subscribe at the hub. Nothing is delivered before `go_live`, which has to follow the reply."""
        membership = Membership(channel, live, self, self._client.outbox)
        self._by_channel[channel] = membership
        try:
            subscribed = await self._client.node.hub.subscribe(channel, membership, since=since)
        except BaseException:
            self.forget(membership)
            raise
        membership.adopt(subscribed.policy)
        return membership, subscribed

    async def go_live(self, membership: Membership) -> None:
        """The reply is on its way: deliver from now on, and show the client to the others."""
        membership.ready = True
        if membership.lost:
            self.lose(membership)
        self._client.node.hub.activate(membership.channel, membership)
        if membership.shown:
            layer = self._client.layer
            enter = layer.presence_refresh if membership.channel in self._present else layer.presence_enter
            self._present |= {membership.channel}
            self._client.deadlines.set("presence", PRESENCE_EVERY, self._refresh_soon)
            try:
                await enter(membership.channel, self._client.info)
            except EngineUnavailable:
                logger.warning("%s: presence is behind, the store is away", membership.channel)

    def forget(self, membership: Membership) -> None:
        """Take a place off the hub and off the books; presence ends with `leave`."""
        self._client.node.hub.unsubscribe(membership.channel, membership)
        if self._by_channel.get(membership.channel) is membership:
            del self._by_channel[membership.channel]

    async def leave(self, channel: str) -> None:
        """End presence on a channel, unless the client came back meanwhile."""
        if channel in self._present and channel not in self._by_channel:
            self._present -= {channel}
            try:
                await self._client.layer.presence_leave(channel, self._client.info)
            except EngineUnavailable:
                logger.warning("%s: presence is behind, the store is away", channel)

    def drop(self, membership: Membership, why: Unsubscribe) -> None:
        """End a subscription from the server's side, and tell the client."""
        if self._by_channel.get(membership.channel) is membership:
            self.forget(membership)
            self._client.outbox.put(unsubscribe_push(membership.channel, why))
            self._leave_soon(membership.channel)

    def revoke(self, channel: str) -> None:
        """The server takes the client off a channel, now or as soon as the subscribe under way is answered."""
        membership = self._by_channel.get(channel)
        if membership is not None and membership.ready:
            self.drop(membership, UNSUBSCRIBED_BY_SERVER)
        elif membership is not None:
            self._client.do(partial(self._revoke_in_turn, channel))

    async def _revoke_in_turn(self, channel: str) -> None:
        membership = self._by_channel.get(channel)
        if membership is not None:
            self.drop(membership, UNSUBSCRIBED_BY_SERVER)

    def lose(self, membership: Membership) -> None:
        """Continuity ended: have the client subscribe again. A whole node's clients are spread over a second."""
        again = (
            partial(self._client.close, INSUFFICIENT_STATE)
            if membership.live is None
            else partial(self._call_back, membership)
        )
        self._client.deadlines.set(f"resume {membership.channel}", between(0, SPREAD), again)

    def _call_back(self, membership: Membership) -> None:
        # The client is back in a moment: others need not see it leave and join.
        channel = membership.channel
        if self._by_channel.get(channel) is membership:
            self.forget(membership)
            self._client.outbox.put(unsubscribe_push(channel, UNSUBSCRIBED_INSUFFICIENT))
            self._client.deadlines.set(f"leave {channel}", BACK_WITHIN, partial(self._leave_soon, channel))

    def _leave_soon(self, channel: str) -> None:
        self._client.do(partial(self.leave, channel))

    def forget_all(self) -> None:
        for membership in self:
            self.forget(membership)

    async def leave_all(self) -> None:
        """End presence everywhere. While the store is away it ends by itself, after a minute."""
        present, self._present = self._present, frozenset()
        try:
            for channel in present:
                await self._client.layer.presence_leave(channel, self._client.info)
        except EngineUnavailable:
            logger.debug("Presence ends by itself: the store is away")

    def _refresh_soon(self) -> None:
        self._client.do(self._refresh)

    async def _refresh(self) -> None:
        try:
            for channel in self._present & self._by_channel.keys():
                await self._client.layer.presence_refresh(channel, self._client.info)
        except EngineUnavailable:
            logger.debug("Presence is not refreshed: the store is away")
        if self._present:
            self._client.deadlines.set("presence", PRESENCE_EVERY, self._refresh_soon)
