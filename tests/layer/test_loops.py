"""Sync callers, threads, forks and many loops: no connection per call, none leaked, none shared, nothing blocked."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import async_to_sync

from livechannels.layer import LiveChannelLayer
from tests.layer.conftest import eventually, receive_all, unread


def in_thread(call, *args):
    """Run where no event loop is running, as a WSGI view or a Celery task does."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call, *args).result(30)


async def test_async_to_sync_group_send_and_send_from_a_thread(layer):
    channel = await layer.new_channel()
    await layer.group_add("room", channel)

    def view():
        for number in range(20):
            async_to_sync(layer.group_send)("room", {"type": "x", "number": number})
            async_to_sync(layer.send)(channel, {"type": "y", "number": number})
            async_to_sync(layer.send)("plain", {"type": "z", "number": number})

    await asyncio.to_thread(view)
    got = await receive_all(layer, channel, 40)
    assert [m["number"] for m in got if m["type"] == "x"] == list(range(20))
    assert [m["number"] for m in got if m["type"] == "y"] == list(range(20))
    assert [m["number"] for m in await unread(layer, "plain")] == list(range(20))


async def test_native_sync_calls(layer):
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.group_add("room", "plain")

    def view():
        for number in range(20):
            layer.group_send_sync("room", {"type": "x", "number": number})

    await asyncio.to_thread(view)
    assert [m["number"] for m in await receive_all(layer, channel, 20)] == list(range(20))
    await asyncio.to_thread(layer.send_sync, channel, {"type": "x", "number": 20})
    assert [m["number"] for m in await receive_all(layer, channel, 1)] == [20]
    assert [m["number"] for m in await unread(layer, "plain")] == list(range(20))


async def test_group_add_and_discard_through_async_to_sync(layer):
    """A sync consumer joins groups this way; its channel lives on the server's loop."""
    channel = await layer.new_channel()
    await asyncio.to_thread(async_to_sync(layer.group_add), "room", channel)
    await layer.group_send("room", {"type": "x"})
    assert await unread(layer, channel) == [{"type": "x"}]
    await asyncio.to_thread(async_to_sync(layer.group_discard), "room", channel)
    await layer.group_send("room", {"type": "x"})
    assert await unread(layer, channel) == []


async def test_sync_senders_in_many_threads_lose_nothing(make_layer):
    layer = make_layer(capacity=2000)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)

    def work(which):
        for number in range(50):
            message = {"type": "x", "id": which * 50 + number}
            if which % 2:
                layer.group_send_sync("room", message)
            else:
                async_to_sync(layer.group_send)("room", message)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    got = await receive_all(layer, channel, 400)
    for thread in threads:
        thread.join(10)
    assert sorted(message["id"] for message in got) == list(range(400))


def test_many_loops_in_sequence(make_layer_sync):
    """As pytest does it: one cached layer, a new loop for each test."""
    layer = make_layer_sync()

    async def one_test(number):
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "x", "number": number})
        await layer.send(channel, {"type": "y", "number": number})
        return [(await asyncio.wait_for(layer.receive(channel), 5))["number"] for _ in range(2)]

    for number in range(30):
        assert asyncio.run(one_test(number)) == [number, number]


def test_two_loops_at_once_each_with_members(make_layer_sync):
    layer = make_layer_sync()
    ready = threading.Barrier(3, timeout=10)
    heard: dict[int, list[int]] = {}

    async def member(which):
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await asyncio.to_thread(ready.wait)
        heard[which] = [(await asyncio.wait_for(layer.receive(channel), 10))["number"] for _ in range(20)]
        await layer.close()

    threads = [threading.Thread(target=asyncio.run, args=(member(which),)) for which in range(2)]
    for thread in threads:
        thread.start()
    ready.wait()
    for number in range(20):
        layer.group_send_sync("room", {"type": "x", "number": number})
    for thread in threads:
        thread.join(15)
    assert heard == {0: list(range(20)), 1: list(range(20))}


@pytest.fixture(params=["memory", "redis"])
def make_layer_sync(request, prefix):
    made = []

    def make(**config):
        where = {"ha_engine": "memory"}
        if request.param == "redis":
            where = {"hosts": [request.getfixturevalue("redis_url")]}
        made.append(LiveChannelLayer(**{**where, "prefix": prefix, **config}))
        return made[-1]

    yield make
    for layer in made:
        asyncio.run(layer.close())


