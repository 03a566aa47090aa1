"""HTTP routes; mount them at live/: path("live/", include("livechannels.urls")).

Taken but not served yet: http_stream, sse, emulation, api/<method>.
"""

from __future__ import annotations

from django.urls import path

from . import views
from .clients import sse
from .push import endpoint as push

app_name = "livechannels"

urlpatterns = [
    path("ws", views.upgrade_required, name="ws"),
    path("push/<str:stream_id>", push.push, name="push"),
    path("events", sse.events, name="events"),
    path("health", views.health, name="health"),
    path("metrics", views.metrics_view, name="metrics"),
    path("status", views.status, name="status"),
]
