from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied

from livechannels.channels import BroadcastChannel, LiveChannel, ManagedStream
from livechannels.messages.policy import Policy

pytestmark = pytest.mark.django_db(transaction=True)

ANN = User(pk=1, username="ann")


async def test_by_default_the_signed_in_may_subscribe_and_nobody_may_publish() -> None:
    live = LiveChannel("a/b")
    assert await live.allows("subscribe", ANN) is True
    assert await live.allows("subscribe", AnonymousUser()) is False
    assert await live.allows("subscribe", None) is False
    assert await live.allows("publish", ANN, {}) is False
    assert await live.on_publish(ANN, {"x": 1}) == {"x": 1}


@pytest.mark.parametrize("action", ["presence", "history"])
async def test_presence_and_history_follow_subscribe(action: Any) -> None:
    class OnlyBob(LiveChannel):
        def can_subscribe(self, user: Any) -> bool:
            return bool(user.username == "bob")

    live = OnlyBob("a")
    assert await live.allows(action, User(username="bob")) is True
    assert await live.allows(action, ANN) is False


async def test_methods_may_be_sync_or_async_and_see_the_channel() -> None:
    class Both(LiveChannel):
        async def can_subscribe(self, user: Any) -> bool:
            return bool(self.kwargs["name"] == user.username)

        def can_publish(self, user: Any, data: Any) -> bool:
            return bool(self.channel == "room/ann" and data == "hello")

    live = Both("room/ann", {"name": "ann"})
    assert await live.allows("subscribe", ANN) is True
    assert await live.allows("publish", ANN, "hello") is True
    assert await live.allows("publish", ANN, "bye") is False


async def test_a_sync_method_may_use_the_database() -> None:
    class Known(LiveChannel):
        def can_subscribe(self, user: Any) -> bool:
            return User.objects.filter(username=user.username).exists()

    await User.objects.acreate(username="ann")
    assert await Known("a").allows("subscribe", ANN) is True
    assert await Known("a").allows("history", User(username="bob")) is False


async def test_permission_denied_is_a_no_and_other_errors_pass() -> None:
    class Strict(LiveChannel):
        def can_subscribe(self, user: Any) -> bool:
            raise PermissionDenied

        async def can_publish(self, user: Any, data: Any) -> bool:
            raise RuntimeError("broken")

    assert await Strict("a").allows("subscribe", ANN) is False
    with pytest.raises(RuntimeError, match="broken"):
        await Strict("a").allows("publish", ANN, 1)


def test_policies_come_from_the_class_attributes() -> None:
    class Team(LiveChannel):
        presence = join_leave = True
        history_size, history_ttl = 100, 300
        coalesce = True

    assert LiveChannel.policy() == Policy()
    assert Team.policy() == Policy(100, 300, True, True, coalesce=True)
    assert ManagedStream.policy() == Policy(300, 300)
    broadcast = BroadcastChannel.policy()
    assert (broadcast.history_size, broadcast.recovery, broadcast.keeps_history) == (1, "cache", True)
