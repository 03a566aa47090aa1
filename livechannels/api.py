"""Live channels from anywhere in a Django project: each function in a sync and an async (`a…`) form.

All of them raise UnknownChannel for a name no live_path() matches, InvalidChannelName for one that cannot
exist, and EngineUnavailable within two seconds when the store cannot be reached.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from channels.db import database_sync_to_async
from django.db import transaction
from django.utils.asyncio import async_unsafe

from . import registry
from .layer import History, live_layer
from .messages.codes import FORCE_NO_RECONNECT
from .messages.frames import Frame
from .messages.positions import Position
from .messages.publications import ClientInfo

logger = logging.getLogger(__name__)


def _in_async(name: str) -> str:
    return f"livechannels.{name}() waits for the store and would block the event loop: await a{name}() instead."


@async_unsafe(_in_async("publish"))
def publish(
    channel: str,
    data: Any,
    *,
    tags: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    on_commit: bool = False,
    using: str | None = None,
) -> Position | None:
    """Send `data` (JSON-able, or a Frame) to everyone on a live channel, on every node.

    Returns the publication's Position, or None if the channel keeps no history. A repeat with the same
    `idempotency_key` within five minutes stores nothing and returns the first position.

    on_commit: send when the transaction of the database `using` is committed, in the order of the calls, and
    return None; a rollback sends nothing. The data is encoded now. A failure is then logged, not raised,
    since the transaction can no longer be undone.

    Raises TypeError for data JSON cannot carry, PublishUnknown when the answer was lost on a channel without
    history. With EngineUnavailable, clients of this process have been served if it says `delivered_locally`.
    """
    tags = _tags(data, tags)
    if not on_commit:
        return live_layer().publish_sync(channel, data, tags=tags, idempotency_key=idempotency_key)
    registry.policy_for(channel)
    raw = data.to_json() if isinstance(data, Frame) else msgspec.json.encode(data)

    def send() -> None:
        try:
            live_layer().publish_sync(channel, None, raw=raw, tags=tags, idempotency_key=idempotency_key)
        except Exception as error:  # whatever it is: the project's own hooks come after this one
            logger.error("A publication on %s was not sent after the commit: %s", channel, error)

    transaction.on_commit(send, using=using)
    return None


async def apublish(
    channel: str,
    data: Any,
    *,
    tags: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    on_commit: bool = False,
    using: str | None = None,
) -> Position | None:
    """`publish` for async code. The transaction of `on_commit` is that of Django's database thread."""
    if on_commit:
        return await database_sync_to_async(publish)(
            channel, data, tags=tags, idempotency_key=idempotency_key, on_commit=True, using=using
        )
    return await live_layer().publish(channel, data, tags=_tags(data, tags), idempotency_key=idempotency_key)


@async_unsafe(_in_async("history"))
def history(channel: str, *, since: Position | None = None, limit: int = -1, reverse: bool = False) -> History:
    """The kept publications and the position at the top.

    With `since`, those after it: all of them and `recovered` true, or none and `recovered` false. `limit` 0
    reads the position only, -1 everything; `reverse` starts with the newest, or with the one before `since`.
    """
    return live_layer().history_sync(channel, since=since, limit=limit, reverse=reverse)


async def ahistory(channel: str, *, since: Position | None = None, limit: int = -1, reverse: bool = False) -> History:
    """`history` for async code."""
    return await live_layer().history(channel, since=since, limit=limit, reverse=reverse)


@async_unsafe(_in_async("presence"))
def presence(channel: str) -> dict[str, ClientInfo]:
    """The clients on a channel by their id, on all nodes; empty unless the channel has `presence` on."""
    return live_layer().presence_sync(channel)


async def apresence(channel: str) -> dict[str, ClientInfo]:
    """`presence` for async code."""
    return await live_layer().presence(channel)


@async_unsafe(_in_async("disconnect"))
def disconnect(user: Any, *, code: int = FORCE_NO_RECONNECT.code, reason: str = FORCE_NO_RECONNECT.reason) -> None:
    """Close every connection of a user (object or primary key) on every node, at once.

    With the codes 3500 to 3999 and 4500 to 4999 the client stays away; with others it reconnects.

    At most once: a node that cannot be reached now ends the connections at its next look at their rights.
    """
    live_layer().broadcast_sync("disconnect", {"user": _user_id(user), "code": code, "reason": reason})


async def adisconnect(
    user: Any, *, code: int = FORCE_NO_RECONNECT.code, reason: str = FORCE_NO_RECONNECT.reason
) -> None:
    """`disconnect` for async code."""
    await live_layer().broadcast("disconnect", {"user": _user_id(user), "code": code, "reason": reason})


@async_unsafe(_in_async("unsubscribe"))
def unsubscribe(user: Any, channel: str) -> None:
    """Take a user's connections off a live channel on every node, at once (at most once, as `disconnect`)."""
    registry.policy_for(channel)
    live_layer().broadcast_sync("unsubscribe", {"user": _user_id(user), "channel": channel})


async def aunsubscribe(user: Any, channel: str) -> None:
    """`unsubscribe` for async code."""
    registry.policy_for(channel)
    await live_layer().broadcast("unsubscribe", {"user": _user_id(user), "channel": channel})


def _tags(data: Any, tags: Mapping[str, str] | None) -> dict[str, str] | None:
    """A frame's publication names its schema."""
    if isinstance(data, Frame):
        return {"schema": data.schema_id, **(tags or {})}
    return dict(tags) if tags else None


def _user_id(user: Any) -> str:
    """How connections name their user: the primary key as text."""
    key = getattr(user, "pk", user)
    if key is None or key == "":
        raise ValueError("disconnect() and unsubscribe() need a saved user or a primary key; this is nobody.")
    return str(key)
