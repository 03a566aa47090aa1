"""Run by tests/layer/test_channels.py: Channels' live server test case with our layer between its processes."""

from __future__ import annotations

import asyncio
import json

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter
from channels.testing import ChannelsLiveServerTestCase
from websockets.asyncio.client import connect


class Chat(AsyncJsonWebsocketConsumer):
    groups = ["chat"]

    async def receive_json(self, content):
        await self.channel_layer.group_send("chat", {"type": "chat.message", "text": content["text"]})

    async def chat_message(self, event):
        await self.send_json({"text": event["text"]})


application = ProtocolTypeRouter({"websocket": Chat.as_asgi()})


class LiveServer(ChannelsLiveServerTestCase):
    def test_browsers_and_the_test_process_talk_through_the_layer(self):
        asyncio.run(self.talk())

    async def talk(self):
        url = self.live_server_ws_url
        async with connect(url) as one, connect(url) as two:
            await one.send(json.dumps({"text": "from one"}))
            for person in (one, two):
                self.assertEqual(json.loads(await asyncio.wait_for(person.recv(), 10)), {"text": "from one"})
            layer = get_channel_layer()
            await layer.group_send("chat", {"type": "chat.message", "text": "from the test"})
            for person in (one, two):
                self.assertEqual(json.loads(await asyncio.wait_for(person.recv(), 10)), {"text": "from the test"})
            await layer.close()
