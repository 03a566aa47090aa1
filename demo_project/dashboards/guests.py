"""Who may do what in the demo: everyone looks, demo users change."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import BaseBackend


class GuestBackend(BaseBackend):
    """Grants the view permission on dashboards to everyone, also to visitors who are not signed in."""

    def get_user_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        return {"dashboards.view_dashboard"}