class TestConnections:
    """What CLIENT LIST says."""

    @pytest.mark.parametrize("native", [False, True])
    async def test_no_connection_per_call(self, own_redis, prefix, native):
        layer = LiveChannelLayer(hosts=[own_redis.url], prefix=prefix)

        def burst(count):
            for _ in range(count):
                if native:
                    layer.group_send_sync("room", {"type": "x"})
                else:
                    async_to_sync(layer.group_send)("room", {"type": "x"})

        received_before = own_redis.info("stats")["total_connections_received"]
        await asyncio.to_thread(burst, 100)
        opened = own_redis.info("stats")["total_connections_received"] - received_before - 1
        assert opened <= 2, f"{opened} connections for 100 calls from one thread"
        assert len(own_redis.connections()) <= 2
        await layer.close()

    async def test_many_threads_share_few_connections(self, own_redis, prefix):
        layer = LiveChannelLayer(hosts=[own_redis.url], prefix=prefix)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda n: layer.group_send_sync("room", {"type": "x", "n": n}), range(800)))
        assert len(own_redis.connections()) <= 17
        await layer.close()

    def test_loops_that_ended_leave_no_connection(self, own_redis, prefix):
        layer = LiveChannelLayer(hosts=[own_redis.url], prefix=prefix)

        async def serve():
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            await layer.group_send("room", {"type": "x"})
            await asyncio.wait_for(layer.receive(channel), 5)

        for _ in range(30):
            asyncio.run(serve())
        gc.collect()
        count = len(own_redis.connections())
        assert count <= 6, f"{count} connections after 30 loops that are gone"
        asyncio.run(layer.close())

    async def test_close_closes_everything(self, own_redis, prefix):
        layer = LiveChannelLayer(hosts=[own_redis.url], prefix=prefix)
        await layer.group_add("room", await layer.new_channel())
        await asyncio.to_thread(layer.group_send_sync, "room", {"type": "x"})
        await layer.group_send("room", {"type": "x"})
        assert own_redis.connections()
        await layer.close()
        await eventually(lambda: not own_redis.connections(), "no connection left")

    async def test_a_serving_loop_needs_few_connections(self, own_redis, prefix):
        layer = LiveChannelLayer(hosts=[own_redis.url], prefix=prefix)
        for number in range(50):
            await layer.group_add(f"room-{number}", await layer.new_channel())
        await asyncio.gather(*(layer.group_send(f"room-{n % 50}", {"type": "x"}) for n in range(200)))
        assert len(own_redis.connections()) <= 3
        await layer.close()

    async def test_making_a_layer_opens_nothing(self, own_redis, prefix):
        LiveChannelLayer(hosts=[own_redis.url], prefix=prefix)
        await asyncio.sleep(0.05)
        assert own_redis.connections() == []


class TestFork:
    """F18. gunicorn --preload and Celery's prefork: used before the fork, used after it, on both sides."""

    def test_parent_and_children_share_no_socket(self, redis_url, redis_server, prefix):
        layer = LiveChannelLayer(hosts=[redis_url], prefix=prefix, capacity=1000)
        layer.send_sync("plain", {"type": "x", "from": "parent", "number": -1})
        children = []
        for child in range(3):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    for number in range(30):
                        layer.send_sync("plain", {"type": "x", "from": child, "number": number})
                        async_to_sync(layer.send)("plain", {"type": "x", "from": child, "number": number})
                    status = 0
                finally:
                    os._exit(status)
            children.append(pid)
        for number in range(30):
            layer.send_sync("plain", {"type": "x", "from": "parent", "number": number})
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]

        async def read():
            found = await unread(layer, "plain")
            await layer.close()
            return found

        got = asyncio.run(read())
        assert len(got) == 1 + 30 + 3 * 60
        assert [m["number"] for m in got if m["from"] == "parent"] == list(range(-1, 30))

    async def test_a_running_loop_of_the_parent_keeps_its_messages(self, redis_url, prefix):
        layer = LiveChannelLayer(hosts=[redis_url], prefix=prefix, capacity=1000)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "x", "number": 0})
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for number in range(1, 11):
                    layer.group_send_sync("room", {"type": "x", "number": number})
                status = 0
            finally:
                os._exit(status)
        waited = await asyncio.to_thread(os.waitpid, pid, 0)
        assert waited[1] == 0
        for number in range(11, 21):
            await layer.group_send("room", {"type": "x", "number": number})
        assert [m["number"] for m in await receive_all(layer, channel, 21)] == list(range(21))
        await layer.close()

    def test_a_child_may_serve(self, redis_url, prefix):
        layer = LiveChannelLayer(hosts=[redis_url], prefix=prefix)
        layer.group_send_sync("room", {"type": "warm-up"})

        async def serve():
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            layer.group_send_sync("room", {"type": "x"})
            return await asyncio.wait_for(layer.receive(channel), 5) == {"type": "x"}

        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if asyncio.run(serve()) else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        asyncio.run(layer.close())


async def heartbeats(call, tick=0.05):
    """The longest pause of a 50 ms heartbeat while `call` runs, and what the call ended with."""
    longest, last, stopped = 0.0, time.monotonic(), False

    async def beat():
        nonlocal longest, last
        while not stopped:
            await asyncio.sleep(tick)
            now = time.monotonic()
            longest, last = max(longest, now - last), now

    beating = asyncio.ensure_future(beat())
    await asyncio.sleep(0)
    outcome = (await asyncio.gather(call, return_exceptions=True))[0]
    stopped = True
    await beating
    return longest, outcome


@pytest.mark.parametrize("warm", [False, True], ids=["first call", "warm"])
@pytest.mark.parametrize("method", ["group_send", "send", "publish", "group_add"])
async def test_a_frozen_redis_blocks_no_loop(redis_layers, redis_server, warm, method):
    layer = redis_layers()
    channel = await layer.new_channel()
    if warm:
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "warm"})
    call = {
        "group_send": lambda: layer.group_send("room", {"type": "x"}),
        "send": lambda: layer.send("plain", {"type": "x"}),
        "publish": lambda: layer.publish("stream/cpu", {"n": 1}),
        "group_add": lambda: layer.group_add("other", channel),
    }[method]
    redis_server.freeze()
    try:
        started = time.monotonic()
        longest, outcome = await heartbeats(call())
        took = time.monotonic() - started
    finally:
        redis_server.thaw()
    assert longest < 0.25, f"the loop stood still for {longest:.2f} s"
    assert took < 4
    if method != "group_add":
        assert isinstance(outcome, ConnectionError), outcome
