"""The layer under what Channels itself ships: consumers, communicators, workers, the live server test case."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ChannelNameRouter
from channels.testing import ApplicationCommunicator, WebsocketCommunicator
from channels.worker import Worker
from django.test import override_settings

from livechannels.node import node as node_module
from livechannels.node import queues
from tests.layer.conftest import eventually, receive


@pytest.fixture(autouse=True)
def _database_connections_may_be_closed(django_db_blocker):
    """Channels closes old connections around each message, also those that earlier tests left open."""
    with django_db_blocker.unblock():
        yield


class Chat(AsyncJsonWebsocketConsumer):
    groups = ["chat"]

    async def receive_json(self, content):
        await self.channel_layer.group_send("chat", {"type": "chat.message", "text": content["text"]})

    async def chat_message(self, event):
        await self.send_json({"text": event["text"]})


class SyncChat(JsonWebsocketConsumer):
    def connect(self):
        async_to_sync(self.channel_layer.group_add)("chat", self.channel_name)
        self.accept()

    def disconnect(self, code):
        async_to_sync(self.channel_layer.group_discard)("chat", self.channel_name)

    def receive_json(self, content):
        async_to_sync(self.channel_layer.group_send)("chat", {"type": "chat.message", "text": content["text"]})

    def chat_message(self, event):
        self.send_json({"text": event["text"]})


class Follower(AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.channel_layer.subscribe("stream/cpu", self.channel_name)
        await self.accept()

    async def live_publication(self, event):
        await self.send_json({"data": event["data"], "offset": event["offset"]})


class SyncFollower(JsonWebsocketConsumer):
    def connect(self):
        async_to_sync(self.channel_layer.subscribe)("stream/cpu", self.channel_name)
        self.accept()

    def live_publication(self, event):
        self.send_json({"data": event["data"], "offset": event["offset"]})


@pytest.fixture(params=["memory", "redis"])
async def installed(request, prefix):
    """Our layer in the settings, as a project has it."""
    where = {"ha_engine": "memory"} if request.param == "memory" else {"hosts": [request.getfixturevalue("redis_url")]}
    config = {"BACKEND": "livechannels.layer.LiveChannelLayer", "CONFIG": {**where, "prefix": prefix}}
    with override_settings(CHANNEL_LAYERS={"default": config}):
        yield get_channel_layer()
        await get_channel_layer().close()


@pytest.mark.parametrize("consumer", [Chat, SyncChat])
async def test_websocket_communicators_chat(installed, consumer):
    people = [WebsocketCommunicator(consumer.as_asgi(), "/chat") for _ in range(3)]
    for person in people:
        assert (await person.connect(5))[0]
    for number in range(5):
        await people[number % 3].send_json_to({"text": f"hello {number}"})
        for person in people:
            assert await person.receive_json_from(5) == {"text": f"hello {number}"}
    await people[0].disconnect()
    await people[1].send_json_to({"text": "bye"})
    for person in people[1:]:
        assert await person.receive_json_from(5) == {"text": "bye"}
        await person.disconnect()


@pytest.mark.parametrize("consumer", [Follower, SyncFollower])
async def test_stock_consumers_follow_a_live_channel(installed, consumer):
    viewer = WebsocketCommunicator(consumer.as_asgi(), "/live")
    assert (await viewer.connect(5))[0]
    for number in range(1, 11):
        await installed.publish("stream/cpu", {"n": number})
    for number in range(1, 11):
        assert await viewer.receive_json_from(5) == {"data": {"n": number}, "offset": number}
    await viewer.disconnect()


async def test_messages_from_outside_reach_a_consumer(installed):
    person = WebsocketCommunicator(Chat.as_asgi(), "/chat")
    await person.connect(5)
    await asyncio.to_thread(
        async_to_sync(get_channel_layer().group_send), "chat", {"type": "chat.message", "text": "a"}
    )
    await asyncio.to_thread(get_channel_layer().group_send_sync, "chat", {"type": "chat.message", "text": "b"})
    assert [(await person.receive_json_from(5))["text"] for _ in range(2)] == ["a", "b"]
    await person.disconnect()


@pytest.mark.filterwarnings("ignore:async_to_sync was passed:UserWarning")  # the worker gives its consumers a lambda
async def test_a_worker_reads_plain_channels(installed):
    class Job(AsyncConsumer):
        async def do_it(self, message):
            await self.channel_layer.send("results", {"type": "done", "number": message["number"]})

    class SlowJob(SyncConsumer):
        def do_it(self, message):
            async_to_sync(self.channel_layer.send)("results", {"type": "done", "number": message["number"]})

    router = ChannelNameRouter({"jobs": Job.as_asgi(), "slow-jobs": SlowJob.as_asgi()})
    worker = Worker(application=router, channels=["jobs", "slow-jobs"], channel_layer=installed)
    running = asyncio.ensure_future(worker.handle())
    for number in range(20):
        await installed.send(("jobs", "slow-jobs")[number % 2], {"type": "do.it", "number": number})
    done = [(await receive(installed, "results"))["number"] for _ in range(20)]
    assert sorted(done) == list(range(20))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_plain_application_communicator(installed):
    class Echo(AsyncConsumer):
        async def test_echo(self, message):
            await self.channel_layer.send(message["reply"], {"type": "echo"})

    communicator = ApplicationCommunicator(Echo.as_asgi(), {"type": "test"})
    reply = await installed.new_channel()
    await communicator.send_input({"type": "test.echo", "reply": reply})
    assert await receive(installed, reply) == {"type": "echo"}
    communicator.stop()


def test_the_live_server_test_case(redis_url, prefix, tmp_path):
    """It needs a database file and a process of its own, so it runs as a project would run it."""
    environment = {
        **os.environ, "DJANGO_SETTINGS_MODULE": "tests.layer.live_settings", "TEST_REDIS_URL": redis_url,
        "TEST_PREFIX": prefix, "TEST_DATABASE": str(tmp_path / "db.sqlite3"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "django", "test", "tests.layer.live_server_case", "--noinput"],
        cwd=Path(__file__).parent.parent.parent, env=environment, capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 1 test" in done.stderr


class TestLettingGo:
    async def test_a_plain_channel_nobody_reads_any_more_leaves_nothing(self, layer, monkeypatch):
        monkeypatch.setattr(queues, "POLL", 0.05)
        node = layer.node()
        for number in range(5):
            await layer.send(f"reply-{number}", {"type": "x", "number": number})
            assert (await receive(layer, f"reply-{number}"))["number"] == number
        await eventually(lambda: all(reader.idle for reader in node._readers.values()), "the readers have ended")
        node.sweep()
        assert not node._readers
        await layer.send("reply-0", {"type": "x", "number": 9})
        assert (await receive(layer, "reply-0"))["number"] == 9

    async def test_a_busy_consumer_keeps_its_groups(self, make_layer, monkeypatch):
        """One that polls: its last read was cancelled, and then a handler takes long."""
        monkeypatch.setattr(node_module, "SWEEP_EVERY", 0.1)
        layer = make_layer(expiry=0.1)
        busy = asyncio.Event()

        async def consume():
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(layer.receive(channel), 0.001)
            await busy.wait()
            return await layer.receive(channel)

        consumer = asyncio.ensure_future(consume())
        await asyncio.sleep(0.5)
        layer.node().sweep()
        busy.set()
        await asyncio.sleep(0)
        await layer.group_send("room", {"type": "still here"})
        assert await asyncio.wait_for(consumer, 10) == {"type": "still here"}

    async def test_a_stock_consumer_in_a_long_handler_keeps_its_groups(self, make_layer, monkeypatch):
        """`await_many_dispatch` begins no read meanwhile; what comes expires."""
        monkeypatch.setattr(node_module, "SWEEP_EVERY", 0.1)
        layer = make_layer(expiry=0.1)
        monkeypatch.setattr("channels.consumer.get_channel_layer", lambda alias: layer)
        busy, begun, seen = asyncio.Event(), asyncio.Event(), []

        class Consumer(AsyncConsumer):
            async def start(self, message):
                await layer.group_add("room", self.channel_name)
                await self.send({"type": "ready"})

            async def work(self, message):
                seen.append(message["number"])
                begun.set()
                await busy.wait()
                await self.send({"type": "done"})

        consumer = ApplicationCommunicator(Consumer(), {"type": "worker"})
        await consumer.send_input({"type": "start"})
        await consumer.receive_output(10)
        await layer.group_send("room", {"type": "work", "number": 1})
        await asyncio.wait_for(begun.wait(), 10)
        await layer.group_send("room", {"type": "work", "number": 2})
        await asyncio.sleep(0.5)
        layer.node().sweep()
        busy.set()
        await consumer.receive_output(10)
        await layer.group_send("room", {"type": "work", "number": 3})
        while 3 not in seen:
            await consumer.receive_output(10)
        await consumer.wait(0)

    async def test_a_group_whose_members_expired_is_left(self, make_layer):
        layer = make_layer(group_expiry=1)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        node = layer.node()
        await asyncio.sleep(1.1)
        await layer.group_send("room", {"type": "x"})
        await eventually(lambda: not len(node.groups), "the group is forgotten")
        await eventually(lambda: node.feeds.get("g/room") is None, "the group is left")
