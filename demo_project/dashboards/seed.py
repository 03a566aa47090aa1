"""What a fresh database starts with: one dashboard of this host, and two people to be."""

from __future__ import annotations

from typing import Any

DASHBOARD = "Host overview"
PUSHED = "stream/demo/temperature"
PANELS = [
    {"title": "CPU per core", "channel": "source/host/cpu", "unit": "percent", "interval": 1},
    {"title": "Memory", "channel": "source/host/memory", "unit": "bytes", "interval": 1},
    {"title": "Disk", "channel": "source/host/disk", "unit": "bytes/s", "interval": 1},
    {"title": "Network", "channel": "source/host/network", "unit": "bytes/s", "interval": 1},
    {"title": "Pushed from outside", "channel": PUSHED, "unit": "number", "wide": True},
]
PEOPLE = ("alice", "bob")


def seed(**_signal: Any) -> None:
    """Fill what is missing; runs after each migrate and changes nothing that is there."""
    from django.contrib.auth.models import Permission, User

    from .models import Dashboard, Panel

    if not Dashboard.objects.exists():
        dashboard = Dashboard.objects.create(title=DASHBOARD)
        Panel.objects.bulk_create(
            Panel(dashboard=dashboard, position=position, **panel) for position, panel in enumerate(PANELS)
        )
    editing = Permission.objects.filter(content_type__app_label="dashboards", codename__endswith="_dashboard")
    for name in PEOPLE:
        user, created = User.objects.get_or_create(username=name, defaults={"is_staff": name == "alice"})
        if created:
            user.set_unusable_password()
            user.is_superuser = user.is_staff
            user.save()
            user.user_permissions.set(editing)
