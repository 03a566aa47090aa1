from __future__ import annotations

import pytest
from django.urls import resolve, reverse
from django.urls.exceptions import Resolver404

from livechannels import views
from livechannels.clients import sse
from livechannels.push import endpoint as push
from livechannels.routing import websocket_urlpatterns


@pytest.mark.parametrize(
    ("path", "view"),
    [
        ("/live/ws", views.upgrade_required),
        ("/live/push/telegraf", push.push),
        ("/live/events", sse.events),
        ("/live/health", views.health),
        ("/live/metrics", views.metrics_view),
        ("/live/status", views.status),
    ],
)
def test_http_routes_have_no_trailing_slash(path: str, view: object) -> None:
    assert resolve(path).func is view
    with pytest.raises(Resolver404):
        resolve(f"{path}/")


def test_routes_have_names() -> None:
    assert reverse("livechannels:push", args=["telegraf"]) == "/live/push/telegraf"
    assert reverse("livechannels:status") == "/live/status"


@pytest.mark.parametrize(
    ("path", "kwargs"), [("live/ws", {}), ("live/push/telegraf", {"stream_id": "telegraf"}), ("live/ws/", None)]
)
def test_websocket_routes(path: str, kwargs: dict[str, str] | None) -> None:
    found = [match[2] for pattern in websocket_urlpatterns if (match := pattern.pattern.match(path))]
    assert found == ([] if kwargs is None else [kwargs])
