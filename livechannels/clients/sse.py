"""`events?channel=…`: one live channel as server-sent events, for pages that only listen.

    new EventSource("/live/events?channel=stream/telegraf/cpu").onmessage = (event) => show(JSON.parse(event.data))

Each event is a publication: its data is `{"offset"?, "time"?, "data", "tags"?, "info"?}` and its id `epoch:offset`, so
that a browser that comes back goes on where it was. If that is not possible, an event `gap` comes first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from .. import registry
from ..auth.identity import Identity
from ..auth.origins import check_origin
from ..channels import LiveChannel
from ..conf import settings
from ..exceptions import EngineUnavailable, InvalidChannelName, UnknownChannel
from ..layer import live_layer
from ..messages.codes import Disconnect
from ..messages.positions import Position
from ..messages.publications import Publication
from ..node.hub import Subscribed
from ..node.node import Node
from .backlog import Backlog, Joiner
from .centrifuge import publication_result
from .connections import Connections
from .deadlines import Deadlines, between
from .session import limits

logger = logging.getLogger(__name__)

HEARTBEAT = ":\n\n"
BEGINNING = "retry: 2000\n\n"
_joiner = Joiner(b"")


@never_cache
@require_GET
@check_origin
async def events(request: HttpRequest) -> HttpResponseBase:
    """The stream of one channel. `history=N` asks for the N newest publications first (default 1, 0 for none).

    Resumes after the header Last-Event-ID or the parameter `last_event_id`. 400 for a bad name or number, 403 for
    a missing right, 404 for an unknown channel, 503 while the store is away, 501 on a WSGI server.
    """
    if not isinstance(request, ASGIRequest):
        return _plain("server-sent events need an ASGI server", 501)
    try:
        live = registry.resolve(request.GET.get("channel", ""))
        history = int(request.GET.get("history", 1))
        since = _position(request.headers.get("Last-Event-ID") or request.GET.get("last_event_id", ""))
    except InvalidChannelName as error:
        return _plain(str(error), 400)
    except UnknownChannel:
        return _plain("unknown channel", 404)
    except ValueError:
        return _plain("history is a number, Last-Event-ID is epoch:offset", 400)
    identity = await _identity(request)
    if not await live.allows("subscribe", identity.user):
        return _plain("permission denied", 403)
    node = live_layer(settings.LAYER).node()
    if refused := _refused(Connections.of(node), identity):
        return refused
    stream = EventStream(node, live, identity)
    try:
        await stream.open(since, min(max(history, 0), limits()["history_publications"]))
    except EngineUnavailable:
        stream.end()
        return _plain("the store is away, try again", 503, {"Retry-After": "2"})
    # Neither a proxy nor GZipMiddleware may hold events back.
    headers = {"X-Accel-Buffering": "no", "Content-Encoding": "identity"}
    return StreamingHttpResponse(stream, content_type="text/event-stream; charset=utf-8", headers=headers)


def _refused(connections: Connections, identity: Identity) -> HttpResponse | None:
    """Event streams count as connections, of the node and of the user."""
    if connections.closing or connections.over(limits(), coming=1):
        return _plain("no more connections here, try again", 503, {"Retry-After": "2"})
    if connections.over_by(identity.user_id, limits(), coming=1):
        return _plain("too many connections of this user", 429)
    return None


def _position(text: str) -> Position | None:
    if not text:
        return None
    epoch, _, offset = text.rpartition(":")
    if int(offset) < 0:
        raise ValueError(text)
    return Position(epoch, int(offset))


async def _identity(request: ASGIRequest) -> Identity:
    user = await request.auser() if hasattr(request, "auser") else None
    identity = Identity.from_scope({"user": user, "session": getattr(request, "session", None)})
    await identity.load_expiry()
    return identity


def _plain(text: str, status: int, headers: dict[str, str] | None = None) -> HttpResponse:
    return HttpResponse(f"{text}\n", status=status, content_type="text/plain; charset=utf-8", headers=headers)


def _event(publication: Publication) -> bytes:
    """A publication as an event; shared by all streams of the channel."""
    place = _place(publication.position) if publication.offset else b""
    return b"%sdata: %s\n\n" % (place, bytes(publication_result(publication)))


def _place(position: Position) -> bytes:
    """Lines that tell the browser where it stands; without data they are no event of their own."""
    return b"id: %s:%d\n" % (position.epoch.encode(), position.offset)


class EventStream:
    """One browser's stream: a hub Subscriber, and a Connection that rights and logouts can end.

    Ending is always safe: EventSource comes back with the id of the last event, and is told the truth then.
    """

    def __init__(self, node: Node, live: LiveChannel, identity: Identity) -> None:
        self._node = node
        self._live = live
        self._identity = identity
        self._limits = limits()
        self._key = live.channel if live.policy().coalesce else None
        self._backlog = Backlog(self._limits["outbox_bytes"], _joiner)
        self._wake = asyncio.Event()
        self._deadlines = Deadlines()
        self._ended = False

    @property
    def user_id(self) -> str:
        return self._identity.user_id

    @property
    def session_hash(self) -> str | None:
        return self._identity.session_hash

    async def open(self, since: Position | None, history: int) -> None:
        """Join the channel; what the browser missed, or else the newest publications, are its first events.

        Raises EngineUnavailable.
        """
        Connections.of(self._node).add(self)
        self._deadlines.set("start", self._limits["connect_deadline"], self.end)
        hub, channel = self._node.hub, self._live.channel
        found = await hub.subscribe(channel, self, since=since, history=history)
        if found.was_recovering and not self._recovered(found):
            hub.unsubscribe(channel, self)
            found = await hub.subscribe(channel, self, history=history)
            self._put(b'event: gap\ndata: {"reason":"not recovered"}\n\n')
        if found.position is not None and not found.publications:
            self._put(_place(found.position) + b"\n")
        for publication in found.publications:
            self.on_publication(publication)
        hub.activate(channel, self)
        self._watch()

    def _recovered(self, found: Subscribed) -> bool:
        return found.recovered and len(found.publications) <= self._limits["recover_publications"]

    def _watch(self) -> None:
        recheck = self._limits["recheck_interval"]
        self._deadlines.set("recheck", between(0.5 * recheck, recheck), self.recheck)
        if self._identity.expires_at is not None:
            self._deadlines.set("expiry", max(0.0, self._identity.expires_at - time.time()), self.recheck)

    async def __aiter__(self) -> AsyncIterator[str]:
        """What to write, as it comes; a comment now and then shows that the connection stands."""
        self._deadlines.drop("start")
        try:
            yield BEGINNING
            while True:
                while self._backlog:
                    yield self._backlog.take().text
                if self._ended:
                    return
                self._wake.clear()
                try:
                    async with asyncio.timeout(self._limits["ping_interval"]):
                        await self._wake.wait()
                except TimeoutError:
                    yield HEARTBEAT
        finally:
            self.end()

    def end(self) -> None:
        """Let go of everything; what waits is still written."""
        if not self._ended:
            self._ended = True
            self._deadlines.clear()
            self._node.hub.unsubscribe(self._live.channel, self)
            Connections.of(self._node).discard(self)
            self._wake.set()

    def _put(self, event: bytes) -> None:
        if not self._backlog.put(event, self._key):
            self._backlog.clear()
            self.end()
        self._wake.set()

    # As a subscriber

    def on_publication(self, publication: Publication) -> None:
        self._put(publication.encoded(_event))

    def on_join(self, channel: str, info: bytes) -> None:
        """Events carry publications only."""

    def on_leave(self, channel: str, info: bytes) -> None:
        """Events carry publications only."""

    def on_insufficient(self, channel: str, reason: str) -> None:
        self._deadlines.set("resume", between(0, 1), self.end)

    # As a connection

    def close(self, disconnect: Disconnect | None = None) -> None:
        """Also called by Django, from its thread, when the response is done with."""
        with contextlib.suppress(RuntimeError):
            self._node.loop.call_soon_threadsafe(self.end)

    def revoke(self, channel: str) -> None:
        if channel == self._live.channel:
            self.end()

    def recheck(self) -> None:
        if not self._ended:
            self._node.spawn(self._recheck(), "livechannels-recheck")

    async def closed(self) -> None:
        """A stream that has ended holds nothing."""

    async def _recheck(self) -> None:
        try:
            valid = await self._identity.reload() and await self._live.allows("subscribe", self._identity.user)
        except Exception as error:
            logger.warning("The rights of an event stream could not be looked at: %s", error)
            valid = (self._identity.expires_at or float("inf")) > time.time()
        if not valid:
            self.end()
        elif not self._ended:
            self._watch()
