"""What users of other layers complain about, by issue number: cr = django/channels_redis, ch = django/channels.

Not a layer's business, and so without a test: ch_1924, ch_1203, ch_2133 (handlers run one at a time),
da_170 (a slow browser: the socket path bounds it), ch_1306 and cr_259 (documentation of hooks).
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from asgiref.sync import async_to_sync

from livechannels.exceptions import EngineUnavailable
from livechannels.layer import LiveChannelLayer
from livechannels.messages.publications import ClientInfo
from livechannels.node import node as node_module
from tests.faults.proxy import FaultProxy
from tests.layer.conftest import eventually, receive, receive_all, unread
from tests.layer.peer import Peer


@pytest.fixture
async def redis_layer(redis_layers):
    return redis_layers()


# Sync callers and loops


def test_cr_332_cr_312_no_event_loop_is_closed(redis_url, prefix):
    layer = LiveChannelLayer(hosts=[redis_url], prefix=prefix)
    for _ in range(5):
        async_to_sync(layer.group_send)("room", {"type": "x"})
        asyncio.run(layer.group_send("room", {"type": "x"}))
        asyncio.run(layer.send("plain", {"type": "x"}))
    assert len(asyncio.run(unread_and_close(layer))) == 5


async def unread_and_close(layer):
    try:
        return await unread(layer, "plain")
    finally:
        await layer.close()


def test_cr_75_cr_124_cr_125_connections_do_not_pile_up(own_redis, prefix):
    layer = LiveChannelLayer(hosts=[own_redis.url], prefix=prefix)
    for _ in range(300):
        async_to_sync(layer.group_send)("room", {"type": "x"})
    assert len(own_redis.connections()) <= 2
    asyncio.run(layer.close())


def test_ch_1018_no_reconnect_for_each_send(redis_url, redis_server, prefix):
    layer = LiveChannelLayer(hosts=[redis_url], prefix=prefix)
    async_to_sync(layer.send)("plain", {"type": "x"})
    before = redis_server.info("stats")["total_connections_received"]
    for _ in range(100):
        with suppress(Exception):
            async_to_sync(layer.send)("plain", {"type": "x"})
    assert redis_server.info("stats")["total_connections_received"] - before - 1 <= 1
    asyncio.run(layer.close())


def test_ch_859_a_second_async_to_sync_in_one_thread_works(redis_url, prefix):
    layer = LiveChannelLayer(hosts=[redis_url], prefix=prefix)

    def task():
        for _ in range(3):
            async_to_sync(layer.send)("plain", {"type": "x"})

    with ThreadPoolExecutor(1) as pool:
        pool.submit(task).result(10)
        pool.submit(task).result(10)
    assert len(asyncio.run(unread_and_close(layer))) == 6


def test_ch_876_ch_908_cr_367_one_layer_over_many_test_loops(redis_url, prefix):
    layer = LiveChannelLayer(hosts=[redis_url], prefix=prefix)

    async def one():
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "x"})
        return await receive(layer, channel, 5)

    for _ in range(10):
        assert asyncio.run(one()) == {"type": "x"}
    asyncio.run(layer.close())


def test_ch_1435_used_from_several_threads_and_loops_at_once(redis_url, prefix):
    layer = LiveChannelLayer(hosts=[redis_url], prefix=prefix, capacity=1000)
    failures: list[BaseException] = []

    async def serve(which):
        channel = await layer.new_channel()
        await layer.group_add(f"room-{which}", channel)
        for number in range(30):
            await layer.group_send(f"room-{which}", {"type": "x", "number": number})
        got = [(await receive(layer, channel, 10))["number"] for _ in range(30)]
        assert got == list(range(30))
        await layer.close()

    def run(which):
        try:
            asyncio.run(serve(which))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(which,)) for which in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []


async def test_cr_81_connecting_needs_no_thread_that_waits_for_it(redis_server, redis_url, prefix):
    """A sync consumer holds the pool's thread while it waits for the loop; looking up a name may need that thread."""
    layer = LiveChannelLayer(hosts=[f"redis://localhost:{redis_server.port}/0"], prefix=prefix)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    started = time.monotonic()
    await asyncio.to_thread(async_to_sync(layer.group_send), "room", {"type": "x"})
    assert time.monotonic() - started < 2
    assert await receive(layer, channel) == {"type": "x"}
    await layer.close()


