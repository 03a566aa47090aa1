"""Functions that browsers call: `@rpc("name")` for calls with an answer, `@on_message` for messages without one.

    @rpc("rename")
    def rename(user, data):
        return {"name": ...}

Handlers may be sync (they run in Django's database thread) or async, and are registered by being imported,
for instance from an app's ready(). What they return must be JSON-able.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from inspect import isawaitable
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction
from channels.db import database_sync_to_async
from django.core.exceptions import PermissionDenied

from .exceptions import LiveChannelsError
from .messages.codes import INTERNAL, METHOD_NOT_FOUND, NOT_AVAILABLE, PERMISSION_DENIED, CommandFailed, Error

logger = logging.getLogger(__name__)

Handler = Callable[[Any, Any], Any]
AnyHandler = TypeVar("AnyHandler", bound=Handler)

TIME_LIMIT = 30.0

_handlers: dict[str, Handler] = {}
_message_handlers: list[Handler] = []


class RPCError(LiveChannelsError):
    """The call was refused."""

    def __init__(self, code: int, message: str, *, temporary: bool = False) -> None:
        """What the caller is told. Codes below 400 belong to the protocol: choose one from 400 to 1999."""
        super().__init__(message)
        self.code = code
        self.temporary = temporary


def rpc(name: str) -> Callable[[AnyHandler], AnyHandler]:
    """Make `handler(user, data)` callable under this name; what it returns is the answer.

    PermissionDenied answers with error 103, RPCError with its own code, TimeoutError and everything else
    with the temporary error 100 (and a record in the log). A call may take 30 seconds.
    """
    if not isinstance(name, str) or not name:
        raise TypeError('@rpc needs the name of the method: @rpc("name")')

    def register(handler: AnyHandler) -> AnyHandler:
        _handlers[name] = handler
        return handler

    return register


def on_message(handler: AnyHandler) -> AnyHandler:
    """Have `handler(user, data)` called for each message a client sends outside any channel."""
    _message_handlers.append(handler)
    return handler


async def call(name: str, user: Any, data: Any) -> Any:
    """Run the handler of this name. Raises CommandFailed."""
    handler = _handlers.get(name)
    if handler is None:
        raise CommandFailed(METHOD_NOT_FOUND if _handlers else NOT_AVAILABLE)
    try:
        async with asyncio.timeout(TIME_LIMIT):
            return await _run(handler, user, data)
    except RPCError as error:
        raise CommandFailed(Error(error.code, str(error), error.temporary)) from None
    except PermissionDenied:
        raise CommandFailed(PERMISSION_DENIED) from None
    except Exception:
        logger.exception("rpc %r failed", name)
        raise CommandFailed(INTERNAL) from None


async def message(user: Any, data: Any) -> bool:
    """Give a client's message to the handlers; False if there is none."""
    for handler in _message_handlers:
        try:
            async with asyncio.timeout(TIME_LIMIT):
                await _run(handler, user, data)
        except Exception:
            logger.exception("The message handler %s failed", getattr(handler, "__qualname__", handler))
    return bool(_message_handlers)


async def _run(handler: Handler, user: Any, data: Any) -> Any:
    if iscoroutinefunction(handler):
        return await handler(user, data)
    answer = await database_sync_to_async(handler)(user, data)
    return await answer if isawaitable(answer) else answer
