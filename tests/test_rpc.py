from __future__ import annotations

import threading
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied

from livechannels import rpc as module
from livechannels.messages.codes import CommandFailed, Error
from livechannels.rpc import RPCError, call, message, on_message, rpc

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_handlers", {})
    monkeypatch.setattr(module, "_message_handlers", [])


async def failure(name: str) -> Error:
    with pytest.raises(CommandFailed) as failed:
        await call(name, "ann", None)
    return failed.value.error


async def test_nothing_is_registered() -> None:
    assert (await failure("any")).code == 108
    assert not await message("ann", 1)


async def test_async_and_sync() -> None:
    @rpc("async")
    async def one(user: Any, data: Any) -> Any:
        return [user, data, threading.current_thread() is threading.main_thread()]

    @rpc("sync")
    def two(user: Any, data: Any) -> Any:
        return [user, data, threading.current_thread() is threading.main_thread()]

    assert await call("async", "ann", 1) == ["ann", 1, True]
    assert await call("sync", "ann", 2) == ["ann", 2, False]
    assert (await failure("other")).code == 104


async def test_failures(caplog: Any, monkeypatch: Any) -> None:
    errors = {"a": RPCError(400, "no", temporary=True), "b": PermissionDenied(), "c": RuntimeError("a bug")}

    def register(name: str) -> None:
        @rpc(name)
        async def handler(user: Any, data: Any) -> Any:
            raise errors[name]

    for name in errors:
        register(name)
    assert await failure("a") == Error(400, "no", True)
    assert (await failure("b")).code == 103
    assert caplog.text == ""
    assert (await failure("c")).code == 100
    assert "a bug" in caplog.text

    @rpc("slow")
    async def slow(user: Any, data: Any) -> None:
        import asyncio

        await asyncio.sleep(60)

    monkeypatch.setattr(module, "TIME_LIMIT", 0.01)
    assert (await failure("slow")).temporary


async def test_messages() -> None:
    seen = []

    @on_message
    async def first(user: Any, data: Any) -> None:
        raise RuntimeError("a bug")

    @on_message
    def second(user: Any, data: Any) -> None:
        seen.append((user, data))

    assert await message("ann", 1)
    assert seen == [("ann", 1)]


@pytest.mark.parametrize("name", ["", None, test_messages])
def test_the_name_is_needed(name: Any) -> None:
    with pytest.raises(TypeError, match="name"):
        rpc(name)