# Connections, failover, deploy


async def test_cr_256_ch_1717_nothing_is_missed_around_a_reconnect(redis_layers, redis_server):
    receiver, sender = redis_layers(capacity=500), redis_layers()
    channel = await receiver.new_channel()
    await receiver.group_add("room", channel)
    for number in range(60):
        if number % 20 == 5:
            assert redis_server.kill_connections("pubsub")
        await sender.group_send("room", {"type": "x", "number": number})
    assert [m["number"] for m in await receive_all(receiver, channel, 60)] == list(range(60))


async def test_cr_406_on_disconnect_and_on_reconnect_do_something(redis_layers, redis_server):
    layer = redis_layers(on_disconnect="gone", on_reconnect="back")
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    redis_server.kill_connections("pubsub")
    assert [(await receive(layer, channel))["type"] for _ in range(2)] == ["gone", "back"]


async def test_cr_20_cr_19_ch_285_a_redis_restart_needs_no_restart_of_ours(own_redis, prefix):
    layer = LiveChannelLayer(hosts=[own_redis.url], prefix=prefix)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    waiting = asyncio.ensure_future(layer.receive(channel))
    own_redis.restart()
    await eventually(lambda: layer.health()["status"] == "ok", "the return")
    await layer.group_send("room", {"type": "x"})
    assert await asyncio.wait_for(waiting, 10) == {"type": "x"}
    await layer.close()


async def test_cr_164_cr_408_idle_connections_may_be_closed_without_a_word(own_redis, prefix, caplog):
    own_redis.command("CONFIG", "SET", "timeout", "1")
    layer = LiveChannelLayer(hosts=[own_redis.url], prefix=prefix)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.group_send("room", {"type": "x", "number": 0})
    await asyncio.to_thread(layer.group_send_sync, "room", {"type": "x", "number": 1})
    await asyncio.sleep(2.5)
    await layer.group_send("room", {"type": "x", "number": 2})
    await asyncio.to_thread(layer.group_send_sync, "room", {"type": "x", "number": 3})
    assert [m["number"] for m in await receive_all(layer, channel, 4)] == [0, 1, 2, 3]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    await layer.close()


async def test_cr_80_cr_30_a_server_that_turns_read_only_is_left(own_redis, prefix):
    layer = LiveChannelLayer(hosts=[own_redis.url], prefix=prefix)
    await layer.group_send("room", {"type": "x"})
    own_redis.command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(EngineUnavailable):
        await layer.group_send("room", {"type": "x"})
    own_redis.command("REPLICAOF", "NO", "ONE")
    deadline = time.monotonic() + 5
    while True:
        try:
            await layer.group_send("room", {"type": "x"})
            break
        except EngineUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    await layer.close()


async def test_cr_379_every_script_declares_its_keys(redis_layer, redis_server):
    layer = redis_layer

    async def use_everything():
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_add("room", "plain")
        await layer.group_send("room", {"type": "x"})
        await receive(layer, channel)
        await receive(layer, "plain")
        await layer.group_discard("room", "plain")
        await layer.publish("stream/cpu", 1, idempotency_key="k")
        await layer.history("stream/cpu")
        await layer.presence_enter("room/1", ClientInfo("1", "a"))
        await layer.presence("room/1")
        await layer.flush()

    await use_everything()
    with redis_server.client as client, client.monitor() as monitor:
        await use_everything()
        redis_server.command("ECHO", "the-end")
        seen = []
        while "the-end" not in (command := monitor.next_command())["command"]:
            words = command["command"].split()
            if command["client_type"] != "lua" and words[0].upper() == "EVALSHA":
                seen.append(words)
    assert len(seen) >= 6
    assert [words for words in seen if int(words[2].strip('"')) < 1] == []


