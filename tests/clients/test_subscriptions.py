from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from livechannels.clients import subscriptions as memberships
from livechannels.exceptions import EngineUnavailable
from livechannels.layer import LiveChannelLayer
from livechannels.testing import live_test_layer
from tests.browsers import Browser, User
from tests.clients.test_session import configured


@pytest.fixture
async def layer() -> AsyncIterator[LiveChannelLayer]:
    with configured(), live_test_layer() as layer:
        yield layer
        await layer.node().close()


@pytest.fixture
async def browser(layer: LiveChannelLayer) -> AsyncIterator[Browser]:
    browser = Browser(layer, User(1))
    await browser.connect()
    yield browser
    await browser.gone()


class Gate:
    """Holds up the hub's subscribe once it is done, to get a look at what happens before the reply."""

    def __init__(self, layer: LiveChannelLayer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hub = layer.node().hub
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        self.subscribe = self.hub.subscribe
        monkeypatch.setattr(self.hub, "subscribe", self.held)

    async def held(self, *args: Any, **kwargs: Any) -> Any:
        found = await self.subscribe(*args, **kwargs)
        self.reached.set()
        await self.open.wait()
        return found


@pytest.fixture
async def gate(layer: LiveChannelLayer, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(layer, monkeypatch)


def away(*args: Any, **kwargs: Any) -> Any:
    raise EngineUnavailable


class TestWhileSubscribing:
    async def test_revoked(self, browser: Browser, gate: Gate) -> None:
        (number,) = await browser.say({"subscribe": {"channel": "quiet/a"}})
        await gate.reached.wait()
        browser.session.revoke("quiet/a")
        gate.open.set()
        assert "subscribe" in await browser.reply(number)
        assert (await browser.push("unsubscribe"))["unsubscribe"]["code"] == 2000
        assert gate.hub.counts() == {}

    async def test_continuity_lost(self, browser: Browser, gate: Gate) -> None:
        (number,) = await browser.say({"subscribe": {"channel": "quiet/a"}})
        await gate.reached.wait()
        gate.hub._live["quiet/a"]._dismiss_all("overflow")
        gate.open.set()
        assert "subscribe" in await browser.reply(number)
        assert (await browser.push("unsubscribe"))["unsubscribe"]["code"] == 2500

    async def test_socket_gone(self, browser: Browser, gate: Gate, layer: LiveChannelLayer) -> None:
        await browser.say({"subscribe": {"channel": "room/a"}})
        await gate.reached.wait()
        await browser.gone()
        assert gate.hub.counts() == {}
        assert await layer.presence("room/a") == {}


class TestStoreAway:
    async def test_subscribing_is_refused(self, browser: Browser, layer: LiveChannelLayer, monkeypatch: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(layer.node().hub, "subscribe", away)
            error = (await browser.ask("subscribe", channel="quiet/a"))["error"]
            assert (error["code"], error["temporary"]) == (100, True)
        await browser.subscribe("quiet/a")

    async def test_presence_is_behind(
        self, browser: Browser, layer: LiveChannelLayer, monkeypatch: Any, caplog: Any
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(layer, "presence_enter", away)
            await browser.subscribe("room/a")
        await layer.publish("room/a", 1)
        assert (await browser.push("pub"))["pub"]["data"] == 1
        with monkeypatch.context() as patch:
            patch.setattr(layer, "presence_leave", away)
            assert "unsubscribe" in await browser.ask("unsubscribe", channel="room/a")
            await browser.subscribe("room/a")
            await browser.gone()
        assert caplog.text.count("presence is behind") == 2

    async def test_presence_catches_up(self, browser: Browser, layer: LiveChannelLayer, monkeypatch: Any) -> None:
        monkeypatch.setattr(memberships, "PRESENCE_EVERY", 0.02)
        with monkeypatch.context() as patch:
            patch.setattr(layer, "presence_enter", away)
            patch.setattr(layer, "presence_refresh", away)
            await browser.subscribe("room/a")
            await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            while not await layer.presence("room/a"):
                await asyncio.sleep(0.005)


class TestCleanUp:
    async def test_coming_back_is_neither_leave_nor_join(self, browser: Browser, layer: LiveChannelLayer) -> None:
        await browser.subscribe("room/a")
        await browser.push("join")
        layer.node().hub._live["room/a"]._dismiss_all("restart")
        await browser.push("unsubscribe")
        assert list(await layer.presence("room/a")) == [browser.session.id]
        await browser.subscribe("room/a")
        await layer.publish("room/a", 1)
        await browser.push("pub")
        assert browser.messages == []

    async def test_not_coming_back_is_leaving(
        self, browser: Browser, layer: LiveChannelLayer, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(memberships, "BACK_WITHIN", 0.01)
        await browser.subscribe("room/a")
        layer.node().hub._live["room/a"]._dismiss_all("restart")
        await browser.push("unsubscribe")
        async with asyncio.timeout(10):
            while await layer.presence("room/a"):
                await asyncio.sleep(0.005)

    async def test_a_place_taken_again_is_kept(self, browser: Browser, layer: LiveChannelLayer) -> None:
        await browser.subscribe("room/a")
        browser.session.revoke("room/a")
        await browser.subscribe("room/a")
        assert list(await layer.presence("room/a")) == [browser.session.id]

    async def test_revoking_what_is_not_there(self, browser: Browser) -> None:
        browser.session.revoke("room/never")
        await browser.subscribe("quiet/a")
        assert browser.messages == []
