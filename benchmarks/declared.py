"""The live channels of `benchmarks.site`."""

from __future__ import annotations

from typing import Any

from livechannels import LiveChannel, live_path


class Open(LiveChannel):
    """For anyone, with history. Async, for a sync right is asked for in a thread."""

    history_size, history_ttl = 100, 300

    async def can_subscribe(self, user: Any) -> bool:
        return True


live_channels = [live_path("bench/<int:pk>", Open)]
