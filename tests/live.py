"""The live channels of the test project."""

from __future__ import annotations

from typing import Any

from livechannels import BroadcastChannel, DashboardChannel, LiveChannel, ManagedStream, live_path
from tests.testapp.models import Board, Note, Report


class TeamChannel(LiveChannel):
    presence = join_leave = True
    history_size, history_ttl = 100, 300

    async def can_publish(self, user: Any, data: Any) -> bool:
        return bool(user.is_authenticated)


class OpenChannel(LiveChannel):
    """Anyone may do anything, also without signing in."""

    history_size, history_ttl = 100, 300
    presence = join_leave = True

    def can_subscribe(self, user: Any) -> bool:
        return True

    def can_publish(self, user: Any, data: Any) -> bool:
        return True


class PlainChannel(LiveChannel):
    """Keeps nothing."""

    def can_subscribe(self, user: Any) -> bool:
        return True


live_channels = [
    live_path("board/<int:pk>", DashboardChannel.for_model(Board)),
    live_path("team/<slug:team__slug>/note/<slug:key>", DashboardChannel.for_model(Note)),
    live_path("report/<int:pk>", DashboardChannel.for_model(Report, version_field="changed")),
    live_path("team/<slug:slug>", TeamChannel),
    live_path("open/<path:name>", OpenChannel),
    live_path("plain/<path:name>", PlainChannel),
    live_path("broadcast/<slug:name>", BroadcastChannel),
    live_path("stream/<slug:stream_id>/<path:measurement>", ManagedStream),
]
