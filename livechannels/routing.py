"""WebSocket routes, for livechannels.asgi.live_application() or a URLRouter of your own."""

from __future__ import annotations

from typing import Any

from django.urls import path

from .consumers import LiveConsumer
from .push.endpoint import PushConsumer

# path() is typed for views; Channels' URLRouter takes ASGI applications in their place.
_applications: dict[str, Any] = {
    "live/ws": LiveConsumer.as_asgi(),
    "live/push/<str:stream_id>": PushConsumer.as_asgi(),
}

websocket_urlpatterns = [path(route, application) for route, application in _applications.items()]
