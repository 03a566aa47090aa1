"""URLs of the demo: the dashboards at the root, livechannels under live/."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("live/", include("livechannels.urls")),
    path("admin/", admin.site.urls),
    path("", include("dashboards.urls")),
]
