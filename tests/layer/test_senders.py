"""Loops that only send: one that stays gets a port of its own, one that passes none, and it ends with its loop."""

from __future__ import annotations

import asyncio
import gc
import os
import time

import pytest
from asgiref.sync import async_to_sync

from livechannels.engines import redis as senders
from livechannels.exceptions import EngineUnavailable
from livechannels.layer import LiveChannelLayer
from tests.layer.conftest import eventually, receive_all
from tests.layer.test_loops import heartbeats

OWN = 2
"""Connections of a port: one writes, one listens to its own probe."""


@pytest.fixture
def stays_soon(monkeypatch):
    monkeypatch.setattr(senders, "STAYS_AFTER", 0.1)


@pytest.fixture
def layer(own_redis, prefix):
    return LiveChannelLayer(hosts=[own_redis.url], prefix=prefix)


def count(server) -> int:
    return len(server.connections())


async def stay(layer, server) -> None:
    """Send until this loop has connections of its own, beside the one of the outlet."""

    async def sent_and_up():
        await layer.group_send("room", {"type": "x"})
        return senders_port(layer) is not None

    deadline = time.monotonic() + 10
    while not await sent_and_up():
        assert time.monotonic() < deadline, "the loop got no port"
        await asyncio.sleep(0.01)
    assert count(server) == 1 + OWN


def senders_port(layer):
    return layer.engine._senders.port()


async def test_a_loop_that_passes_opens_nothing(layer, own_redis):
    for _ in range(20):
        await layer.group_send("room", {"type": "x"})
    assert count(own_redis) == 1, "many calls, but no long while"
    await asyncio.sleep(senders.STAYS_AFTER)
    for _ in range(3):
        await layer.group_send("room", {"type": "x"})
    await layer.close()
    assert await eventually(lambda: count(own_redis) == 0, "no connection left")


def test_loops_in_sequence_open_nothing(layer, own_redis):
    until = time.monotonic() + 2 * senders.STAYS_AFTER
    while time.monotonic() < until:
        asyncio.run(layer.group_send("room", {"type": "x"}))
        async_to_sync(layer.group_send)("room", {"type": "x"})
    assert own_redis.info("stats")["total_connections_received"] <= 3
    asyncio.run(layer.close())


async def test_few_calls_over_a_long_while_open_nothing(layer, own_redis, stays_soon):
    for _ in range(senders.STAYS_CALLS - 1):
        await layer.group_send("room", {"type": "x"})
        await asyncio.sleep(0.03)
    assert count(own_redis) == 1
    await layer.close()


async def test_a_loop_that_stays_gets_a_port_and_close_closes_it(layer, own_redis, stays_soon):
    await stay(layer, own_redis)
    await asyncio.gather(*(layer.group_send("room", {"type": "x"}) for _ in range(500)))
    assert count(own_redis) == 1 + OWN
    await layer.close()
    await eventually(lambda: count(own_redis) == 0, "no connection left")
    await layer.group_send("room", {"type": "x"})
    assert count(own_redis) == 1
    await layer.close()


@pytest.mark.parametrize(
    "run",
    [lambda call, *args: asyncio.run(call(*args)), lambda call, *args: async_to_sync(call)(*args)],
    ids=["asyncio.run", "async_to_sync"],
)
def test_the_port_ends_with_its_loop(layer, own_redis, stays_soon, run):
    for _ in range(3):
        run(stay, layer, own_redis)
        assert count(own_redis) == 1
    asyncio.run(layer.close())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_closed_without_goodbye_leaves_nothing(layer, own_redis, stays_soon):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(stay(layer, own_redis))
    loop.close()
    del loop
    gc.collect()
    assert count(own_redis) == 1
    asyncio.run(layer.close())


def test_a_loop_that_is_run_now_and_then_keeps_its_port(layer, own_redis, stays_soon):
    with asyncio.Runner() as runner:
        runner.run(stay(layer, own_redis))
        opened = own_redis.info("stats")["total_connections_received"]
        for _ in range(3):
            time.sleep(1.2)  # the loop stands still: longer than a reply may take and than a probe is due
            runner.run(layer.group_send("room", {"type": "x"}))
        assert own_redis.info("stats")["total_connections_received"] - opened <= 3, "those that asked"
        runner.run(layer.close())