async def test_da_177_ch_922_closing_leaves_at_once(redis_layers, redis_server, prefix):
    leaving, staying = redis_layers(), redis_layers()
    channel = await leaving.new_channel()
    await leaving.group_add("room", channel)
    await eventually(lambda: leaving.health()["status"] == "ok", "up")
    await asyncio.wait_for(leaving.close(), 3)
    started = time.monotonic()
    await staying.flush()
    assert time.monotonic() - started < 0.9, "flush still waits for a node that said goodbye"


async def test_ch_1119_ch_1685_receive_is_promptly_cancellable(redis_layer, redis_server):
    waiting = asyncio.ensure_future(redis_layer.receive(await redis_layer.new_channel()))
    await asyncio.sleep(0.1)
    redis_server.freeze()
    started = time.monotonic()
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    redis_server.thaw()
    assert time.monotonic() - started < 0.2


# Loss, capacity, backpressure


async def test_cr_181_over_capacity_is_one_line_not_a_flood(make_layer, caplog):
    caplog.set_level(logging.INFO, logger="livechannels")
    layer = make_layer(capacity=2)
    slow, quick = await layer.new_channel(), await layer.new_channel()
    for channel in (slow, quick):
        await layer.group_add("room", channel)
    for number in range(60):
        await layer.group_send("room", {"type": "x", "number": number})
        assert (await receive(layer, quick))["number"] == number
    lines = [record.getMessage() for record in caplog.records if "over capacity" in record.getMessage()]
    assert lines == ["1 of 2 channels over capacity in group room"]


async def test_cr_121_cr_109_cr_131_dropped_bursts_are_counted(make_layer):
    from livechannels.node.groups import DROPPED

    before = DROPPED.value(kind="group")
    layer = make_layer(capacity=5)
    slow, quick = await layer.new_channel(), await layer.new_channel()
    for channel in (slow, quick):
        await layer.group_add("room", channel)
    for _ in range(25):
        await layer.group_send("room", {"type": "x"})
        await receive(layer, quick)
    assert DROPPED.value(kind="group") - before == 20


async def test_cr_97_a_slow_consumer_does_not_fill_its_siblings(make_layer):
    layer = make_layer(capacity=5)
    slow, sibling = await layer.new_channel(), await layer.new_channel()
    for channel in (slow, sibling):
        await layer.group_add("room", channel)
    for number in range(50):
        await layer.group_send("room", {"type": "x", "number": number})
        assert (await receive(layer, sibling))["number"] == number
    for number in range(5):
        await layer.send(sibling, {"type": "y", "number": number})
    assert len(await receive_all(layer, sibling, 5)) == 5


async def test_cr_293_members_that_never_read_are_swept(make_layer, monkeypatch):
    monkeypatch.setattr(node_module, "LONG_READ", 0.0)
    layer = make_layer(expiry=0.2)
    reads = await layer.new_channel()
    await layer.group_add("room", reads)
    for _ in range(20):
        await layer.group_add("room", await layer.new_channel())
    waiting = asyncio.ensure_future(layer.receive(reads))
    await layer.group_send("room", {"type": "x"})
    await waiting
    await asyncio.sleep(0.3)
    waiting = asyncio.ensure_future(layer.receive(reads))
    await asyncio.sleep(0)
    layer.node().sweep()
    assert len(layer.node().mailboxes) == 1
    await layer.group_send("room", {"type": "still here"})
    assert await waiting == {"type": "still here"}


async def test_cr_86_ch_1683_cr_134_receive_does_not_get_stuck_after_cancellations(layer):
    for channel in (await layer.new_channel(), "plain"):
        for number in range(30):
            with suppress(TimeoutError):
                await asyncio.wait_for(layer.receive(channel), 0.002)
            await layer.send(channel, {"type": "x", "number": number})
            assert await receive(layer, channel, 3) == {"type": "x", "number": number}


