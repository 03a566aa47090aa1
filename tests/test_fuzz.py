"""Whatever a client sends: no crash, no hang, no leak, and each command has one answer at most.

`FUZZ_FRAMES=100000` asks for as many frames as a soak run wants; every frame reaches a session that is open.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from livechannels.clients.centrifuge import Command
from livechannels.clients.connections import Connections
from livechannels.clients.session import ClientSession
from livechannels.layer import LiveChannelLayer
from livechannels.testing import live_test_layer
from tests.browsers import Browser
from tests.clients.test_session import configured

FRAMES = int(os.environ.get("FUZZ_FRAMES", "1500"))
PER_EXAMPLE = 15

channels = st.sampled_from(
    ["room/a", "room/b", "quiet/a", "plain/a", "news/a", "closed/a", "nowhere", "", "ü", "x" * 300]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "channel": channels, "data": values, "recover": st.booleans(), "epoch": st.sampled_from(["", "_", "x"]),
        "offset": st.integers(-1, 5), "flag": st.integers(0, 3), "limit": st.integers(-2, 400),
        "method": st.text(max_size=3),
        "since": st.fixed_dictionaries({"offset": st.integers(0, 5), "epoch": st.text(max_size=2)}),
        "reverse": st.booleans(), "type": st.integers(0, 1), "token": st.sampled_from(["", "t"]), "junk": values,
    },
)  # fmt: skip
methods = st.sampled_from([name for name in Command.__struct_fields__ if name not in ("id", "connect")])
good = st.builds(lambda method, request: {method: request}, methods, requests)
bad = st.one_of(
    st.text(max_size=20),
    values.map(json.dumps),
    st.dictionaries(st.text(max_size=8), values, max_size=2).map(json.dumps),
)
frame = st.one_of(
    st.lists(good, min_size=1, max_size=4), st.lists(good, min_size=1, max_size=4), bad, st.binary(max_size=20)
)
frames = st.lists(frame, min_size=PER_EXAMPLE, max_size=PER_EXAMPLE)


class Client:
    """A browser that connects anew when it was thrown out."""

    def __init__(self, layer: LiveChannelLayer) -> None:
        self.layer = layer
        self.numbers: list[int] = []
        self.browser: Browser | None = None

    async def say(self, frame: Any) -> None:
        if self.browser is not None and self.browser.session._closing:
            await self.leave()
        if self.browser is None:
            self.browser, self.numbers = Browser(self.layer), []
            await self.browser.connect()
        if isinstance(frame, list):
            self.numbers += await self.browser.say(*frame)
        else:
            await self.browser.session.receive(frame)
        await self.done(self.browser.session)

    @staticmethod
    async def done(session: ClientSession) -> None:
        async with asyncio.timeout(20):
            while session._worker is not None:
                await asyncio.wait([session._worker])

    async def leave(self) -> None:
        browser, self.browser = self.browser, None
        assert browser is not None
        await browser.gone()
        answered = [message["id"] for message in browser.messages if "id" in message]
        assert len(set(answered)) == len(answered)
        if browser.closed_with is None:
            assert answered == self.numbers, "each command has one answer, in order"


async def feed(inputs: list[Any]) -> None:
    with configured(), live_test_layer() as layer:
        client = Client(layer)
        for one in inputs:
            await client.say(one)
        await client.leave()
        node = layer.node()
        assert node.hub.counts() == {}
        assert len(Connections.of(node)) == 0
        for channel in ("room/a", "room/b"):
            assert await layer.presence(channel) == {}
        await node.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}


@settings(
    max_examples=-(-FRAMES // PER_EXAMPLE), deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(frames)
def any_frames(caplog: pytest.LogCaptureFixture, seen: list[int], inputs: list[Any]) -> None:
    caplog.clear()
    seen[0] += len(inputs)
    asyncio.run(feed(inputs))
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def sessions() -> int:
    gc.collect()
    # isinstance() would wake other tests' lazy objects.
    return sum(type(one) is ClientSession for one in gc.get_objects())


@pytest.mark.timeout(3600)
def test_any_frames(caplog: pytest.LogCaptureFixture) -> None:
    seen, before = [0], sessions()
    any_frames(caplog, seen)
    assert seen[0] >= FRAMES
    assert sessions() <= before, "sessions that nobody has"
