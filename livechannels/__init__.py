"""A Django Channels layer with live channels: history, presence, and one leader per stream.

The names below are loaded when they are first used, so importing the package needs no settings.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api import (
        adisconnect,
        ahistory,
        apresence,
        apublish,
        aunsubscribe,
        disconnect,
        history,
        presence,
        publish,
        unsubscribe,
    )
    from .channels import BroadcastChannel, LiveChannel, ManagedStream
    from .dashboards import DashboardChannel
    from .messages.frames import Frame
    from .messages.positions import Position
    from .paths import live_path
    from .streams.supervisor import StreamSource

_HOMES = {
    "BroadcastChannel": "channels",
    "DashboardChannel": "dashboards",
    "Frame": "messages.frames",
    "LiveChannel": "channels",
    "ManagedStream": "channels",
    "Position": "messages.positions",
    "StreamSource": "streams",
    "adisconnect": "api",
    "ahistory": "api",
    "apresence": "api",
    "apublish": "api",
    "aunsubscribe": "api",
    "disconnect": "api",
    "history": "api",
    "live_path": "paths",
    "presence": "api",
    "publish": "api",
    "unsubscribe": "api",
}

__all__ = [
    "BroadcastChannel",
    "DashboardChannel",
    "Frame",
    "LiveChannel",
    "ManagedStream",
    "Position",
    "StreamSource",
    "adisconnect",
    "ahistory",
    "apresence",
    "apublish",
    "aunsubscribe",
    "disconnect",
    "history",
    "live_path",
    "presence",
    "publish",
    "unsubscribe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
