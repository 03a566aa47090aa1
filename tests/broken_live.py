from __future__ import annotations

live_channels = [1 / 0]
