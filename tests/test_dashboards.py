from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.db import transaction
from django.db.models import F
from django.test import Client, override_settings

from livechannels import api, registry
from livechannels.dashboards import DashboardChannel, acting_user, notify_deleted, notify_saved
from livechannels.paths import live_path
from livechannels.testing import live_test_layer
from tests.testapp.models import Board, BoardProxy, Note, PinnedBoard, Report, Team

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def fresh_layer() -> Iterator[None]:
    with live_test_layer():
        yield


def events(channel: str) -> list[dict[str, Any]]:
    return [publication.data for publication in api.history(channel).publications]


def actions(channel: str) -> list[str]:
    return [event["action"] for event in events(channel)]


def user(name: str, *permissions: str, **more: Any) -> User:
    made = User.objects.create_user(name, password="x", **more)
    made.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return User.objects.get(pk=made.pk)


def test_a_save_is_announced() -> None:
    board = Board.objects.create(title="One", version=3)
    assert events(f"board/{board.pk}") == [
        {"action": "saved", "uid": str(board.pk), "version": 3, "user": None, "message": "", "tab": None}
    ]


def test_a_deletion_is_announced_under_the_key_the_object_had() -> None:
    board = Board.objects.create(title="One")
    channel = f"board/{board.pk}"
    Board.objects.all().delete()
    assert actions(channel) == ["saved", "deleted"]
    assert events(channel)[1]["uid"] == channel.removeprefix("board/")


def test_nothing_is_sent_before_the_commit_and_all_of_it_in_order_after() -> None:
    with transaction.atomic():
        board = Board.objects.create(title="One", version=1)
        board.version = 2
        board.save()
        channel = f"board/{board.pk}"
        assert events(channel) == []
    assert [event["version"] for event in events(channel)] == [1, 2]


def test_a_rolled_back_transaction_sends_nothing() -> None:
    board = Board.objects.create(title="One")
    channel = f"board/{board.pk}"

    def fail() -> None:
        with transaction.atomic():
            board.save()
            board.delete()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert actions(channel) == ["saved"]


def test_a_rolled_back_savepoint_sends_nothing_and_the_rest_is_sent() -> None:
    board = Board.objects.create(title="One", version=1)

    def fail() -> None:
        with transaction.atomic():
            board.version = 2
            board.save()
            raise ZeroDivisionError

    with transaction.atomic():
        with pytest.raises(ZeroDivisionError):
            fail()
        board.version = 3
        board.save()
    assert [event["version"] for event in events(f"board/{board.pk}")] == [1, 3]


def test_acting_user_and_message_are_named() -> None:
    ann = user("ann")
    with acting_user(ann, tab="t1", message="Renamed"):
        board = Board.objects.create(title="One")
    event = events(f"board/{board.pk}")[0]
    assert (event["user"], event["tab"], event["message"]) == ("ann", "t1", "Renamed")


def test_the_admin_announces_who_saved_and_who_deleted() -> None:
    user("root", is_staff=True, is_superuser=True)
    board = Board.objects.create(title="One")
    client = Client(headers={"X-Live-Tab": "tab-7"})
    assert client.login(username="root", password="x")
    saved = client.post(f"/admin/testapp/board/{board.pk}/change/", {"title": "Two", "version": 2})
    deleted = client.post(f"/admin/testapp/board/{board.pk}/delete/", {"post": "yes"})
    assert (saved.status_code, deleted.status_code) == (302, 302)
    found = events(f"board/{board.pk}")[1:]
    assert [(event["action"], event["user"], event["tab"], event["version"]) for event in found] == [
        ("saved", "root", "tab-7", 2),
        ("deleted", "root", "tab-7", 2),
    ]


async def test_async_orm_calls_announce_too() -> None:
    board = await Board.objects.acreate(title="One")
    channel = f"board/{board.pk}"
    await board.adelete()
    found = await api.ahistory(channel)
    assert [publication.data["action"] for publication in found.publications] == ["saved", "deleted"]


def test_what_sends_no_signal_is_announced_by_hand() -> None:
    board = Board.objects.create(title="One")
    Board.objects.update(title="Two")
    notify_saved(board, user=user("ann"), message="Bulk", tab="t")
    notify_deleted(board)
    found = events(f"board/{board.pk}")[1:]
    assert [event["action"] for event in found] == ["saved", "deleted"]
    assert (found[0]["user"], found[0]["message"], found[0]["tab"]) == ("ann", "Bulk", "t")


def test_versions() -> None:
    board = Board.objects.create(title="One", version=3)
    board.version = F("version") + 1
    board.save()
    assert [event["version"] for event in events(f"board/{board.pk}")] == [3, 4]
    report = Report.objects.create()
    assert events(f"report/{report.pk}")[0]["version"] == int(report.changed.timestamp() * 1000)
    note = Note.objects.create(team=Team.objects.create(slug="red"), key="k")
    assert events("team/red/note/k")[0]["version"] > 1_600_000_000_000
    assert note.pk


def test_several_parameters_and_fields_of_related_objects() -> None:
    Note.objects.create(team=Team.objects.create(slug="red"), key="todo")
    assert events("team/red/note/todo")[0]["uid"] == "todo"