async def test_cr_313_no_lock_errors_under_load(make_layer):
    layer = make_layer(capacity=3000)
    channels = [await layer.new_channel() for _ in range(10)]
    for channel in channels:
        await layer.group_add("room", channel)
    await asyncio.gather(*(layer.group_send("room", {"type": "x", "number": n}) for n in range(300)))
    for channel in channels:
        assert len(await receive_all(layer, channel, 300)) == 300


async def test_cr_348_a_cancelled_command_leaves_no_reply_behind(redis_layer):
    layer = redis_layer
    positions = []
    for number in range(40):
        task = asyncio.ensure_future(layer.history("stream/other"))
        for _ in range(number % 4):
            await asyncio.sleep(0)
        task.cancel()
        positions.append(await layer.publish("stream/cpu", number))
        await asyncio.wait([task])
    assert [position.offset for position in positions] == list(range(1, 41))


async def test_cr_163_cr_299_one_plain_message_goes_to_one_worker(redis_layers, redis_url, prefix):
    layer = redis_layers(capacity=500)
    async with (
        Peer({"hosts": [redis_url], "prefix": prefix}) as one,
        Peer({"hosts": [redis_url], "prefix": prefix}) as two,
    ):
        for peer in (one, two):
            await peer.call("listen", "jobs")
        for number in range(60):
            await layer.send("jobs", {"type": "x", "number": number})
        await eventually(lambda: len(one.heard) + len(two.heard) >= 60, "all jobs taken")
        await asyncio.sleep(0.2)
        assert sorted(m["number"] for peer in (one, two) for _, m in peer.heard) == list(range(60))


async def test_cr_89_group_messages_of_several_senders_have_one_order(redis_layers):
    senders = [redis_layers() for _ in range(3)]
    receivers = [redis_layers(capacity=500) for _ in range(2)]
    channels = [await receiver.new_channel() for receiver in receivers]
    for receiver, channel in zip(receivers, channels, strict=True):
        await receiver.group_add("room", channel)
    await asyncio.gather(
        *(
            sender.group_send("room", {"type": "x", "id": f"{which}-{n}"})
            for which, sender in enumerate(senders)
            for n in range(50)
        )
    )
    seen = [
        [m["id"] for m in await receive_all(receiver, channel, 150)]
        for receiver, channel in zip(receivers, channels, strict=True)
    ]
    assert seen[0] == seen[1]
    for which in range(3):
        assert [one for one in seen[0] if one.startswith(f"{which}-")] == [f"{which}-{n}" for n in range(50)]


# Memory and speed


async def test_cr_212_cr_384_ch_1361_what_nobody_reads_is_let_go(make_layer, monkeypatch):
    monkeypatch.setattr(node_module, "LONG_READ", 0.0)
    layer = make_layer(expiry=0.2)
    for _ in range(200):
        await layer.send(await layer.new_channel(), {"type": "x", "text": "y" * 1000})
    await asyncio.sleep(0.3)
    layer.node().sweep()
    assert len(layer.node().mailboxes) == 0


async def test_cr_276_ended_consumers_leave_nothing(make_layer, monkeypatch):
    """A consumer that ended without goodbye: its receive was cancelled and never came back."""
    layer = make_layer(expiry=0.2)
    monkeypatch.setattr(node_module, "SWEEP_EVERY", 0.1)

    async def consume():
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        with suppress(TimeoutError):
            await asyncio.wait_for(layer.receive(channel), 0.001)

    await asyncio.gather(*(asyncio.ensure_future(consume()) for _ in range(50)))
    await asyncio.sleep(0.4)
    layer.node().sweep()
    assert len(layer.node().mailboxes) == 0
    assert len(layer.node().groups) == 0


