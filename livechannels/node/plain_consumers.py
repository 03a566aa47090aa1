"""Live channels for plain Django consumers: publications arrive as events in the consumer's mailbox."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ..exceptions import EngineUnavailable
from ..messages.positions import Position
from ..messages.publications import Publication
from ..serializers import Codec
from .feeds import Spawn
from .hub import Hub
from .isolation import Shared
from .mailboxes import Body, Mailbox

logger = logging.getLogger(__name__)


def event_maker(codec: Codec) -> Callable[[Publication], Shared]:
    """What makes a publication the event that plain consumers get: once, however many they are."""

    def event(publication: Publication) -> Shared:
        body = codec.dumps(
            {
                "type": "live.publication",
                "channel": publication.channel,
                "data": publication.data,
                "offset": publication.offset,
                "epoch": publication.epoch,
                "tags": publication.tags,
            }
        )
        return Shared(body, codec.loads)

    return event


class ConsumerSubscription:
    """One plain consumer on one live channel.

    It receives `{"type": "live.publication", "channel", "data", "offset", "epoch", "tags"}` and, when the layer's
    `on_gap` names an event, that event where messages were lost. It resubscribes by itself.
    """

    def __init__(
        self,
        hub: Hub,
        channel: str,
        box: Mailbox[Body],
        *,
        spawn: Spawn,
        event: Callable[[Publication], Shared],
        expiry: float,
        gap_event: Callable[[str, str], bytes | None],
    ) -> None:
        self.channel = channel
        self.position: Position | None = None
        self.ended = False
        self._hub = hub
        self._box = box
        self._spawn = spawn
        self._event = event
        self._expiry = expiry
        self._gap_event = gap_event
        self._overflowed = False
        self._joining = False
        self._dismissed = False

    async def start(self, since: Position | None) -> None:
        """Subscribe; while the store is away, keep trying in the background and return."""
        self.position = since
        try:
            await self._subscribe()
        except EngineUnavailable:
            self._spawn(self._retry(), "livechannels-subscribe")

    def end(self) -> None:
        self.ended = True
        self._hub.unsubscribe(self.channel, self)

    async def _subscribe(self) -> None:
        self._joining, self._dismissed = True, False
        try:
            await self._join()
        finally:
            self._joining = False
        if self._dismissed:
            self.on_insufficient(self.channel, "restart")

    async def _join(self) -> None:
        since = self.position
        welcome = await self._hub.subscribe(self.channel, self, since=since, history=1)
        if self.ended:
            self._hub.unsubscribe(self.channel, self)
            return
        if since is not None and not welcome.recovered:
            self._tell_gap("restart" if welcome.position and welcome.position.epoch != since.epoch else "trimmed")
        self.position = welcome.position
        for publication in welcome.publications:
            self.on_publication(publication)
        self.position = welcome.position
        self._hub.activate(self.channel, self)

    async def _retry(self) -> None:
        pause = 0.1
        while not self.ended:
            try:
                await self._subscribe()
                return
            except EngineUnavailable:
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)

    def on_publication(self, publication: Publication) -> None:
        if self._overflowed and len(self._box) < self._box.capacity:
            self._overflowed = False
            self._tell_gap("overflow")
        try:
            body = publication.encoded(self._event)
        except (TypeError, ValueError, OverflowError) as error:
            logger.warning("%s: a publication does not fit the serializer and was skipped: %s", self.channel, error)
            return
        if self._put(body):
            if publication.offset:
                self.position = publication.position
        elif not self._overflowed:
            self._overflowed = True
            logger.info("%s: a consumer is over capacity; publications are dropped", self.channel)

    def on_join(self, channel: str, info: bytes) -> None:
        """Plain consumers are not told of joins."""

    def on_leave(self, channel: str, info: bytes) -> None:
        """Plain consumers are not told of leaves."""

    def on_insufficient(self, channel: str, reason: str) -> None:
        if self._joining:
            self._dismissed = True  # one at a time: the subscription under way ends first
        elif not self.ended:
            self._spawn(self._retry(), "livechannels-resubscribe")

    def _put(self, body: Body) -> bool:
        return self._box.put((time.monotonic() + self._expiry, body))

    def _tell_gap(self, reason: str) -> None:
        event = self._gap_event(self.channel, reason)
        if event is not None:
            self._put(event)
