"""WebSocket routes, for livechannels.asgi.live_application() or a URLRouter of your own."""

from __future__ import annotations

from django.urls import path

from .consumers import LiveConsumer
from .push import PushConsumer

websocket_urlpatterns = [
    path("live/ws", LiveConsumer.as_asgi()),
    path("live/push/<str:stream_id>", PushConsumer.as_asgi()),
]