async def test_cr_83_cr_62_cr_98_cr_7_one_command_for_a_group_of_any_size(redis_layers, redis_server):
    layer = redis_layers(capacity=1000)
    channels = [await layer.new_channel() for _ in range(500)]
    for channel in channels:
        await layer.group_add("room", channel)
    await layer.group_send("room", {"type": "x", "number": -1})
    await asyncio.sleep(0.2)
    redis_server.command("CONFIG", "RESETSTAT")
    for number in range(20):
        await layer.group_send("room", {"type": "x", "number": number})
    stats = redis_server.info("commandstats")
    scripts = sum(entry["calls"] for name, entry in stats.items() if name in ("cmdstat_evalsha", "cmdstat_eval"))
    assert 20 <= scripts <= 24, stats
    for channel in channels:
        assert [m["number"] for m in await receive_all(layer, channel, 21)] == list(range(-1, 20))


async def test_ch_686_dead_members_do_not_slow_a_group(redis_layers):
    layer = redis_layers()
    alive = await layer.new_channel()
    await layer.group_add("room", alive)
    for number in range(300):
        await layer.group_add("room", f"dead-plain-{number}")
        await layer.group_discard("room", f"dead-plain-{number}")
    started = time.monotonic()
    for number in range(50):
        await layer.group_send("room", {"type": "x", "number": number})
    assert [m["number"] for m in await receive_all(layer, alive, 50)] == list(range(50))
    assert time.monotonic() - started < 2


async def test_ch_1371_ch_999_group_expiry_does_not_cut_off_a_healthy_socket(make_layer):
    layer = make_layer(group_expiry=1)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    waiting = asyncio.ensure_future(layer.receive(channel))
    await asyncio.sleep(1.4)
    await layer.group_send("room", {"type": "still here"})
    assert await asyncio.wait_for(waiting, 3) == {"type": "still here"}


def test_cr_273_processes_agree_which_host_holds_what(redis_url, redis_server, own_redis, prefix):
    """Whatever PYTHONHASHSEED says."""
    program = (
        "import sys; from livechannels.layer import LiveChannelLayer\n"
        "layer = LiveChannelLayer(hosts=sys.argv[2:], prefix=sys.argv[1])\n"
        "for n in range(10): layer.send_sync(f'plain-{n}', {'type': 'x'})\n"
    )
    hosts = [redis_url, own_redis.url]
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", program, prefix, *hosts], env={**os.environ, "PYTHONHASHSEED": seed}, check=True
        )
    layer = LiveChannelLayer(hosts=hosts, prefix=prefix)

    async def read():
        counts = [len(await unread(layer, f"plain-{n}")) for n in range(10)]
        await layer.close()
        return counts

    assert asyncio.run(read()) == [2] * 10


# Asked for, absent everywhere


async def test_ch_941_ch_174_ch_308_who_is_there(layer):
    await layer.presence_enter("room/1", ClientInfo("1", "client-a"))
    assert set(await layer.presence("room/1")) == {"client-a"}


async def test_ch_818_ch_1310_ch_492_history_and_resume(layer):
    positions = [await layer.publish("stream/cpu", number) for number in range(5)]
    channel = await layer.new_channel()
    await layer.subscribe("stream/cpu", channel, since=positions[1])
    assert [m["data"] for m in await receive_all(layer, channel, 3)] == [2, 3, 4]


async def test_redis_py_2417_a_frozen_path_is_found_though_tcp_says_nothing(redis_layers, redis_server):
    with FaultProxy(redis_server.port) as proxy:
        receiver, sender = redis_layers(hosts=[proxy.url]), redis_layers()
        channel = await receiver.new_channel()
        await receiver.group_add("room", channel)
        proxy.stall("down")
        await sender.group_send("room", {"type": "x"})
        await eventually(lambda: receiver.health()["status"] == "degraded", "noticing", 5)
        proxy.reset()
        proxy.heal()
        assert await receive(receiver, channel, 8) == {"type": "x"}
