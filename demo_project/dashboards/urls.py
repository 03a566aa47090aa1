from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("", views.index, name="index"),
    path("dashboards/<int:pk>", views.DashboardView.as_view(), name="dashboard"),
    path("plain", views.plain, name="plain"),
    path("user", views.change_user, name="change-user"),
    path("announce", views.announce, name="announce"),
    path("favicon.ico", views.favicon),
]
