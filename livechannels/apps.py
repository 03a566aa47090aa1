"""Puts the parts together when Django starts."""

from __future__ import annotations

import logging

from django.apps import AppConfig

logger = logging.getLogger(__name__)


class LiveChannelsConfig(AppConfig):
    """Gives the layer its policies and every node its stream runner; registers checks and signal receivers."""

    name = "livechannels"
    verbose_name = "Live channels"

    def ready(self) -> None:
        from django.contrib.auth.signals import user_logged_out

        from . import checks, registry  # noqa: F401 - checks register themselves
        from .clients import sessions
        from .layer import LiveChannelLayer, startup_hooks
        from .streams import supervisor as streams

        LiveChannelLayer.policies = staticmethod(registry.policy_for)
        if streams.attach not in startup_hooks:
            startup_hooks.append(streams.attach)
        user_logged_out.connect(sessions.close_session, dispatch_uid="livechannels")
        try:
            # Dashboards announce changes from every process, also from one that serves no browser.
            registry.live_paths()
        except Exception as error:
            # The check livechannels.E008 reports it with the remedy.
            logger.error("Live channels are not available: %s Run: python manage.py check", error)
