"""The streams of the nodes under test: each publication says who made it, under which token, and its number."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from livechannels import StreamSource, live_path
from livechannels.exceptions import EngineUnavailable, LeaseLost
from tests.faults.stream_node import CONFIG

log: Any = None
blocks: list[float] = []


def block() -> None:
    """The next source that runs blocks the event loop."""
    blocks.append(CONFIG["block"])


class Recorded(StreamSource):
    history_size = 1_000_000
    history_ttl = 7200
    idle_timeout = 2
    scope = CONFIG.get("scope", "cluster")

    async def run(self, stream: Any) -> None:
        log.write("open", channel=self.channel, token=stream.token)
        number = 0
        self.published = 0
        try:
            while True:
                number += 1
                await self.publish(stream, number)
                await asyncio.sleep(CONFIG["period"])
                if blocks:
                    log.write("blocked", channel=self.channel, token=stream.token)
                    time.sleep(blocks.pop())
        finally:
            log.write("close", channel=self.channel, token=stream.token)

    async def publish(self, stream: Any, number: int) -> None:
        said = {"by": CONFIG["name"], "token": stream.token, "number": number}
        try:
            position = await stream.publish(said)
        except LeaseLost:
            log.write("refused", channel=self.channel, said=said)
            raise
        except EngineUnavailable as error:
            log.write("unavailable", channel=self.channel, said=said, why=str(error))
            await asyncio.sleep(0.05)
        else:
            self.published += 1
            if CONFIG["record"] or self.published == 1:
                log.write("published", channel=self.channel, said=said, epoch=position.epoch, offset=position.offset)


live_channels = [live_path("source/<int:number>", Recorded)]
