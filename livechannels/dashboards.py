"""Notices about a model's objects to everyone looking at them: saved, deleted, being edited.

    live_path("dashboard/<int:pk>", DashboardChannel.for_model(Dashboard))

From then on every committed save and delete of a Dashboard, from the ORM, the admin or any sync code, is
announced on its channel, and the viewers' browsers may announce that editing started or finished:

    {"action": "saved", "uid": "7", "version": 12, "user": "ann", "message": "", "tab": "1f0c…"}

`queryset.update()` and the bulk methods send no signals in Django; call `notify_saved` after them.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import reduce
from typing import Any, ClassVar, NamedTuple, Self

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from channels.db import database_sync_to_async
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Model
from django.db.models.signals import post_delete, post_save
from django.http import HttpRequest, HttpResponseBase
from django.utils.functional import SimpleLazyObject

from . import api, registry
from .channels import Allowed, LiveChannel
from .exceptions import ConfigurationError, LiveChannelsError, UnknownChannel

__all__ = ["ActingUserMiddleware", "DashboardChannel", "acting_user", "notify_deleted", "notify_saved"]

logger = logging.getLogger(__name__)

TAB_HEADER = "X-Live-Tab"
TAB_LENGTH = 64
FROM_CLIENTS = ("editing-started", "editing-finished")
MESSAGE_LENGTH = 500

_declared: defaultdict[type[Model], list[type[DashboardChannel]]] = defaultdict(list)


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


class DashboardChannel(LiveChannel):
    """The channel of one object of a model. Made by `for_model`; subclass it first to change the rules.

    Each parameter of the live_path is a field of the model (`pk`, `slug`, also `team__slug`), and the last
    one is the object's `uid` in events. Presence, join and leave are on, and the events of the last ten
    minutes are kept for who reconnects.
    """

    presence = True
    join_leave = True
    history_size = 50
    history_ttl = 600

    model: ClassVar[type[Model]]
    view_permission: ClassVar[str]
    change_permission: ClassVar[str]
    version_field: ClassVar[str | None] = None

    @classmethod
    def for_model(
        cls,
        model: type[Model],
        *,
        version_field: str | None = None,
        view_permission: str | None = None,
        change_permission: str | None = None,
    ) -> type[Self]:
        """The channel class for a model, with its notices switched on.

        version_field: the field that tells two states of an object apart; by default `version` if the model
        has it, else events carry the time in milliseconds. Datetimes are sent as milliseconds too.
        view_permission, change_permission: by default Django's own, `app.view_model` and `app.change_model`.
        """
        options = model._meta
        declared = type(
            f"{model.__name__}{cls.__name__}",
            (cls,),
            {
                "__module__": model.__module__,
                "model": model,
                "version_field": version_field or ("version" if _has_field(model, "version") else None),
                "view_permission": view_permission or f"{options.app_label}.view_{options.model_name}",
                "change_permission": change_permission or f"{options.app_label}.change_{options.model_name}",
            },
        )
        _declared[model].append(declared)
        post_save.connect(_on_saved, dispatch_uid="livechannels.dashboards")
        post_delete.connect(_on_deleted, dispatch_uid="livechannels.dashboards")
        return declared

    @property
    def uid(self) -> str:
        """The last parameter of the channel's name."""
        return str(list(self.kwargs.values())[-1]) if self.kwargs else self.channel

    def get_object(self) -> Model | None:
        """The object this channel is about, or None if it does not exist (any more)."""
        return self.model._default_manager.filter(**self.kwargs).first()

    def has_permission(self, user: Any, permission: str) -> bool:
        """Whether the user holds a permission on the model, or on this object by an object-level backend."""
        if user is None or not user.is_active:
            return False
        if user.has_perm(permission):
            return True
        found = self.get_object()
        return found is not None and user.has_perm(permission, found)

    def can_subscribe(self, user: Any) -> Allowed:
        """Who may view the object; as in the admin, the change permission includes it."""
        return self.has_permission(user, self.view_permission) or self.has_permission(user, self.change_permission)

    def can_publish(self, user: Any, data: Any) -> Allowed:
        """Editors may say that editing of exactly this object started or finished, and nothing else."""
        return (
            isinstance(data, dict)
            and data.get("action") in FROM_CLIENTS
            and str(data.get("uid")) == self.uid
            and self.has_permission(user, self.change_permission)
        )

    async def on_publish(self, user: Any, data: Any) -> Any:
        """The event in its full form; user and version are the server's word, not the client's."""
        tab = data.get("tab")
        message = data.get("message")
        return {
            "action": data["action"],
            "uid": self.uid,
            "version": await database_sync_to_async(self._current_version)(),
            "user": self.user_name(user),
            "message": message[:MESSAGE_LENGTH] if isinstance(message, str) else "",
            "tab": tab[:TAB_LENGTH] if isinstance(tab, str) else None,
        }

    @classmethod
    def user_name(cls, user: Any) -> str | None:
        """How events name a user: by the username; None for nobody in particular."""
        return str(user.get_username()) if getattr(user, "is_authenticated", False) else None

    @classmethod
    def version_of(cls, instance: Model) -> int | str:
        """What tells this state of the object from others."""
        value = getattr(instance, cls.version_field) if cls.version_field else None
        if hasattr(value, "resolve_expression"):
            # After save() with F("version") + 1 only the database knows the number.
            stored = type(instance)._base_manager.filter(pk=instance.pk)
            value = stored.values_list(str(cls.version_field), flat=True).first()
        return _plain_version(value)

    def _current_version(self) -> int | str:
        if not self.version_field:
            return _plain_version(None)
        found = self.model._default_manager.filter(**self.kwargs)
        return _plain_version(found.values_list(self.version_field, flat=True).first())

    @classmethod
    def of(cls, instance: Model) -> Self:
        """The channel of this object. Raises UnknownChannel if no live_path() names this class."""
        path = registry.path_of(cls)
        try:
            kwargs = {name: reduce(getattr, name.split("__"), instance) for name in path.parameters}
        except AttributeError as error:
            raise ConfigurationError(f"{path!r}: each parameter must be a field of the model: {error}.") from None
        return cls(path.reverse(kwargs), kwargs)


