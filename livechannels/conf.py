"""The LIVECHANNELS setting: its keys, their defaults, read when they are used (so override_settings works)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings as django_settings

DEFAULT_LIMITS: Mapping[str, int] = {
    "message_size": 65536,  # bytes of one message from a client
    "channels_per_client": 128,
    "channel_name": 255,
    "connect_deadline": 15,  # seconds from accept to a valid connect command
    "connections_per_user": 0,  # 0: no limit
    "connections": 0,  # of one node; 0: no limit
    "commands_per_second": 0,  # of one client; 0: no limit
    "outbox_bytes": 1048576,  # waiting for one slow client
    "window_bytes": 262144,  # sent to one client since its last answered ping
    "ping_interval": 25,
    "pong_timeout": 10,
    "push_body_bytes": 2097152,  # after decompression
    "push_compressed_bytes": 1048576,
    "push_line_bytes": 65536,
    "push_tags": 64,
    "frame_rows": 10000,
    "recover_publications": 300,
    "history_publications": 300,
    "recheck_interval": 60,  # seconds between two looks at a connected user's rights
}


class Settings:
    """Typed access to LIVECHANNELS. Each attribute is the configured value, or the default shown here."""

    CHANNELS: str | Sequence[Any] = ()
    """Dotted path of the list of live_path() entries, or the list itself."""
    LAYER: str = "default"
    """Alias in CHANNEL_LAYERS of the layer that live channels use."""
    PUSH_TOKENS: Sequence[str] = ()
    """Bearer tokens accepted by push/<stream_id>."""
    API_KEYS: Sequence[str] = ()
    """Keys accepted by the metrics view."""
    ALLOWED_ORIGINS: Sequence[str] | None = None
    """Hosts whose pages may connect; None takes ALLOWED_HOSTS and CSRF_TRUSTED_ORIGINS."""
    JWT: Mapping[str, Any] | None = None
    """Reserved for connection tokens."""
    LEASE_TTL: float = 3.0
    """Seconds after which the lease of a leader that fell silent is free."""

    def __getattribute__(self, name: str) -> Any:
        if name in KEYS and name != "LIMITS":
            configured = _configured()
            if name in configured:
                return configured[name]
        return super().__getattribute__(name)

    @property
    def LIMITS(self) -> dict[str, int]:
        """Every limit by name: DEFAULT_LIMITS with the configured ones on top."""
        return {**DEFAULT_LIMITS, **_configured().get("LIMITS", {})}


KEYS = frozenset(Settings.__annotations__) | {"LIMITS"}

settings = Settings()


def _configured() -> Mapping[str, Any]:
    return getattr(django_settings, "LIVECHANNELS", None) or {}
