"""The classes behind live channels: what a channel keeps, and who may do what on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any, ClassVar, Literal

from asgiref.sync import iscoroutinefunction
from channels.db import database_sync_to_async
from django.core.exceptions import PermissionDenied

from .messages.policy import Policy

Action = Literal["subscribe", "publish", "presence", "history"]
Allowed = bool | Awaitable[bool]

_METHODS: Mapping[Action, str] = {
    "subscribe": "can_subscribe",
    "publish": "can_publish",
    "presence": "can_see_presence",
    "history": "can_see_history",
}


class LiveChannel:
    """A kind of live channel; subclass it and name the subclass in a `live_path()`.

    The class attributes say what the layer keeps for such a channel (see `Policy`). An instance stands for
    one channel while a question about it is answered: `channel` is its name, `kwargs` what the pattern found.

    The `can_…` methods may be sync (they run in Django's database thread) or async. They return true to
    allow; django.core.exceptions.PermissionDenied counts as a no.
    """

    presence: ClassVar[bool] = False
    join_leave: ClassVar[bool] = False
    history_size: ClassVar[int] = 0
    history_ttl: ClassVar[float] = 0
    recovery: ClassVar[Literal["stream", "cache"]] = "stream"
    scope: ClassVar[Literal["cluster", "node"]] = "cluster"
    durability: ClassVar[Literal["ack", "replicated"]] = "ack"
    coalesce: ClassVar[bool] = False

    def __init__(self, channel: str, kwargs: Mapping[str, Any] | None = None) -> None:
        self.channel = channel
        self.kwargs = dict(kwargs or {})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.channel}>"

    def can_subscribe(self, user: Any) -> Allowed:
        """Who receives publications. By default anyone who is signed in."""
        return bool(user is not None and user.is_authenticated)

    def can_publish(self, user: Any, data: Any) -> Allowed:
        """Who may publish `data` from a client. By default nobody; the server always may."""
        return False

    def can_see_presence(self, user: Any) -> Allowed:
        """Who may ask for the clients on the channel. By default who may subscribe."""
        return self.allows("subscribe", user)

    def can_see_history(self, user: Any) -> Allowed:
        """Who may read the kept publications. By default who may subscribe."""
        return self.allows("subscribe", user)

    async def on_publish(self, user: Any, data: Any) -> Any:
        """What is published in place of the `data` a client sent (after `can_publish` allowed it)."""
        return data

    async def allows(self, action: Action, user: Any, data: Any = None) -> bool:
        """Whether `user` may do `action`, by the matching `can_…` method. Its errors pass through."""
        method: Callable[..., Allowed] = getattr(self, _METHODS[action])
        args = (user, data) if action == "publish" else (user,)
        try:
            if iscoroutinefunction(method) or _is_default(type(self), _METHODS[action]):
                answer = method(*args)
            else:
                answer = await database_sync_to_async(method)(*args)
            return bool(await answer if isawaitable(answer) else answer)
        except PermissionDenied:
            return False

    @classmethod
    def policy(cls) -> Policy:
        """The class attributes as the value the layer works with."""
        return Policy(
            history_size=cls.history_size,
            history_ttl=cls.history_ttl,
            presence=cls.presence,
            join_leave=cls.join_leave,
            recovery=cls.recovery,
            scope=cls.scope,
            durability=cls.durability,
            coalesce=cls.coalesce,
        )


def _is_default(channel_class: type[LiveChannel], name: str) -> bool:
    """LiveChannel's own answers do no I/O, so they need no thread."""
    return getattr(channel_class, name) is getattr(LiveChannel, name)


class ManagedStream(LiveChannel):
    """A stream filled from outside, by pushes or `publish()`; keeps five minutes, at most 300 publications."""

    history_size = 300
    history_ttl = 300


class BroadcastChannel(LiveChannel):
    """An announcement to everyone signed in; its newest message is kept for 30 days for those who come later.

    A page gets it by subscribing with a position: newSubscription(name, {since: {offset: 0, epoch: ""}}).
    """

    history_size = 1
    history_ttl = 30 * 86400
    recovery = "cache"
