"""`push/<stream_id>`: where Telegraf, and whoever else speaks line protocol, pushes; HTTP and WebSocket.

Both want `Authorization: Bearer <one of LIVECHANNELS["PUSH_TOKENS"]>`, take `?precision=`, and answer in one
line of text. HTTP answers 204, or 400 with the first bad line after having kept the good ones; see `_STATUS`
for the rest. A WebSocket message is one body; only what went wrong is answered.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

from channels.exceptions import MessageTooLarge
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt

from .. import conf
from ..auth.tokens import carries_token
from ..exceptions import EngineUnavailable, InvalidChannelName, PublishUnknown, UnknownChannel
from ..layer import LiveChannelLayer, live_layer
from .body import Body, BodyTooLarge, BrokenBody, UnknownEncoding
from .ingest import Ingest
from .line_protocol import UnknownPrecision

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_STATUS: dict[type[Exception], int] = {
    BrokenBody: 400,
    UnknownPrecision: 400,
    UnreadablePostError: 400,
    UnknownChannel: 404,
    InvalidChannelName: 404,
    BodyTooLarge: 413,
    MessageTooLarge: 413,
    UnknownEncoding: 415,
    EngineUnavailable: 503,
    PublishUnknown: 503,
}
REFUSALS = tuple(_STATUS)
RETRY_AFTER = 2
UNAUTHORIZED = 'no valid push token: send "Authorization: Bearer" and one of LIVECHANNELS["PUSH_TOKENS"]'

_PIECE = 65536
_LINE = 1000  # Telegraf logs the first 1024 bytes of a refusal
_TRY_AGAIN_LATER = 1013
_TOO_BIG = 1009


@csrf_exempt
async def push(request: HttpRequest, stream_id: str) -> HttpResponse:
    """Take one body of line protocol, plain or gzip. 503 says that it was not taken and should be sent again.

    A repeated body of several measurements, each line with its time, is stored once: see `Ingest.push`.
    """
    if request.method != "POST":
        return _refused(405, "POST line protocol here", Allow="POST")
    if not _is_pusher(request.headers.get("Authorization", "")):
        return _refused(401, UNAUTHORIZED, **{"WWW-Authenticate": "Bearer"})
    try:
        body = _body(request)
        report = await _ingest().push(stream_id, body, request.GET.get("precision", "ns"), repeats=True)
    except REFUSALS as error:
        status = _status(error)
        return _refused(status, str(error), **({"Retry-After": str(RETRY_AFTER)} if status == 503 else {}))
    return _refused(400, str(report)) if report.rejected else HttpResponse(status=204)


class PushConsumer:
    """The same over a WebSocket, as Telegraf's outputs.websocket sends it: each message is one body.

    A wrong token is refused before the handshake is accepted. Bad lines are logged and answered with a line of
    text. While the store is away the connection is closed with 1013, and new ones are refused with 503, so that
    the sender keeps its batches; the one batch that met the failure is lost, as WebSocket has no receipt.
    """

    @classmethod
    def as_asgi(cls) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        """An ASGI application; the URL has to give it `stream_id`."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await cls(scope, receive, send).serve()

        return application

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._stream_id: str = scope["url_route"]["kwargs"]["stream_id"]
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        self._precision = query.get("precision", ["ns"])[0]

    async def serve(self) -> None:
        """The life of the connection."""
        message = await self._receive()
        if message["type"] != "websocket.connect" or await self._is_refused():
            return
        await self._send({"type": "websocket.accept"})
        while (message := await self._receive())["type"] == "websocket.receive":
            if not await self._take(message.get("bytes") or (message.get("text") or "").encode()):
                return

    async def _is_refused(self) -> bool:
        headers = dict(self._scope["headers"])
        if not _is_pusher(headers.get(b"authorization", b"").decode("latin-1")):
            await self._refuse(401, UNAUTHORIZED)
            return True
        health = _layer().health()
        if health["status"] != "ok":
            await self._refuse(503, f"the store is away: {health.get('detail', '')}")
            return True
        return False

    async def _take(self, body: bytes) -> bool:
        """Ingest one message; whether the connection goes on."""
        try:
            size = conf.settings.LIMITS["push_body_bytes"]
            if len(body) > size:
                await self._say(f"the message is larger than {size} bytes; send smaller batches")
                await self._send({"type": "websocket.close", "code": _TOO_BIG})
                return False
            report = await _ingest().push(self._stream_id, body, self._precision)
        except REFUSALS as error:
            await self._say(str(error))
            if _status(error) != 503:
                return True
            await self._send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
            return False
        if report.rejected:
            await self._say(str(report))
        return True

    async def _say(self, text: str) -> None:
        logger.warning("push/%s: %s", self._stream_id, text)
        await self._send({"type": "websocket.send", "text": _one_line(text)})

    async def _refuse(self, status: int, text: str) -> None:
        """Answer the handshake with an HTTP status, or with the server's own 403 where it knows no other."""
        if "websocket.http.response" not in (self._scope.get("extensions") or {}):
            await self._send({"type": "websocket.close"})
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await self._send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await self._send({"type": "websocket.http.response.body", "body": f"{_one_line(text)}\n".encode()})


def _is_pusher(authorization: str) -> bool:
    return carries_token(authorization, conf.settings.PUSH_TOKENS or ())


def _body(request: HttpRequest) -> bytes:
    limits = conf.settings.LIMITS
    body = Body(
        request.headers.get("Content-Encoding", ""),
        limit=limits["push_body_bytes"],
        sent_limit=limits["push_compressed_bytes"],
    )
    length = request.headers.get("Content-Length", "")
    if length.isdecimal():
        body.expect(int(length))
    while piece := request.read(_PIECE):
        body.feed(piece)
    return body.finish()


def _layer() -> LiveChannelLayer:
    return live_layer(conf.settings.LAYER)


def _ingest() -> Ingest:
    return _ingest_of(_layer())


@lru_cache(maxsize=1)
def _ingest_of(layer: LiveChannelLayer) -> Ingest:
    return Ingest(layer)


def _status(error: Exception) -> int:
    return next(status for kind, status in _STATUS.items() if isinstance(error, kind))


def _refused(status: int, text: str, **headers: str) -> HttpResponse:
    return HttpResponse(
        f"{_one_line(text)}\n", status=status, headers=headers, content_type="text/plain; charset=utf-8"
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LINE]
