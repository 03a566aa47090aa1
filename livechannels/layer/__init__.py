"""The only door to the engine: the Channels contract, live channels, presence. Imports `node` and below."""

from __future__ import annotations

from .contract import LiveChannelLayer, live_layer
from .live import History
from .process import startup_hooks

__all__ = ["History", "LiveChannelLayer", "live_layer", "startup_hooks"]
