"""live_application(): a project's whole ASGI application, with everything in front that live channels need.

application = live_application(http=get_asgi_application(), websocket=websocket_urlpatterns)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from channels.auth import AuthMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.sessions import CookieMiddleware, SessionMiddleware
from django.conf import settings as django_settings
from django.contrib.auth.models import AnonymousUser

from .conf import settings
from .layer import live_layer
from .origins import Application, OriginCheck, Receive, Scope, Send

logger = logging.getLogger(__name__)


class SessionAuth(AuthMiddleware):
    """AuthMiddleware that visits the database only for clients with a session; push agents have none."""

    async def resolve_scope(self, scope: Scope) -> None:
        if django_settings.SESSION_COOKIE_NAME in scope["cookies"]:
            await super().resolve_scope(scope)
        else:
            scope["user"]._wrapped = AnonymousUser()


class NotFound:
    """Refuses the WebSocket handshake of a path nobody serves, where URLRouter would log a traceback."""

    def __init__(self, router: URLRouter) -> None:
        self.router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", "")).lstrip("/")
        if any(_matches(route, path) for route in self.router.routes):
            await self.router(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})


def _matches(route: Any, path: str) -> bool:
    return route.pattern.match(path) is not None


class Lifespan:
    """Starts this process's node with the server and ends it in time. daphne has no lifespan; there the first
    connection starts the node, and a signal ends it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            node = live_layer(settings.LAYER).node()
        except Exception as error:
            logger.exception("livechannels could not start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await node.close()
        await send({"type": "lifespan.shutdown.complete"})


def live_application(*, http: Application, websocket: Sequence[Any] = ()) -> ProtocolTypeRouter:
    """Route by protocol: `http` as it is, `websocket` (a list of path() entries) behind origin check and session auth.

    Consumers find the user in scope["user"]. Pages of foreign origins are refused with 403 (see
    `livechannels.origins`); unknown paths too. The server's lifespan, where it has one, starts and ends the node.
    """
    routes = NotFound(URLRouter(list(websocket)))
    return ProtocolTypeRouter(
        {
            "http": http,
            "websocket": OriginCheck(CookieMiddleware(SessionMiddleware(SessionAuth(routes)))),
            "lifespan": Lifespan(),
        }
    )
