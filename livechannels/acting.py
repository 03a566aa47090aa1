"""Who is changing things in this request or block of code, so that notices can name them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.utils.functional import SimpleLazyObject

TAB_HEADER = "X-Live-Tab"
TAB_LENGTH = 64


class Actor(NamedTuple):
    """`user` is a user object or None; `tab` names the browser tab, so that it can skip its own notices."""

    user: Any = None
    tab: str | None = None
    message: str = ""


NOBODY = Actor()

_actor: ContextVar[Actor] = ContextVar("livechannels_actor", default=NOBODY)


def current_actor() -> Actor:
    """The innermost `acting_user` block, or NOBODY."""
    return _actor.get()


@contextmanager
def acting_user(user: Any, *, tab: str | None = None, message: str = "") -> Iterator[None]:
    """Within this block changes count as made by `user`, with `message` as the comment on them."""
    token = _actor.set(Actor(user, tab, message))
    try:
        yield
    finally:
        _actor.reset(token)


class ActingUserMiddleware:
    """Runs each request as `acting_user(request.user)`; place it after AuthenticationMiddleware.

    The tab is taken from the header X-Live-Tab. The user is only looked up if a notice is sent.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._respond(request)
        with self._acting(request):
            response: HttpResponseBase = self.get_response(request)
            return response

    async def _respond(self, request: HttpRequest) -> HttpResponseBase:
        with self._acting(request):
            response: HttpResponseBase = await self.get_response(request)
            return response

    @staticmethod
    def _acting(request: HttpRequest) -> Any:
        tab = request.headers.get(TAB_HEADER, "")[:TAB_LENGTH] or None
        return acting_user(SimpleLazyObject(lambda: getattr(request, "user", None)), tab=tab)
