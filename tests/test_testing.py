from __future__ import annotations

from typing import Any

import pytest
from channels.layers import channel_layers, get_channel_layer
from django.contrib.auth.models import Permission, User

from livechannels import apublish, publish
from livechannels.layer import live_layer
from livechannels.testing import CommandRefused, live_client, live_test_layer
from tests.testapp.models import Board

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_layer_is_fresh_and_goes_again() -> None:
    before = get_channel_layer()
    with live_test_layer(capacity=7) as layer:
        assert live_layer() is layer
        assert layer.capacity == 7
        with live_test_layer() as inner:
            assert get_channel_layer() is inner
            assert publish("open/a", 1) is not None
        assert layer.history_sync("open/a").publications == []
    assert get_channel_layer() is before


def test_an_alias_that_was_not_there_is_gone_afterwards() -> None:
    with live_test_layer("other"):
        assert "other" in channel_layers.backends
    assert "other" not in channel_layers.backends


@live_test_layer()
def test_it_decorates() -> None:
    assert live_layer().options.engine == "memory"


@pytest.fixture
def ann() -> User:
    user = User.objects.create_user("ann")
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_board", "change_board"]))
    return user


async def test_a_client_sees_what_a_browser_sees(ann: User) -> None:
    with live_test_layer():
        async with live_client(ann) as client:
            board = await Board.objects.acreate(title="One")
            reply = await client.subscribe(f"board/{board.pk}")
            assert reply["recoverable"] is True
            board.title = "Two"
            await board.asave()
            publication = await client.publication()
            assert publication["channel"] == f"board/{board.pk}"
            assert publication["data"]["action"] == "saved"
            await client.publish(f"board/{board.pk}", {"action": "editing-started", "uid": board.pk, "user": "bob"})
            editing = await client.publication()
            assert (editing["data"]["action"], editing["data"]["user"]) == ("editing-started", "ann")
            assert editing["info"]["user"] == str(ann.pk)
            assert await client.nothing()


async def test_refusals_are_exceptions(ann: User) -> None:
    with live_test_layer():
        async with live_client() as client:
            with pytest.raises(CommandRefused) as info:
                await client.subscribe("board/1")
            assert info.value.code == 103
            with pytest.raises(CommandRefused) as info:
                await client.subscribe("nowhere")
            assert info.value.code == 102


async def test_clients_see_each_other_and_what_the_server_publishes(ann: User) -> None:
    with live_test_layer():
        async with live_client(ann) as one, live_client() as two:
            await one.subscribe("open/room")
            await two.subscribe("open/room")
            joined = await one.push("join")
            while joined["join"]["info"]["user"] != "":
                joined = await one.push("join")
            await apublish("open/room", {"n": 1})
            assert (await one.publication())["data"] == (await two.publication())["data"] == {"n": 1}


async def test_waiting_ends() -> None:
    with live_test_layer():
        async with live_client(timeout=0.5) as client:
            with pytest.raises(TimeoutError):
                await client.publication()
            assert "recoverable" in await client.subscribe("open/a")


async def test_the_end_of_a_connection_is_an_error(ann: User) -> None:
    from livechannels import adisconnect

    async def read(client: Any) -> None:
        while True:
            await client.publication()

    with live_test_layer():
        async with live_client(ann) as client:
            await client.subscribe("open/a")
            await adisconnect(ann)
            with pytest.raises(ConnectionError, match="3503"):
                await read(client)


async def test_the_last_broadcast_waits_for_who_comes_later(ann: User) -> None:
    with live_test_layer():
        await apublish("broadcast/news", {"text": "old"})
        await apublish("broadcast/news", {"text": "new"})
        async with live_client(ann) as client:
            reply = await client.subscribe("broadcast/news", recover=True, epoch="", offset=0)
            assert [publication["data"] for publication in reply["publications"]] == [{"text": "new"}]
