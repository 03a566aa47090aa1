"""One browser's session: Centrifuge's state machine, whatever the transport.

Commands are carried out one after the other, in the order they came; pongs are taken at once. All methods belong
to the node's loop. What a session holds (subscriptions, presence, timers) is let go at its end, however it ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

from ..auth.identity import Identity
from ..conf import settings
from ..layer import LiveChannelLayer
from ..messages.codes import (
    BAD_FRAME,
    CONNECTION_LIMIT,
    FORCE_NO_RECONNECT,
    MESSAGE_TOO_BIG,
    NO_PONG,
    SERVER_ERROR,
    SLOW,
    STALE,
    UNSUBSCRIBED_DENIED,
    WRITE_ERROR,
    Disconnect,
    Disconnected,
)
from ..messages.publications import ClientInfo
from .centrifuge import BadFrame, Command, disconnect_push, is_pong, parse_frame
from .connections import Connections
from .deadlines import Deadlines, between
from .outbox import Outbox
from .subscriptions import Membership, Memberships

logger = logging.getLogger(__name__)

QUEUED_FRAMES = 64
DRAIN = 1.0

_shared_limits: dict[str, int] = {}


class Transport(Protocol):
    """What carries a session."""

    def send(self, text: str) -> Awaitable[None]:
        """Transmit one frame; waits while the way is blocked, raises when it is gone."""

    async def close(self, disconnect: Disconnect) -> None:
        """End the connection with this code and reason, within seconds even if the client never reads."""


class Host(Protocol):
    """Who decides what a project may choose for a connection; a LiveConsumer."""

    def conn_info(self, user: Any) -> Any:
        """What others see of this user in presence, besides the ids; JSON-able."""

    def subscriptions(self, user: Any) -> Iterable[str] | Awaitable[Iterable[str]]:
        """The live channels this user is subscribed to by the server."""


def limits() -> dict[str, int]:
    """LIVECHANNELS["LIMITS"] as it is now, as one object that all sessions share."""
    global _shared_limits
    current = settings.LIMITS
    if current != _shared_limits:
        _shared_limits = current
    return _shared_limits


CarryOut = Callable[["ClientSession", Command], Awaitable[None]]
"""Carries out one command and answers it; raises Disconnected if the connection shall end."""


class ClientSession:
    """The server's end of one connection. `open` it, feed it frames with `receive`, and call `end` when it is gone."""

    __slots__ = (
        "_carry_out",
        "_closer",
        "_closing",
        "_connections",
        "_jobs",
        "_transport",
        "_worker",
        "answered_before",
        "connected",
        "deadlines",
        "host",
        "id",
        "identity",
        "info",
        "layer",
        "limits",
        "memberships",
        "node",
        "outbox",
        "rate",
    )

    def __init__(
        self, layer: LiveChannelLayer, transport: Transport, identity: Identity, host: Host, carry_out: CarryOut
    ) -> None:
        self.layer = layer
        self._carry_out = carry_out
        self.node = layer.node()
        self.identity = identity
        self.host = host
        self.limits = limits()
        self.id = str(uuid4())
        self.info = ClientInfo(identity.user_id, self.id)
        self.connected = False
        self.rate = (0.0, 0.0)
        self._connections = Connections.of(self.node)
        self.outbox = Outbox(
            transport.send,
            self._connections.writers,
            limit=self.limits["outbox_bytes"],
            window=self.limits["window_bytes"],
            give_up=self.close,
        )
        self.answered_before = 0
        self._transport = transport
        self.deadlines = Deadlines()
        self._jobs: list[Callable[[], Awaitable[None]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._closing = False
        self._closer: asyncio.Task[None] | None = None
        self.memberships = Memberships(self)

    @property
    def user_id(self) -> str:
        return self.identity.user_id

    @property
    def session_hash(self) -> str | None:
        return self.identity.session_hash

    # Frames in

    def open(self) -> None:
        """The transport stands: take frames, and wait for the connect command only so long."""
        self._connections.add(self)
        self.deadlines.set("connect", self.limits["connect_deadline"], partial(self.close, STALE))
        if self._connections.over(self.limits):
            self.close(CONNECTION_LIMIT)

    async def receive(self, frame: str | bytes) -> None:
        """Take one frame. Returns at once, except to a client whose commands come faster than they are done."""
        if self._closing:
            return
        if _too_big(frame, self.limits["message_size"]):
            self.close(MESSAGE_TOO_BIG)
        elif isinstance(frame, str) and is_pong(frame):
            self.pong()
        else:
            self.do(partial(self._carry_out_all, frame))
            if len(self._jobs) >= QUEUED_FRAMES and self._worker is not None:
                await asyncio.wait([self._worker])

    def do(self, job: Callable[[], Awaitable[None]]) -> None:
        """Run something in order with the client's commands."""
        if not self._closing:
            self._jobs.append(job)
            if self._worker is None:
                self._worker = self.node.spawn(self._work(), "livechannels-commands")

    async def _work(self) -> None:
        try:
            while self._jobs and not self._closing:
                await self._jobs.pop(0)()
        except Disconnected as end:
            self.close(end.disconnect)
        except Exception:
            logger.exception("A session of node %s failed", self.node.id)
            self.close(SERVER_ERROR)
        finally:
            self._worker = None

    async def _carry_out_all(self, frame: str | bytes) -> None:
        try:
            for command in parse_frame(frame):
                if self._closing:
                    return
                if command.method:
                    await self._carry_out(self, command)
                else:
                    self.pong()
        except BadFrame as error:
            logger.debug("A bad frame: %s", error)
            raise Disconnected(BAD_FRAME) from None

    # Connecting

    def connection_allowed(self) -> bool:
        """Whether this user may have one connection more (this one is already counted)."""
        return not self._connections.over_by(self.user_id, self.limits)

    def connect(self) -> None:
        """The client has introduced itself: from now on it has to answer pings, and its rights are watched."""
        self.connected = True
        interval, recheck = self.limits["ping_interval"], self.limits["recheck_interval"]
        self.deadlines.drop("connect")
        self.deadlines.set("ping", between(0.5 * interval, interval), self._keepalive)
        self.deadlines.set("recheck", between(0.5 * recheck, recheck), self.recheck)
        self._watch_expiry()

    def _watch_expiry(self) -> None:
        if self.identity.expires_at is not None:
            self.deadlines.set("expiry", max(0.0, self.identity.expires_at - time.time()), self.recheck)

    # Signs of life

    def _keepalive(self) -> None:
        self.answered_before = self.outbox.answered
        self.outbox.ping()
        self.deadlines.set("pong", self.limits["pong_timeout"], self._no_pong)
        self.deadlines.set("ping", self.limits["ping_interval"], self._keepalive)

    def _no_pong(self) -> None:
        if len(self._jobs) >= QUEUED_FRAMES:
            # The pong may stand behind the frames that are not read for now.
            self.deadlines.set("pong", self.limits["pong_timeout"], self._no_pong)
        elif self.outbox.answered == self.answered_before:
            self.close(NO_PONG)

    def pong(self) -> None:
        if not self.outbox.pong():
            self.close(BAD_FRAME)
        self.deadlines.drop("pong")

    def revoke(self, channel: str) -> None:
        self.memberships.revoke(channel)

    # Rights

    def recheck(self) -> None:
        self.deadlines.set("recheck", self.limits["recheck_interval"], self.recheck)
        self.do(self._recheck)

    async def _recheck(self) -> None:
        """End what is no longer allowed. While the database is away nothing new is known, and only time ends things."""
        try:
            valid = await self.identity.reload()
            denied = [] if not valid else await self._denied()
        except Exception as error:
            logger.warning("The rights of a connection could not be looked at: %s", error)
            valid, denied = (self.identity.expires_at or float("inf")) > time.time(), []
        if not valid:
            raise Disconnected(FORCE_NO_RECONNECT)
        self._watch_expiry()
        for membership in denied:
            self.memberships.drop(membership, UNSUBSCRIBED_DENIED)

    async def _denied(self) -> list[Membership]:
        return [
            membership
            for membership in self.memberships
            if membership.live is not None and not await membership.live.allows("subscribe", self.identity.user)
        ]

    # The end

    def close(self, disconnect: Disconnect) -> None:
        """End the session from the server's side: what waits is sent first, except to a client too slow to take it."""
        if not self._closing:
            self._let_go()
            self._closer = self.node.spawn(self._close(disconnect), "livechannels-close")

    async def closed(self) -> None:
        if self._closer is not None:
            await asyncio.wait([self._closer])

    async def end(self) -> None:
        """The transport is gone."""
        if self._closing:
            await self.closed()
        else:
            self._let_go()
            self.outbox.stop()
            await self._leave_all()

    def _let_go(self) -> None:
        self._closing = True
        self._connections.discard(self)
        self.deadlines.clear()
        self._jobs.clear()
        if self._worker is not None and self._worker is not asyncio.current_task():
            self._worker.cancel()
        self.memberships.forget_all()

    async def _close(self, disconnect: Disconnect) -> None:
        leaving = asyncio.ensure_future(self._leave_all())
        try:
            last = None if disconnect is MESSAGE_TOO_BIG else disconnect_push(disconnect)
            drain = disconnect not in (SLOW, NO_PONG, WRITE_ERROR)
            await self.outbox.finish(last, drain=drain, seconds=DRAIN)
            await self._transport.close(disconnect)
        finally:
            await leaving

    async def _leave_all(self) -> None:
        if self._worker is not None and self._worker is not asyncio.current_task():
            await asyncio.wait([self._worker])
        await self.memberships.leave_all()


def _too_big(frame: str | bytes, limit: int) -> bool:
    if len(frame) > limit:
        return True
    return isinstance(frame, str) and 4 * len(frame) > limit and len(frame.encode(errors="replace")) > limit
