"""Centrifuge's client protocol in JSON: commands in, replies and pushes out. Pure.

Only this module knows the wire; the codes are in `livechannels.codes`. A frame is text: JSON objects joined by
single newlines, in both directions.
`{}` from the server is a ping, `{}` from the client its pong.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from ..messages.codes import BAD_REQUEST, CommandFailed, Disconnect, Error, Unsubscribe
from ..messages.publications import Publication

_encode = msgspec.json.Encoder().encode
_NOTHING = msgspec.Raw(b"")
PING = b"{}"


class BadFrame(Exception):
    """The client sent something that is not a frame of commands; the connection ends with 3501."""


# --- Commands ---

_Unsigned = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class SubscribeRequest(msgspec.Struct):
    """`flag` bit 2: answer error 112 rather than `recovered: false`. `type`: 0 is a stream; others are not offered."""

    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: _Unsigned = 0
    data: msgspec.Raw = _NOTHING
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    flag: int = 0
    type: int = 0
    tf: msgspec.Raw = _NOTHING

    @property
    def reject_unrecovered(self) -> bool:
        return bool(self.flag & 2)


class ConnectRequest(msgspec.Struct):
    """`subs` are the positions a returning client has in its server-side subscriptions."""

    token: str = ""
    data: msgspec.Raw = _NOTHING
    subs: dict[str, SubscribeRequest] = {}
    name: str = ""
    version: str = ""


class ChannelRequest(msgspec.Struct):
    channel: str = ""


class PublishRequest(msgspec.Struct):
    channel: str = ""
    data: msgspec.Raw = _NOTHING
    type: int = 0


class Since(msgspec.Struct):
    offset: _Unsigned = 0
    epoch: str = ""


class HistoryRequest(msgspec.Struct):
    """`limit` 0 asks for the position only, -1 for as much as is allowed."""

    channel: str = ""
    limit: int = 0
    since: Since | None = None
    reverse: bool = False


class RPCRequest(msgspec.Struct):
    method: str = ""
    data: msgspec.Raw = _NOTHING


class SendRequest(msgspec.Struct):
    data: msgspec.Raw = _NOTHING


class RefreshRequest(msgspec.Struct):
    token: str = ""


class SubRefreshRequest(msgspec.Struct):
    channel: str = ""
    token: str = ""
    type: int = 0


Request = (
    ConnectRequest
    | SubscribeRequest
    | ChannelRequest
    | PublishRequest
    | HistoryRequest
    | RPCRequest
    | SendRequest
    | RefreshRequest
    | SubRefreshRequest
)


class Command(msgspec.Struct):
    """One line of a frame. The first request present is the one carried out."""

    id: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: ChannelRequest | None = None
    publish: PublishRequest | None = None
    presence: ChannelRequest | None = None
    presence_stats: ChannelRequest | None = None
    history: HistoryRequest | None = None
    rpc: RPCRequest | None = None
    send: SendRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: SubRefreshRequest | None = None

    @property
    def method(self) -> str:
        """The name of the request, "" for a pong."""
        return next((name for name in _METHODS if getattr(self, name) is not None), "")


_METHODS = Command.__struct_fields__[1:]
_decode_command = msgspec.json.Decoder(Command).decode


def parse_frame(frame: str | bytes) -> Iterator[Command]:
    """The commands of a frame, one by one: those before a bad line are carried out. Raises BadFrame."""
    text = frame if isinstance(frame, str) else _text(frame)
    for line in text.removesuffix("\n").split("\n"):
        try:
            command = _decode_command(line)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise BadFrame(str(error)) from None
        method = command.method
        if not method and (command.id or line.strip() != "{}"):
            raise BadFrame("no known request in the command")
        if method and not command.id and method != "send":
            raise BadFrame(f"{method} needs an id")
        yield command


def _text(frame: bytes) -> str:
    try:
        return frame.decode()
    except UnicodeDecodeError as error:
        raise BadFrame(str(error)) from None


def is_pong(frame: str) -> bool:
    """True for a frame that is one pong and nothing else, by far the most frequent one."""
    return frame == "{}"


def decode_data(raw: msgspec.Raw) -> Any:
    """The value a client sent; None if it sent none. Raises CommandFailed(107) for what JSON cannot mean."""
    try:
        return msgspec.json.decode(raw) if bytes(raw) else None
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise CommandFailed(BAD_REQUEST) from None


# --- Results ---


class SubscribeResult(msgspec.Struct, omit_defaults=True):
    recoverable: bool = False
    positioned: bool = False
    epoch: str = ""
    offset: int = 0
    publications: list[msgspec.Raw] = []
    recovered: bool = False
    was_recovering: bool = False


class ConnectResult(msgspec.Struct, omit_defaults=True):
    """`ping` in seconds, `time` in milliseconds."""

    client: str
    version: str
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""
    time: int = 0
    subs: dict[str, SubscribeResult] = {}


class PresenceResult(msgspec.Struct):
    presence: dict[str, msgspec.Raw]


class PresenceStatsResult(msgspec.Struct):
    num_clients: int
    num_users: int


class HistoryResult(msgspec.Struct):
    publications: list[msgspec.Raw]
    epoch: str
    offset: int


class RPCResult(msgspec.Struct):
    data: Any = None


class RefreshResult(msgspec.Struct, omit_defaults=True):
    client: str = ""
    version: str = ""


class Empty(msgspec.Struct):
    """unsubscribe, publish and sub_refresh answer with nothing, which must be there all the same."""


Result = (
    ConnectResult
    | SubscribeResult
    | PresenceResult
    | PresenceStatsResult
    | HistoryResult
    | RPCResult
    | RefreshResult
    | Empty
)


def encode_reply(id: int, method: str, result: Result) -> bytes:
    """Raises TypeError for rpc data that JSON cannot carry."""
    return b'{"id":%d,"%s":%s}' % (id, method.encode(), _one_line(_encode(result)))


def encode_error(id: int, error: Error) -> bytes:
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.temporary:
        body["temporary"] = True
    return b'{"id":%d,"error":%s}' % (id, _encode(body))


def publication_result(publication: Publication) -> msgspec.Raw:
    """A publication as an item of `publications` in a reply."""
    return msgspec.Raw(publication.encoded(_encode_publication))


# --- Pushes ---


def publication_push(publication: Publication) -> bytes:
    """The push of a publication; give it to `Publication.encoded`, so that all connections share the bytes."""
    return b'{"push":{"channel":"%s","pub":%s}}' % (
        publication.channel.encode(),
        publication.encoded(_encode_publication),
    )


def _encode_publication(publication: Publication) -> bytes:
    offset = b'"offset":%d,' % publication.offset if publication.offset else b""
    time = b'"time":%d,' % publication.time if publication.time else b""
    return b"{%s%s%s" % (offset, time, _one_line(publication.body[1:]))


def _one_line(body: bytes) -> bytes:
    # JSON escapes line breaks inside strings: raw ones are only layout, and would end the message early.
    return body.translate(None, b"\r\n") if b"\n" in body or b"\r" in body else body


@lru_cache(maxsize=64)
def join_push(channel: str, info: bytes) -> bytes:
    return b'{"push":{"channel":"%s","join":{"info":%s}}}' % (channel.encode(), info)


@lru_cache(maxsize=64)
def leave_push(channel: str, info: bytes) -> bytes:
    return b'{"push":{"channel":"%s","leave":{"info":%s}}}' % (channel.encode(), info)


def unsubscribe_push(channel: str, unsubscribe: Unsubscribe) -> bytes:
    return _encode({"push": {"channel": channel, "unsubscribe": unsubscribe._asdict()}})


def disconnect_push(disconnect: Disconnect) -> bytes:
    body = {"code": disconnect.code, "reason": disconnect.reason, "reconnect": disconnect.reconnect}
    return _encode({"push": {"disconnect": body}})


def message_push(data: Any) -> bytes:
    """A message to one connection, outside any channel."""
    return _encode({"push": {"message": {"data": data}}})
