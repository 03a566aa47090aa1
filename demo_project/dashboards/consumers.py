"""A stream without livechannels' browser protocol: a stock Django consumer that joins a live channel."""

from __future__ import annotations

from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer

CHANNEL = "source/host/cpu"


class PlainConsumer(AsyncJsonWebsocketConsumer):
    """Sends each publication of one stream as {"offset", "data", "tags"}, the last one at once."""

    async def connect(self) -> None:
        await self.accept()
        await self.channel_layer.subscribe(CHANNEL, self.channel_name)

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.unsubscribe(CHANNEL, self.channel_name)

    async def live_publication(self, event: dict[str, Any]) -> None:
        await self.send_json({key: event[key] for key in ("offset", "data", "tags")})
