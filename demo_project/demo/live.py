"""The demo's live channels, declared as Django declares URLs."""

from __future__ import annotations

from dashboards.models import Dashboard
from dashboards.sources import HostMetrics

from livechannels import BroadcastChannel, DashboardChannel, ManagedStream, live_path


class OpenDashboard(DashboardChannel):
    """Anyone may look; who says that they are editing needs the change permission, as everywhere."""

    def can_subscribe(self, user: object) -> bool:
        return True


class OpenStream(ManagedStream):
    """A pushed stream anyone may watch; only holders of the push token fill it."""

    def can_subscribe(self, user: object) -> bool:
        return True


class Announcements(BroadcastChannel):
    """A word to everyone on every node; the last one waits for those who come later."""

    def can_subscribe(self, user: object) -> bool:
        return True


live_channels = [
    live_path("dashboard/<int:pk>", OpenDashboard.for_model(Dashboard)),
    live_path("stream/<slug:stream_id>/<path:measurement>", OpenStream),
    live_path("source/host/<slug:name>", HostMetrics),
    live_path("announcements", Announcements),
]