def notify_saved(
    instance: Model, *, user: Any = None, message: str = "", tab: str | None = None, using: str | None = None
) -> None:
    """Announce once the transaction is committed that `instance` was saved, where no signal says so.

    For `queryset.update()`, bulk methods and changes made outside the ORM; save() announces itself. What is
    not given is taken from `acting_user`. Never raises because of the announcement: a failure is logged.
    """
    _notify("saved", instance, _channels_of(type(instance)), user, message, tab, using)


def notify_deleted(
    instance: Model, *, user: Any = None, message: str = "", tab: str | None = None, using: str | None = None
) -> None:
    """The same for a deletion; `instance` still has its primary key."""
    _notify("deleted", instance, _channels_of(type(instance)), user, message, tab, using)


def declared_channels() -> list[type[DashboardChannel]]:
    """Every class made by `for_model` so far."""
    return [channel for channels in _declared.values() for channel in channels]


def _on_saved(sender: type[Model], instance: Model, raw: bool, using: str, **_: Any) -> None:
    if not raw:  # a fixture is being loaded
        _notify("saved", instance, _channels_of(sender), using=using)


def _on_deleted(sender: type[Model], instance: Model, using: str, **_: Any) -> None:
    # Deleting a child of multi-table inheritance sends one signal for each of its parents too.
    concrete = sender._meta.concrete_model
    channels = [channel for channel in _channels_of(sender) if channel.model._meta.concrete_model is concrete]
    _notify("deleted", instance, channels, using=using)


def _channels_of(model: type[Model]) -> list[type[DashboardChannel]]:
    """The channels declared for the model or, for proxies and children, for a model it derives from."""
    return [channel for parent in model.__mro__ if parent in _declared for channel in _declared[parent]]


def _notify(
    action: str,
    instance: Model,
    channels: list[type[DashboardChannel]],
    user: Any = None,
    message: str = "",
    tab: str | None = None,
    using: str | None = None,
) -> None:
    actor = current_actor()
    for channel_class in channels:
        try:
            live = channel_class.of(instance)
            event = {
                "action": action,
                "uid": live.uid,
                "version": channel_class.version_of(instance),
                "user": channel_class.user_name(user or actor.user),
                "message": message or actor.message,
                "tab": tab or actor.tab,
            }
            api.publish(live.channel, event, on_commit=True, using=using)
        except UnknownChannel as error:
            logger.debug("%s of %s is not announced: %s", action, instance._meta.label, error)
        except LiveChannelsError as error:
            logger.error("%s of %s is not announced: %s", action, instance._meta.label, error)


def _has_field(model: type[Model], name: str) -> bool:
    try:
        model._meta.get_field(name)
    except FieldDoesNotExist:
        return False
    return True


def _plain_version(value: Any) -> int | str:
    if value is None:
        return int(time.time() * 1000)
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000)
    return value if isinstance(value, (int, str)) else str(value)