def test_proxies_and_children_are_announced_once() -> None:
    proxy = BoardProxy.objects.create(title="One")
    proxy_channel = f"board/{proxy.pk}"
    proxy.delete()
    assert actions(proxy_channel) == ["saved", "deleted"]
    child = PinnedBoard.objects.create(title="Two")
    child_channel = f"board/{child.pk}"
    child.delete()
    assert actions(child_channel)[-2:] == ["saved", "deleted"]
    assert actions(child_channel).count("deleted") == 2 if child_channel == proxy_channel else 1


def test_a_loaded_fixture_is_not_news() -> None:
    from django.core import serializers

    for found in serializers.deserialize(
        "json", '[{"model": "testapp.board", "pk": 5, "fields": {"title": "x", "version": 1}}]'
    ):
        found.save()
    assert events("board/5") == []


def test_an_object_that_has_no_channel_is_saved_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    team = Team.objects.create(slug="red")
    with caplog.at_level(logging.ERROR, "livechannels"):
        note = Note.objects.create(team=team, key="not a slug")
    assert Note.objects.filter(pk=note.pk).exists()
    assert "is not announced" in caplog.text


def test_without_a_path_nothing_is_announced() -> None:
    with override_settings(LIVECHANNELS={"CHANNELS": []}):
        assert Board.objects.create(title="One").pk


@pytest.mark.parametrize(
    ("permissions", "may_view", "may_edit"),
    [([], False, False), (["view_board"], True, False), (["change_board"], True, True), (["view_note"], False, False)],
)
async def test_viewers_need_view_and_editors_change(permissions: list[str], may_view: bool, may_edit: bool) -> None:
    from asgiref.sync import sync_to_async

    ann = await sync_to_async(user)("ann", *permissions)
    live = registry.resolve("board/1")
    assert await live.allows("subscribe", ann) is may_view
    assert await live.allows("presence", ann) is may_view
    assert await live.allows("publish", ann, {"action": "editing-started", "uid": 1}) is may_edit


async def test_strangers_and_the_deactivated_see_nothing() -> None:
    live = registry.resolve("board/1")
    assert await live.allows("subscribe", AnonymousUser()) is False
    assert await live.allows("subscribe", None) is False
    assert await live.allows("subscribe", User(is_superuser=True, is_active=False)) is False


@pytest.mark.parametrize(
    ("data", "allowed"),
    [
        ({"action": "editing-started", "uid": "1"}, True),
        ({"action": "editing-finished", "uid": 1}, True),
        ({"action": "editing-started", "uid": "2"}, False),
        ({"action": "editing-started"}, False),
        ({"action": "saved", "uid": "1"}, False),
        ({"action": ["editing-started"], "uid": "1"}, False),
        ("editing-started", False),
        (None, False),
    ],
)
async def test_clients_may_only_say_that_they_edit_this_object(data: Any, allowed: bool) -> None:
    root = User(pk=1, username="root", is_superuser=True)
    assert await registry.resolve("board/1").allows("publish", root, data) is allowed


async def test_the_server_writes_who_edits_and_which_version() -> None:
    await Board.objects.acreate(pk=1, title="One", version=6)
    ann = User(pk=1, username="ann")
    data = {"action": "editing-started", "uid": 1, "user": "bob", "version": 99, "tab": "t" * 99, "message": 5, "x": 1}
    assert await registry.resolve("board/1").on_publish(ann, data) == {
        "action": "editing-started",
        "uid": "1",
        "version": 6,
        "user": "ann",
        "message": "",
        "tab": "t" * 64,
    }


class ByObject:
    """Grants every permission on boards called "Open", as an object-level backend does."""

    def authenticate(self, request: Any) -> None:
        return None

    def has_perm(self, user: Any, permission: str, obj: Any = None) -> bool:
        return obj is not None and obj.title == "Open"


@override_settings(AUTHENTICATION_BACKENDS=["tests.test_dashboards.ByObject"])
async def test_object_level_permissions_count() -> None:
    await Board.objects.acreate(pk=1, title="Open")
    await Board.objects.acreate(pk=2, title="Closed")
    ann = User(pk=1, username="ann")
    assert await registry.resolve("board/1").allows("subscribe", ann) is True
    assert await registry.resolve("board/2").allows("subscribe", ann) is False
    assert await registry.resolve("board/3").allows("subscribe", ann) is False


async def test_permissions_can_be_replaced() -> None:
    from asgiref.sync import sync_to_async

    class Anyone(DashboardChannel):
        def can_subscribe(self, user: Any) -> bool:
            return True

    named = DashboardChannel.for_model(Team, view_permission="testapp.view_note")
    paths = [live_path("t/<int:pk>", named), live_path("a/<int:pk>", Anyone.for_model(Team))]
    with override_settings(LIVECHANNELS={"CHANNELS": paths}):
        ann = await sync_to_async(user)("ann", "view_note")
        assert await registry.resolve("t/1").allows("subscribe", ann) is True
        assert await registry.resolve("a/1").allows("subscribe", AnonymousUser()) is True


def test_the_policy_of_a_dashboard() -> None:
    policy = registry.policy_for("board/1")
    assert (policy.presence, policy.join_leave, policy.keeps_history) == (True, True, True)
