from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_out
from django.http import HttpRequest
from django.test import AsyncClient, Client

from livechannels.auth.identity import session_hash
from livechannels.exceptions import EngineUnavailable
from livechannels.layer import LiveChannelLayer
from livechannels.testing import live_test_layer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def serving() -> AsyncIterator[LiveChannelLayer]:
    with live_test_layer() as layer:
        layer.node()
        yield layer
        await layer.close()


async def test_a_logout_ends_the_connections_of_that_session_alone(serving: LiveChannelLayer) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    serving.node().on_control("disconnect", heard.put_nowait)
    ann = await User.objects.acreate(username="ann")
    client = AsyncClient()
    await client.aforce_login(ann)
    key = (await client.asession()).session_key
    assert key is not None
    await client.alogout()
    async with asyncio.timeout(10):
        said = await heard.get()
    assert (said["session"], said["code"]) == (session_hash(key), 3503)
    assert key not in str(said)


def test_a_logout_without_a_session_says_nothing() -> None:
    with live_test_layer() as layer:
        layer.broadcast_sync = None  # type: ignore[assignment, method-assign]
        user_logged_out.send(User, request=None, user=None)
        user_logged_out.send(User, request=HttpRequest(), user=None)


def test_a_logout_succeeds_while_the_store_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*args: Any) -> None:
        raise EngineUnavailable("Redis is away")

    client = Client()
    client.force_login(User.objects.create(username="ann"))
    with live_test_layer() as layer, caplog.at_level(logging.WARNING, "livechannels"):
        monkeypatch.setattr(layer, "broadcast_sync", away)
        client.logout()
        assert "_auth_user_id" not in client.session
    assert "are closed later: Redis is away" in caplog.text
