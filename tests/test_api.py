from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from channels.exceptions import MessageTooLarge
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction

import livechannels
from livechannels import Frame, Position, api
from livechannels.exceptions import EngineUnavailable, InvalidChannelName, UnknownChannel
from livechannels.layer import LiveChannelLayer
from livechannels.messages.publications import ClientInfo
from livechannels.testing import live_test_layer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def layer() -> Iterator[LiveChannelLayer]:
    with live_test_layer() as layer:
        yield layer


@pytest.fixture
async def serving(layer: LiveChannelLayer) -> AsyncIterator[LiveChannelLayer]:
    layer.node()
    yield layer
    await layer.close()


def data_of(channel: str) -> list[Any]:
    return [publication.data for publication in api.history(channel).publications]


@pytest.mark.usefixtures("layer")
def test_publish_returns_the_position() -> None:
    first = livechannels.publish("open/a", {"n": 1}, tags={"k": "v"})
    second = livechannels.publish("open/a", {"n": 2})
    assert isinstance(first, Position)
    assert isinstance(second, Position)
    assert (first.offset, second) == (1, Position(first.epoch, 2))
    found = livechannels.history("open/a")
    assert [(one.offset, one.data, one.tags) for one in found.publications] == [
        (1, {"n": 1}, {"k": "v"}),
        (2, {"n": 2}, None),
    ]
    assert found.position == second


@pytest.mark.usefixtures("layer")
def test_without_history_there_is_no_position() -> None:
    assert livechannels.publish("plain/a", 1) is None
    assert data_of("plain/a") == []


@pytest.mark.usefixtures("layer")
def test_a_repeated_key_is_stored_once() -> None:
    first = livechannels.publish("open/a", 1, idempotency_key="k")
    assert livechannels.publish("open/a", 1, idempotency_key="k") == first
    assert data_of("open/a") == [1]


@pytest.mark.usefixtures("layer")
def test_a_frame_names_its_schema() -> None:
    frame = Frame.from_columns("cpu", {"time": [1], "usage": [2.5]}) if hasattr(Frame, "from_columns") else None
    if frame is None:
        pytest.skip("no Frame.from_columns")
    livechannels.publish("open/a", frame, tags={"k": "v"})
    with transaction.atomic():
        livechannels.publish("open/a", frame, on_commit=True)
    first, second = livechannels.history("open/a").publications
    assert first.tags == {"schema": frame.schema_id, "k": "v"}
    assert second.tags == {"schema": frame.schema_id}
    assert first.data == second.data == frame.to_dict()


@pytest.mark.usefixtures("layer")
@pytest.mark.parametrize("on_commit", [False, True])
def test_wrong_names_and_data_are_refused_at_once(on_commit: bool) -> None:
    with pytest.raises(UnknownChannel):
        livechannels.publish("nowhere", 1, on_commit=on_commit)
    with pytest.raises(InvalidChannelName):
        livechannels.publish("a b", 1, on_commit=on_commit)
    with pytest.raises(TypeError):
        livechannels.publish("open/a", object(), on_commit=on_commit)


@pytest.mark.usefixtures("layer")
def test_on_commit_sends_after_the_transaction_in_order() -> None:
    message = {"n": 1}
    with transaction.atomic():
        assert livechannels.publish("open/a", message, on_commit=True) is None
        message["n"] = 2
        livechannels.publish("open/a", message, on_commit=True, tags={"k": "v"})
        assert data_of("open/a") == []
    assert data_of("open/a") == [{"n": 1}, {"n": 2}]
    assert api.history("open/a").publications[1].tags == {"k": "v"}


@pytest.mark.usefixtures("layer")
def test_a_rollback_sends_nothing_and_no_transaction_sends_at_once() -> None:
    def fail() -> None:
        with transaction.atomic():
            livechannels.publish("open/a", 1, on_commit=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    livechannels.publish("open/a", 2, on_commit=True)
    assert data_of("open/a") == [2]


@pytest.mark.parametrize("failure", [EngineUnavailable, MessageTooLarge, OSError])
def test_after_the_commit_a_failure_is_logged_and_the_rest_is_sent(
    layer: LiveChannelLayer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: type[Exception],
) -> None:
    real = layer.publish_sync

    def failing(channel: str, *args: Any, **more: Any) -> Position | None:
        if channel == "open/a":
            raise failure
        return real(channel, *args, **more)

    monkeypatch.setattr(layer, "publish_sync", failing)
    with caplog.at_level(logging.ERROR, "livechannels"), transaction.atomic():
        livechannels.publish("open/a", 1, on_commit=True)
        livechannels.publish("open/b", 2, on_commit=True)
    assert data_of("open/b") == [2]
    assert "open/a was not sent after the commit" in caplog.text


async def test_async_forms(serving: LiveChannelLayer) -> None:
    position = await livechannels.apublish("open/a", {"n": 1})
    assert position is not None
    assert await livechannels.apublish("open/a", {"n": 2}, on_commit=True) is None
    found = await livechannels.ahistory("open/a", since=position)
    assert ([one.data for one in found.publications], found.recovered) == ([{"n": 2}], True)
    await serving.presence_enter("open/a", ClientInfo("7", "c1"))
    assert await livechannels.apresence("open/a") == {"c1": ClientInfo("7", "c1")}
    await serving.presence_leave("open/a", ClientInfo("7", "c1"))
    assert await livechannels.apresence("open/a") == {}


@pytest.mark.usefixtures("layer")
async def test_sync_forms_refuse_to_block_the_loop() -> None:
    for call in (
        lambda: livechannels.publish("open/a", 1),
        lambda: livechannels.history("open/a"),
        lambda: livechannels.presence("open/a"),
        lambda: livechannels.disconnect(1),
        lambda: livechannels.unsubscribe(1, "open/a"),
    ):
        with pytest.raises(SynchronousOnlyOperation, match=r"await a\w+\(\) instead"):
            call()


async def test_disconnect_and_unsubscribe_reach_every_node(serving: LiveChannelLayer) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    serving.node().on_control("disconnect", heard.put_nowait)
    serving.node().on_control("unsubscribe", heard.put_nowait)
    await livechannels.adisconnect(User(pk=7))
    await asyncio.to_thread(livechannels.disconnect, "8", code=3504, reason="bye")
    await livechannels.aunsubscribe(7, "open/a")
    await asyncio.to_thread(livechannels.unsubscribe, User(pk=8), "open/b")
    async with asyncio.timeout(10):
        assert [await heard.get() for _ in range(4)] == [
            {"user": "7", "code": 3503, "reason": "force disconnect"},
            {"user": "8", "code": 3504, "reason": "bye"},
            {"user": "7", "channel": "open/a"},
            {"user": "8", "channel": "open/b"},
        ]


@pytest.mark.usefixtures("layer")
def test_nobody_cannot_be_disconnected() -> None:
    with pytest.raises(ValueError, match="nobody"):
        livechannels.disconnect(User())
    with pytest.raises(UnknownChannel):
        livechannels.unsubscribe(1, "nowhere")


def test_public_names_are_all_there_and_loaded_when_used() -> None:
    for name in livechannels.__all__:
        assert getattr(livechannels, name) is not None
        assert name in dir(livechannels)
    with pytest.raises(AttributeError, match="nothing_like_this"):
        livechannels.nothing_like_this  # noqa: B018
