from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model, login, logout
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends import cache, db, signed_cookies
from django.test import RequestFactory, override_settings
from django.utils import timezone

from livechannels.auth.identity import Identity, session_hash

pytestmark = pytest.mark.django_db(transaction=True)

ENGINES = [
    "django.contrib.sessions.backends.db",
    "django.contrib.sessions.backends.cached_db",
    "django.contrib.sessions.backends.cache",
]


class Browser:
    """A signed-in user's session."""

    def __init__(self, store: Any = db.SessionStore) -> None:
        self.user = get_user_model().objects.create_user(f"user{time.monotonic_ns()}", password="old")
        self.request = RequestFactory().get("/")
        self.request.session = store()
        login(self.request, self.user, backend="django.contrib.auth.backends.ModelBackend")
        self.request.session.save()

    @property
    def identity(self) -> Identity:
        return Identity.from_scope({"user": self.user, "session": self.request.session})


@pytest.fixture
def browser() -> Browser:
    return Browser()


async def test_anonymous() -> None:
    for scope in ({}, {"user": AnonymousUser(), "session": db.SessionStore("x")}):
        identity = Identity.from_scope(scope)
        assert (identity.user_id, identity.session_hash, identity.expires_at) == ("", None, None)
        await identity.load_expiry()
        assert await identity.reload()


async def test_the_session_is_named_without_its_key(browser: Browser) -> None:
    identity = browser.identity
    key = browser.request.session.session_key
    assert identity.user_id == str(browser.user.pk)
    assert identity.session_hash == session_hash(key)
    assert key not in repr(identity) + str(identity.session_hash)


@pytest.mark.parametrize("engine", ENGINES)
class TestSignInEnds:
    @pytest.fixture
    def browser(self, engine: str) -> Any:
        from importlib import import_module

        with override_settings(SESSION_ENGINE=engine):
            yield Browser(import_module(engine).SessionStore)

    async def test_not_by_itself(self, browser: Browser) -> None:
        identity = browser.identity
        assert await identity.reload()
        assert identity.user == browser.user and identity.user is not browser.user

    async def test_logout(self, browser: Browser) -> None:
        from asgiref.sync import sync_to_async

        identity = browser.identity
        await sync_to_async(logout)(browser.request)
        assert not await identity.reload()

    async def test_deactivation(self, browser: Browser) -> None:
        await get_user_model().objects.filter(pk=browser.user.pk).aupdate(is_active=False)
        assert not await browser.identity.reload()

    async def test_deletion(self, browser: Browser) -> None:
        identity = browser.identity
        await get_user_model().objects.filter(pk=browser.user.pk).adelete()
        assert not await identity.reload()

    async def test_new_password(self, browser: Browser) -> None:
        user = await get_user_model().objects.aget(pk=browser.user.pk)
        user.set_password("new")
        await user.asave()
        assert not await browser.identity.reload()

    async def test_removed_backend(self, browser: Browser) -> None:
        with override_settings(AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.RemoteUserBackend"]):
            assert not await browser.identity.reload()


async def test_rotated_secret_key_ends_nothing(browser: Browser, settings: Any) -> None:
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new one"
    identity = browser.identity
    assert await identity.reload()
    assert await identity.reload(), "looking changes nothing in the session"


class TestExpiry:
    async def test_stored_date(self, browser: Browser) -> None:
        browser.request.session.set_expiry(100)
        await browser.request.session.asave()
        identity = browser.identity
        await identity.load_expiry()
        assert identity.expires_at is not None and 90 < identity.expires_at - time.time() <= 100

    async def test_expired_where_the_session_does_not_know(self, settings: Any) -> None:
        """A signed cookie is read whatever date stands in it."""
        settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
        browser = await sync_to_async(Browser)(signed_cookies.SessionStore)
        browser.request.session.set_expiry(timezone.now() + timedelta(seconds=100))
        browser.request.session.save()
        assert await browser.identity.reload()
        browser.request.session.set_expiry(timezone.now() - timedelta(seconds=1))
        browser.request.session.save()
        assert not await browser.identity.reload()

    async def test_expired(self, browser: Browser) -> None:
        browser.request.session.set_expiry(-1)
        await browser.request.session.asave()
        assert not await browser.identity.reload()

    async def test_removed_meanwhile(self, browser: Browser) -> None:
        identity = browser.identity
        await browser.request.session.adelete()
        await identity.load_expiry()
        assert identity.expires_at is not None and identity.expires_at <= time.time()

    async def test_unknown_to_a_cache(self) -> None:
        with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cache"):
            from asgiref.sync import sync_to_async

            identity = (await sync_to_async(Browser)(cache.SessionStore)).identity
            await identity.load_expiry()
            assert identity.expires_at is None

    async def test_signed_cookies(self) -> None:
        with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"):
            from asgiref.sync import sync_to_async

            browser = await sync_to_async(Browser)(signed_cookies.SessionStore)
            assert await browser.identity.reload()


async def test_a_user_without_a_session_is_looked_up_too(browser: Browser) -> None:
    identity = Identity.from_scope({"user": browser.user})
    assert await identity.reload()
    await get_user_model().objects.filter(pk=browser.user.pk).aupdate(is_active=False)
    assert not await identity.reload()


async def test_a_user_that_is_no_model_stays() -> None:
    class Robot:
        pk, is_authenticated = 7, True

    assert await Identity(Robot()).reload()
