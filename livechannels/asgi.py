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

from .auth.origins import Application, OriginCheck, Receive, Scope, Send
from .conf import settings
from .exceptions import ConfigurationError
from .layer import live_layer

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
    """Starts this process's node with the server and ends it in time."""

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


class FirstRequest:
    """Starts the node where no lifespan does (daphne), so that sources with `always` run before anyone connects."""

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            live_layer(settings.LAYER).node()
        except ConfigurationError as error:
            logger.error("Live channels are not available: %s", error)
        await self.application(scope, receive, send)


def live_application(*, http: Application, websocket: Sequence[Any] = ()) -> ProtocolTypeRouter:
    """Route by protocol: `http` as it is, `websocket` (a list of path() entries) behind origin check and session auth.

    Consumers find the user in scope["user"]. Pages of foreign origins are refused with 403 (see
    `livechannels.origins`); unknown paths too. The server's lifespan starts and ends the node; where it has none
    (daphne) the first request starts it, and the signal that stops the process ends it.
    """
    routes = NotFound(URLRouter(list(websocket)))
    return ProtocolTypeRouter(
        {
            "http": FirstRequest(http),
            "websocket": OriginCheck(CookieMiddleware(SessionMiddleware(SessionAuth(routes)))),
            "lifespan": Lifespan(),
        }
    )
