"""The backend stream of the demo: this host's metrics, read once in the whole cluster."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from django.conf import settings

from livechannels import Frame, StreamSource

from .host import READERS

PERIOD = 1.0
FIRST = 0.2
"""Seconds until the first frame: the first viewer waits for it, and rates need two readings."""


class HostMetrics(StreamSource):
    """A frame a second from source/host/cpu, /memory, /disk and /network; anyone may watch.

    The tags say which node read it, so that the page can show who leads.
    """

    history_size = 900
    history_ttl = 900

    def can_subscribe(self, user: Any) -> bool:
        return self.kwargs["name"] in READERS

    async def run(self, stream: Any) -> None:
        name = self.kwargs["name"]
        reader = READERS[name]()
        tags = {"leader": settings.NODE, "pid": str(os.getpid())}
        clock = asyncio.get_running_loop().time
        due = clock() + FIRST
        while True:
            await asyncio.sleep(due - clock())
            columns = {field: [value] for field, value in reader.read().items()}
            await stream.publish(Frame.from_columns(name, {"time": [int(time.time() * 1000)], **columns}), tags=tags)
            due = max(due + PERIOD, clock())
