"""Which web pages may connect: browsers send cookies along from any page, so the page's origin has to be checked.

A host is allowed by name, port and scheme ignored. A request without Origin comes from no browser and is allowed;
`null` (sandboxed frames, local files) is not.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from typing import Any, TypeVar
from urllib.parse import urlsplit

from asgiref.sync import iscoroutinefunction
from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse

from ..conf import settings

logger = logging.getLogger(__name__)

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[Any]]
Application = Callable[..., Awaitable[Any]]
View = TypeVar("View", bound=Callable[..., Any])

LOCAL_HOSTS = ("localhost", ".localhost", "127.0.0.1", "[::1]")


def is_allowed(origin: str | None, hosts: Iterable[str]) -> bool:
    """Whether a page of this origin may connect.

    `hosts` are host names or origins, as in ALLOWED_HOSTS and CSRF_TRUSTED_ORIGINS: `.example.com` and
    `*.example.com` cover subdomains, `*` every host.
    """
    if origin is None:
        return True
    host = _host(origin) if "://" in origin else ""
    return bool(host) and any(_covers(pattern, host) for pattern in hosts)


def _host(text: str) -> str:
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        host = parts.hostname or ""
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError:
        return ""
    return f"[{host}]" if ":" in host else host.rstrip(".")


def _covers(pattern: str, host: str) -> bool:
    if pattern == "*":
        return True
    if "*" in pattern:
        pattern = pattern.rpartition("*")[2]
    name = _host(pattern).lower()
    return host == name.lstrip(".") or (name.startswith(".") and host.endswith(name))


def allowed_hosts() -> list[str]:
    """LIVECHANNELS["ALLOWED_ORIGINS"]; by default ALLOWED_HOSTS, CSRF_TRUSTED_ORIGINS and, with DEBUG, this machine."""
    if settings.ALLOWED_ORIGINS is not None:
        return list(settings.ALLOWED_ORIGINS)
    local = LOCAL_HOSTS if django_settings.DEBUG else ()
    return [*django_settings.ALLOWED_HOSTS, *django_settings.CSRF_TRUSTED_ORIGINS, *local]


class OriginCheck:
    """ASGI: refuse connections from foreign pages with 403, before the handshake."""

    def __init__(self, inner: Application) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origins = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"origin"]
        if len(origins) <= 1 and is_allowed(origins[0] if origins else None, allowed_hosts()):
            await self.inner(scope, receive, send)
            return
        logger.warning("%s", _refusal(origins))
        await receive()
        await send({"type": "websocket.close", "code": 1008})


def check_origin(view: View) -> View:
    """Decorator of a view (sync or async): 403 for requests from foreign pages."""

    def refuse(request: HttpRequest) -> HttpResponse | None:
        origin = request.headers.get("Origin")
        if is_allowed(origin, allowed_hosts()):
            return None
        logger.warning("%s", _refusal([origin or ""]))
        return HttpResponse("this origin is not allowed\n", status=403, content_type="text/plain; charset=utf-8")

    @wraps(view)
    async def checked_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return refuse(request) or await view(request, *args, **kwargs)

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return refuse(request) or view(request, *args, **kwargs)

    return checked_async if iscoroutinefunction(view) else checked  # type: ignore[return-value]


def _refusal(origins: list[str]) -> str:
    return (
        f"A connection from the origin {', '.join(origins)[:200]!r} was refused; if its host is yours, "
        'add it to LIVECHANNELS["ALLOWED_ORIGINS"] (by default ALLOWED_HOSTS and CSRF_TRUSTED_ORIGINS)'
    )
