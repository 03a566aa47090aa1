"""One message on a live channel, kept as the JSON it travels in. Pure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from .positions import Entry, Position

logger = logging.getLogger(__name__)

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


class ClientInfo(msgspec.Struct, omit_defaults=True):
    """Who a client is: `user` is the user's primary key as text ("" when anonymous), `client` the connection's id."""

    user: str = ""
    client: str = ""
    conn_info: Any = None
    chan_info: Any = None

    def to_json(self) -> bytes:
        return msgspec.json.encode(
            {"user": self.user, "client": self.client}
            | ({"conn_info": self.conn_info} if self.conn_info is not None else {})
            | ({"chan_info": self.chan_info} if self.chan_info is not None else {})
        )

    @classmethod
    def from_json(cls, raw: bytes) -> ClientInfo:
        return msgspec.json.decode(raw, type=cls)


class _Body(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw(b"null")
    tags: dict[str, str] | None = None
    info: ClientInfo | None = None


_decode_body = msgspec.json.Decoder(_Body).decode


def encode_body(
    data: Any = None,
    *,
    raw: bytes | None = None,
    tags: dict[str, str] | None = None,
    info: ClientInfo | None = None,
) -> bytes:
    """The stored form of a publication: a JSON object with data first. Raises TypeError for data JSON cannot carry."""
    parts = [b'{"data":', raw if raw is not None else _encode(data)]
    if tags:
        parts += [b',"tags":', _encode(tags)]
    if info is not None:
        parts += [b',"info":', info.to_json()]
    parts.append(b"}")
    return b"".join(parts)


class Publication:
    """A publication as a node holds it; shared by all its receivers, so read it and do not change it.

    `body` is its JSON without position; `offset` is 0 and `epoch` "" on a channel without history;
    `time` is the server's clock in milliseconds.
    """

    __slots__ = ("_body", "_encoded", "body", "channel", "epoch", "offset", "time")

    def __init__(self, channel: str, body: bytes, offset: int = 0, epoch: str = "", time: int = 0) -> None:
        self.channel = channel
        self.body = body
        self.offset = offset
        self.epoch = epoch
        self.time = time
        self._body: _Body | None = None
        self._encoded: dict[Callable[[Publication], Any], Any] | None = None

    @classmethod
    def from_entry(
        cls, channel: str, entry: Entry, epoch: str, unseal: Callable[[bytes], bytes] = bytes
    ) -> Publication:
        """A stored entry as a publication; raises ValueError if `unseal` cannot open it."""
        return cls(channel, unseal(entry.body), entry.offset, epoch, entry.time)

    def __repr__(self) -> str:
        return f"<Publication {self.channel} {self.epoch}:{self.offset}>"

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.offset)

    def _parsed(self) -> _Body:
        if self._body is None:
            self._body = _decode_body(self.body)
        return self._body

    @property
    def raw(self) -> bytes:
        """The data as JSON text."""
        return bytes(self._parsed().data)

    @property
    def data(self) -> Any:
        """The data, decoded anew for each reader."""
        return msgspec.json.decode(self._parsed().data)

    @property
    def tags(self) -> dict[str, str] | None:
        return self._parsed().tags

    @property
    def info(self) -> ClientInfo | None:
        return self._parsed().info

    def encoded(self, encoder: Callable[[Publication], T]) -> T:
        """What `encoder` makes of this publication, made once however many receivers ask."""
        if self._encoded is None:
            self._encoded = {}
        found: T | None = self._encoded.get(encoder)
        if found is None:
            found = self._encoded[encoder] = encoder(self)
        return found


def readable(channel: str, entries: Iterable[Entry], epoch: str, unseal: Callable[[bytes], bytes]) -> list[Publication]:
    """Stored entries as publications. What cannot be opened is skipped, as it is when it arrives live."""
    found = []
    for entry in entries:
        try:
            publication = Publication.from_entry(channel, entry, epoch, unseal)
        except ValueError as error:
            logger.warning("%s: a stored message was skipped: %s", channel, error)
            continue
        if publication.body[:1] == b"{":
            found.append(publication)
        else:
            logger.warning("%s: a stored message of an unknown kind was skipped", channel)
    return found