async def test_who_cancels_every_task_of_the_loop_may_go_on_sending(layer, own_redis, stays_soon):
    await stay(layer, own_redis)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0.05)
    await layer.group_send("room", {"type": "x"})
    await stay(layer, own_redis)
    await layer.close()
    await eventually(lambda: count(own_redis) == 0, "no connection left")


async def test_a_node_takes_the_port_over(layer, own_redis, stays_soon):
    await stay(layer, own_redis)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    for number in range(20):
        await layer.group_send("room", {"type": "x", "number": number})
    assert [m["number"] for m in await receive_all(layer, channel, 20)] == list(range(20))
    assert count(own_redis) == 1 + OWN
    await layer.close()
    await eventually(lambda: count(own_redis) == 0, "no connection left")


async def test_nothing_is_lost_or_reordered_by_the_change(layer, own_redis, prefix, stays_soon):
    receiver = LiveChannelLayer(hosts=[own_redis.url], prefix=prefix, capacity=5000)

    async def read(number):
        channel = await receiver.new_channel()
        await receiver.group_add("room", channel)
        return await receive_all(receiver, channel, number)

    reading = asyncio.create_task(asyncio.to_thread(asyncio.run, read(1200)))
    await eventually(lambda: own_redis.command("PUBSUB", "NUMSUB", *own_redis.command("PUBSUB", "CHANNELS"))[1:], "it")
    await asyncio.sleep(0.3)

    async def sender(which):
        for number in range(300):
            await layer.group_send("room", {"type": "x", "which": which, "number": number})
            await asyncio.sleep(0.001)

    await asyncio.gather(*(sender(which) for which in range(4)))
    assert senders_port(layer) is not None
    got = await reading
    for which in range(4):
        assert [m["number"] for m in got if m["which"] == which] == list(range(300))
    await layer.close()


async def test_a_frozen_redis_blocks_no_loop(layer, own_redis, stays_soon):
    await stay(layer, own_redis)
    own_redis.freeze()
    started = time.monotonic()
    try:
        longest, outcome = await heartbeats(layer.group_send("room", {"type": "x"}))
        took = time.monotonic() - started
    finally:
        own_redis.thaw()
    assert isinstance(outcome, EngineUnavailable), outcome
    assert longest < 0.25
    assert took < 2.5
    await layer.close()


async def test_without_redis_it_fails_in_time_and_comes_back(layer, own_redis, stays_soon):
    await stay(layer, own_redis)
    own_redis.kill()
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(EngineUnavailable):
            await layer.group_send("room", {"type": "x"})
        assert time.monotonic() - started < 2.5
    own_redis.start()

    async def back():
        try:
            return await layer.group_send("room", {"type": "x"}) is None
        except EngineUnavailable:
            return False

    deadline = time.monotonic() + 10
    while not await back():
        assert time.monotonic() < deadline, "the port did not come back"
    await layer.close()


async def test_members_on_another_loop_are_served_while_redis_is_away(layer, own_redis, stays_soon):
    await stay(layer, own_redis)
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def member():
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        loop.call_soon_threadsafe(heard.set)
        while (got := await layer.receive(channel)) != {"type": "alone"}:
            pass
        await layer.close()
        return got

    reading = asyncio.create_task(asyncio.to_thread(asyncio.run, member()))
    await heard.wait()
    own_redis.kill()
    with pytest.raises(EngineUnavailable) as caught:
        await layer.group_send("room", {"type": "alone"})
    assert caught.value.delivered_locally
    assert await asyncio.wait_for(reading, 10) == {"type": "alone"}
    await layer.close()


def test_a_fork_shares_no_port(layer, own_redis, stays_soon):
    async def main():
        await stay(layer, own_redis)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                layer.group_send_sync("room", {"type": "child"})
                status = 0 if not layer.engine._senders._loops else 2
            finally:
                os._exit(status)
        assert (await asyncio.to_thread(os.waitpid, pid, 0))[1] == 0
        for _ in range(20):
            await layer.group_send("room", {"type": "x"})
        assert senders_port(layer) is not None
        assert count(own_redis) == 1 + OWN

    asyncio.run(main())
    asyncio.run(layer.close())
