"""A node's inboxes: what other processes send to its `!` channels, kept in order across lost connections."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import msgspec

from ..messages import topics
from ..messages.positions import START, Entry
from .feed import Feed
from .groups import DROPPED, UNREADABLE
from .mailboxes import Mailboxes

logger = logging.getLogger(__name__)

SIZE = 10_000
BYTES = 16 * 1024 * 1024
RENEWED_FOR = 600.0


class Letter(NamedTuple):
    """What travels to a node: a message for a channel ("m"), or a request to join ("j") or leave ("l") a group."""

    kind: str
    channel: str
    body: bytes = b""
    group: str = ""
    ack: str = ""

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(tuple(self))


_decode = msgspec.msgpack.Decoder(tuple[str, str, bytes, str, str]).decode


class InboxFeed(Feed):
    """Everything addressed to the channels that begin with one `prefix!`; this node is its only reader."""

    __slots__ = ("_expiry", "_mailboxes", "_on_gap", "_on_request", "_unseal", "trimmed")

    def __init__(
        self,
        part: str,
        mailboxes: Mailboxes,
        *,
        expiry: float,
        unseal: Callable[[bytes], bytes],
        on_request: Callable[[Letter], None],
        on_gap: Callable[[str], None],
    ) -> None:
        super().__init__(topics.inbox(part), START)
        self._mailboxes = mailboxes
        self._expiry = expiry
        self._unseal = unseal
        self._on_request = on_request
        self._on_gap = on_gap
        self.trimmed = START

    @property
    def max_age(self) -> float:
        return self._expiry

    @property
    def renew(self) -> float:
        return RENEWED_FOR

    @property
    def idle(self) -> bool:
        return False

    def deliver(self, entry: Entry, epoch: str, served: Collection[Any] = ()) -> None:
        try:
            letter = Letter(*_decode(self._unseal(entry.body)))
        except (ValueError, msgspec.DecodeError) as error:
            UNREADABLE.inc()
            logger.warning("%s: a message was skipped: %s", self.topic, error)
            return
        if letter.kind != "m":
            self._on_request(letter)
        elif not self._mailboxes.get(letter.channel).put((time.monotonic() + self._expiry, letter.body)):
            DROPPED.inc(kind="channel")
            logger.debug("%s is over capacity; a message was dropped", letter.channel)

    def gap(self, reason: str) -> bool:
        self._on_gap(reason)
        return True
