"""Live channels and calls of the SDK scenarios."""

from __future__ import annotations

import asyncio
from typing import Any

from django.core.exceptions import PermissionDenied

from livechannels import BroadcastChannel, LiveChannel, live_path
from livechannels.rpc import RPCError, on_message, rpc


class OpenChannel(LiveChannel):
    """Anyone may do anything."""

    history_size, history_ttl = 100, 300
    presence = join_leave = True

    def can_subscribe(self, user: Any) -> bool:
        return True

    def can_publish(self, user: Any, data: Any) -> bool:
        return True


class ShortChannel(OpenChannel):
    """Keeps too little."""

    history_size = 3


class MemberChannel(OpenChannel):
    """For whom the database says is staff now."""

    def can_subscribe(self, user: Any) -> bool:
        return bool(user.is_staff)


class PlainChannel(OpenChannel):
    """Keeps and shows nothing."""

    history_size, history_ttl = 0, 0
    presence = join_leave = False


class PersonalChannel(LiveChannel):
    """What the server has to say to one user."""

    history_size, history_ttl = 100, 300
    presence = join_leave = True

    def can_subscribe(self, user: Any) -> bool:
        return bool(user.pk == self.kwargs["user"])


class GaugeChannel(OpenChannel):
    """Only the newest value counts."""

    coalesce = True


live_channels = [
    live_path("open/<path:name>", OpenChannel),
    live_path("short/<path:name>", ShortChannel),
    live_path("member/<path:name>", MemberChannel),
    live_path("plain/<path:name>", PlainChannel),
    live_path("gauge/<path:name>", GaugeChannel),
    live_path("broadcast/<path:name>", BroadcastChannel),
    live_path("#<int:user>", PersonalChannel),
]

received: list[Any] = []


@rpc("double")
async def double(user: Any, data: Any) -> Any:
    return {"user": user.get_username(), "double": data["n"] * 2}


@rpc("sync")
def works_in_a_thread(user: Any, data: Any) -> Any:
    return user.is_authenticated


@rpc("refused")
async def refused(user: Any, data: Any) -> Any:
    raise RPCError(404, "no such thing")


@rpc("denied")
def denied(user: Any, data: Any) -> Any:
    raise PermissionDenied


@rpc("broken")
async def broken(user: Any, data: Any) -> Any:
    raise RuntimeError("a bug")


@rpc("slow")
async def slow(user: Any, data: Any) -> Any:
    await asyncio.sleep(data)


@on_message
async def keep(user: Any, data: Any) -> None:
    received.append(data)
