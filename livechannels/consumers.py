"""LiveConsumer: the WebSocket that browsers speak Centrifuge's protocol on. A thin ASGI application of its own.

It has no part in Channels' dispatch: no thread hop and no task for a message, and it keeps nothing of its scope
but the user's identity.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Iterable
from typing import Any

from asgiref.sync import markcoroutinefunction

from . import registry
from .auth.identity import Identity
from .auth.origins import Receive, Scope, Send
from .clients.centrifuge import disconnect_push
from .clients.commands import carry_out
from .clients.connections import Connections
from .clients.session import ClientSession
from .conf import settings
from .exceptions import UnknownChannel
from .layer import live_layer
from .messages.codes import INAPPROPRIATE_PROTOCOL, SHUTDOWN, Disconnect

logger = logging.getLogger(__name__)

CLOSE_WITHIN = 3.0
ABORT_AFTER = 5.0
SUBPROTOCOL = "centrifuge-json"
PROTOBUF = "centrifuge-protobuf"


class LiveConsumer:
    """Mount with `LiveConsumer.as_asgi()`; subclass it to choose what others see of a user, and what all are sent."""

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> Any:
        """The ASGI application: one instance for each connection, as Channels' consumers have it."""

        # Not `async`: a frame of its own for every connection would hold the scope.
        @markcoroutinefunction
        def application(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            return cls(**initkwargs)(scope, receive, send)

        functools.update_wrapper(application, cls, updated=())
        application.consumer_class = cls  # type: ignore[attr-defined]
        application.consumer_initkwargs = initkwargs  # type: ignore[attr-defined]
        return application

    def conn_info(self, user: Any) -> Any:
        """What others see of this user in presence, besides the primary key; JSON-able. By default the user name."""
        return {"name": user.get_username()} if user.is_authenticated else None

    def subscriptions(self, user: Any) -> Iterable[str] | Awaitable[Iterable[str]]:
        """The live channels the server subscribes this user to, without asking `can_subscribe`. May be async.

        By default the personal channel `#<primary key>`, if a live_path() is declared for it.
        """
        if not user.is_authenticated:
            return []
        personal = f"#{user.pk}"
        try:
            registry.policy_for(personal)
        except (UnknownChannel, TypeError):
            return []
        return [personal]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket from its handshake to its end."""
        offered = scope.get("subprotocols") or []
        identity = Identity.from_scope(scope)
        del scope
        await receive()
        socket = WebSocket(innermost(send))
        if PROTOBUF in offered and SUBPROTOCOL not in offered:
            await socket.refuse(INAPPROPRIATE_PROTOCOL, PROTOBUF)
            return
        layer = live_layer(settings.LAYER)
        node = layer.node()
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in offered else None
        if node.stopping or Connections.of(node).closing:
            await socket.refuse(SHUTDOWN, subprotocol)
            return
        await socket.accept(subprotocol)
        session = ClientSession(layer, socket, identity, self, carry_out)
        session.open()
        del socket, identity, offered
        try:
            while (event := await receive())["type"] != "websocket.disconnect":
                frame = event.get("text")
                await session.receive(frame if frame is not None else event.get("bytes") or b"")
                del event, frame
        finally:
            await session.end()


class WebSocket:
    """The server's send(), as a session's transport."""

    __slots__ = ("_send",)

    def __init__(self, send: Send) -> None:
        self._send = send

    async def accept(self, subprotocol: str | None) -> None:
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol})

    def send(self, text: str) -> Awaitable[None]:
        return self._send({"type": "websocket.send", "text": text})

    async def close(self, disconnect: Disconnect) -> None:
        """Send the close frame; a client that does not read it loses the socket all the same, if the server lets us."""
        try:
            async with asyncio.timeout(CLOSE_WITHIN):
                await self._send({"type": "websocket.close", "code": disconnect.code, "reason": disconnect.reason})
        except TimeoutError:
            abort(self._send)
        except Exception as error:
            # Servers differ in what they raise for a socket that is gone already.
            logger.debug("Closing failed: %r", error)
        else:
            # A close frame behind a full send buffer would keep the socket for ever.
            asyncio.get_running_loop().call_later(ABORT_AFTER, abort, self._send)

    async def refuse(self, disconnect: Disconnect, subprotocol: str | None) -> None:
        """Complete the handshake only to say why not: a client cannot read the code of a refused one."""
        await self.accept(subprotocol)
        if subprotocol != PROTOBUF:
            await self.send(disconnect_push(disconnect).decode())
        await self.close(disconnect)


def innermost(send: Send) -> Send:
    """The server's own send() behind Channels' session middleware, which looks at the session for every message.

    This consumer never changes the session.
    """
    while (real := getattr(getattr(send, "__self__", None), "real_send", None)) is not None:
        send = real
    return send


def abort(send: Any) -> bool:
    """Cut the socket behind a server's send() where it can be reached: uvicorn's, and daphne's. False if it cannot.

    uvicorn waits for a blocked socket for ever, and ASGI has no word for giving up.
    """
    owner = send.args[0] if isinstance(send, functools.partial) and send.args else getattr(send, "__self__", None)
    transport = getattr(owner, "transport", None)
    for name in ("abort", "abortConnection"):
        cut = getattr(transport, name, None)
        if cut is not None:
            cut()
            return True
    return False
