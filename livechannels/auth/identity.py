"""Who is behind a connection, and whether they still may be: the Django session, looked at again from time to time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from datetime import datetime
from importlib import import_module
from typing import Any

from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.contrib.sessions.backends.base import SessionBase
from django.db.models import Model
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from .expiries import Expiries


def session_hash(session_key: str) -> str:
    """How nodes name a session to each other: the key itself would let its reader sign in."""
    return hashlib.sha256(session_key.encode()).hexdigest()


class Identity:
    """A user and the session that vouches for them; all that a connection keeps of its ASGI scope.

    `user_id` is the primary key as text, "" for an anonymous user. `expires_at` is seconds since the Unix
    epoch, None if the session's end is not known beforehand (`reload` then finds it afterwards).
    """

    __slots__ = ("_session_key", "expires_at", "session_hash", "user", "user_id")

    def __init__(self, user: Any, session_key: str | None = None) -> None:
        self.user = user
        self.user_id = str(user.pk) if user is not None and user.is_authenticated else ""
        self._session_key = session_key if self.user_id else None
        self.session_hash = session_hash(self._session_key) if self._session_key else None
        self.expires_at: float | None = None

    def __repr__(self) -> str:
        return f"<Identity user={self.user_id!r}>"

    @classmethod
    def from_scope(cls, scope: Mapping[str, Any]) -> Identity:
        """The user and session that Channels' auth middleware, or the project's own, put into the scope."""
        user = scope.get("user")
        if user is None:
            from django.contrib.auth.models import AnonymousUser

            user = AnonymousUser()
        # The lazy wrapper would keep the middleware's scope alive.
        return cls(getattr(user, "_wrapped", user), getattr(scope.get("session"), "session_key", None))

    async def load_expiry(self) -> None:
        """Learn `expires_at`."""
        if self._session_key is None:
            return
        session = _open_session(self._session_key)
        if hasattr(session, "get_model_class"):
            ends = await Expiries.here().expiry(self._session_key, database_sync_to_async(_expiries))
            self.expires_at = timezone.now().timestamp() if ends is None else ends
        else:
            self.expires_at = await database_sync_to_async(_expiry)(session)

    async def reload(self) -> bool:
        """Fetch the user anew. False if the sign-in has ended: logout, expiry, deletion, deactivation, new password."""
        if not self.user_id or (self._session_key is None and not isinstance(self.user, Model)):
            return True
        user, self.expires_at = await database_sync_to_async(self._reload)()
        if user is None or str(user.pk) != self.user_id:
            return False
        if self.expires_at is not None and self.expires_at <= time.time():
            return False  # some session backends open a session after its date
        self.user = user
        return True

    def _reload(self) -> tuple[Any, float | None]:
        if self._session_key is not None:
            session = _open_session(self._session_key)
            return _signed_in(session), _expiry(session)
        # Signed in by a middleware of the project's own, without a session.
        user = type(self.user)._default_manager.filter(pk=self.user.pk).first()
        return (user if getattr(user, "is_active", user is not None) else None), None


def _session_store() -> type[SessionBase]:
    store: type[SessionBase] = import_module(settings.SESSION_ENGINE).SessionStore
    return store


def _open_session(session_key: str) -> SessionBase:
    return _session_store()(session_key)


def _signed_in(session: SessionBase) -> Any:
    """The user this session belongs to, or None. Unlike auth.get_user() it changes nothing in the session."""
    try:
        user_id = get_user_model()._meta.pk.to_python(session[SESSION_KEY])
        backend_path = session[BACKEND_SESSION_KEY]
    except KeyError:
        return None
    if backend_path not in settings.AUTHENTICATION_BACKENDS:
        return None
    user = load_backend(backend_path).get_user(user_id)
    if user is not None and hasattr(user, "get_session_auth_hash"):
        known = session.get(HASH_SESSION_KEY) or ""
        valid = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
        if not any(constant_time_compare(known, one) for one in valid):
            return None
    return user


def _expiries(session_keys: list[str]) -> dict[str, float]:
    """Of sessions kept by a model."""
    store: Any = _session_store()
    found = store.get_model_class().objects.filter(session_key__in=session_keys)
    return {key: ends.timestamp() for key, ends in found.values_list("session_key", "expire_date")}


def _expiry(session: SessionBase) -> float | None:
    if hasattr(session, "get_model_class"):
        return _expiries([str(session.session_key)]).get(str(session.session_key), timezone.now().timestamp())
    stated = session.get("_session_expiry")
    return datetime.fromisoformat(stated).timestamp() if isinstance(stated, str) else None
