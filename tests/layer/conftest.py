"""Layers under test: over memory and over a real server, each closed at the end of its test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from livechannels.layer import LiveChannelLayer
from livechannels.messages.policy import Policy

MakeLayer = Callable[..., LiveChannelLayer]
PATIENCE = 10


async def receive(layer: Any, channel: str, timeout: float = PATIENCE) -> dict[str, Any]:
    """The next message, or a failure that says which channel stayed silent."""
    try:
        return await asyncio.wait_for(layer.receive(channel), timeout)
    except TimeoutError:
        raise AssertionError(f"nothing arrived on {channel} within {timeout} s") from None


async def receive_all(layer: Any, channel: str, count: int) -> list[dict[str, Any]]:
    return [await receive(layer, channel) for _ in range(count)]


async def unread(layer: Any, channel: str) -> list[dict[str, Any]]:
    """Everything that was sent to a channel of this process before: reads up to a marker sent after it.

    A message to a group goes the long way through the store, one to a channel of this process does not; so
    first a message to a group of our own has to come back.
    """
    probe = await layer.new_channel()
    await layer.group_add("probe", probe)
    await layer.group_send("probe", {"type": "probe"})
    await receive(layer, probe)
    await layer.group_discard("probe", probe)
    marker = {"type": "marker"}
    await layer.send(channel, marker)
    found = []
    while (message := await receive(layer, channel)) != marker:
        found.append(message)
    return found


async def eventually(condition: Any, what: str, timeout: float = PATIENCE) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} not within {timeout} s"
        await asyncio.sleep(0.02)
    return value


POLICIES = {
    "stream": Policy(history_size=100, history_ttl=60),
    "short": Policy(history_size=3, history_ttl=60),
    "cache": Policy(history_size=1, history_ttl=60, recovery="cache"),
    "room": Policy(presence=True, join_leave=True),
    "fleeting": Policy(),
    "private": Policy(history_size=10, history_ttl=60, scope="node"),
}


def policy_for(channel: str) -> Policy:
    """Channels are named after the policy they have: "stream/anything"."""
    return POLICIES[channel.partition("/")[0]]


@pytest.fixture(autouse=True)
def declared_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveChannelLayer, "policies", staticmethod(policy_for))


@pytest.fixture(params=["memory", "redis"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def make_layer(request: pytest.FixtureRequest, engine: str, prefix: str) -> AsyncIterator[MakeLayer]:
    """Makes layers of one cluster; with Redis each is what another process would have."""
    made: list[LiveChannelLayer] = []
    where: dict[str, Any] = {"ha_engine": "memory"}
    if engine == "redis":
        where = {"hosts": [request.getfixturevalue("redis_url")]}

    def make(**config: Any) -> LiveChannelLayer:
        made.append(LiveChannelLayer(**{**where, "prefix": prefix, **config}))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


@pytest.fixture
def layer(make_layer: MakeLayer) -> LiveChannelLayer:
    return make_layer()


@pytest.fixture
async def redis_layers(redis_url: str, prefix: str) -> AsyncIterator[MakeLayer]:
    """Makes layers over Redis only, for what memory cannot have: several processes, broken connections."""
    made: list[LiveChannelLayer] = []

    def make(**config: Any) -> LiveChannelLayer:
        made.append(LiveChannelLayer(**{"hosts": [redis_url], "prefix": prefix, **config}))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()
