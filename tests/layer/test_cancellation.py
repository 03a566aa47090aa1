"""A cancelled receive loses nothing and repeats nothing, at whatever moment."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from tests.layer.conftest import eventually, receive, unread


async def poll(layer, channel, count, timeout):
    """Read with a short deadline, as Channels' own helpers do, until `count` arrived or nothing comes any more."""
    got = []
    silent = 0
    while len(got) < count and silent < 2000:
        try:
            got.append((await asyncio.wait_for(layer.receive(channel), timeout))["number"])
            silent = 0
        except TimeoutError:
            silent += 1
    return got


@pytest.mark.parametrize("kind", ["local", "group", "plain"])
async def test_300_of_300_with_wait_for(make_layer, kind):
    layer = make_layer(capacity=1000)
    channel = "plain" if kind == "plain" else await layer.new_channel()
    if kind == "group":
        await layer.group_add("room", channel)

    async def send_all():
        for number in range(300):
            if kind == "group":
                await layer.group_send("room", {"type": "x", "number": number})
            else:
                await layer.send(channel, {"type": "x", "number": number})
            await asyncio.sleep(random.choice((0, 0.0005, 0.0013, 0.002)))

    sender = asyncio.ensure_future(send_all())
    got = await poll(layer, channel, 300, 0.0013)
    await sender
    assert got == list(range(300))


@pytest.mark.parametrize("kind", ["local", "plain"])
async def test_cancelled_in_the_very_step_the_message_arrives(layer, kind):
    channel = "plain" if kind == "plain" else await layer.new_channel()
    got = []
    for number in range(100):
        waiting = asyncio.ensure_future(layer.receive(channel))
        await asyncio.sleep(0)
        await layer.send(channel, {"type": "x", "number": number})
        for _ in range(number % 5):
            await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            got.append((await waiting)["number"])
        if len(got) <= number:
            got.append((await receive(layer, channel))["number"])
    assert got == list(range(100))
    assert await unread(layer, channel) == []


async def test_cancelling_never_waits_for_the_store(redis_layers, redis_server):
    layer = redis_layers()
    channels = [await layer.new_channel(), "plain"]
    waiting = [asyncio.ensure_future(layer.receive(channel)) for channel in channels]
    await asyncio.sleep(0.1)
    redis_server.freeze()
    try:
        for task in waiting:
            task.cancel()
        done, pending = await asyncio.wait(waiting, timeout=0.5)
        assert not pending
        assert all(task.cancelled() for task in done)
    finally:
        redis_server.thaw()


async def test_a_cancelled_group_send_disturbs_no_other_reply(redis_layers):
    """A cancelled command must not leave its answer for the next one to read."""
    layer = redis_layers()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    for number in range(60):
        task = asyncio.ensure_future(layer.group_send("room", {"type": "cancelled"}))
        for _ in range(number % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await layer.send("plain", {"type": "x", "number": number})
        assert await receive(layer, "plain") == {"type": "x", "number": number}


async def test_two_waiting_readers_of_one_channel_each_get_their_share(layer):
    channel = await layer.new_channel()
    first = asyncio.ensure_future(layer.receive(channel))
    second = asyncio.ensure_future(layer.receive(channel))
    await asyncio.sleep(0.05)
    await layer.send(channel, {"type": "x", "number": 1})
    await eventually(lambda: first.done() or second.done(), "one reader served")
    winner, loser = (first, second) if first.done() else (second, first)
    assert winner.result()["number"] == 1
    assert not loser.done()
    await layer.send(channel, {"type": "x", "number": 2})
    assert (await asyncio.wait_for(loser, 5))["number"] == 2
