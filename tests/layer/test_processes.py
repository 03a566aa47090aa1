"""Several processes on one Redis: who gets what, and that nobody gets it twice."""

from __future__ import annotations

import asyncio
import collections
import os
import signal

import pytest
from channels.exceptions import ChannelFull

from tests.layer.conftest import eventually, receive, unread
from tests.layer.peer import Peer


@pytest.fixture
def config(redis_url, prefix):
    return {"hosts": [redis_url], "prefix": prefix}


async def test_a_group_message_reaches_members_of_every_process_once(redis_layers, config):
    layer = redis_layers()
    mine = await layer.new_channel()
    await layer.group_add("room", mine)
    async with Peer(config) as peer:
        theirs = await peer.call("new_channel")
        await peer.call("group_add", "room", theirs)
        await peer.call("listen", theirs)
        for number in range(50):
            await layer.group_send("room", {"type": "x", "number": number})
        await peer.call("group_send", "room", {"type": "x", "number": 50})
        assert [m["number"] for m in await peer.hears(51)] == list(range(51))
        assert [m["number"] for m in await unread(layer, mine)] == list(range(51))


async def test_direct_sends_reach_a_channel_of_another_process_in_order(redis_layers, config):
    layer = redis_layers()
    async with Peer(config) as peer:
        theirs = await peer.call("new_channel")
        await peer.call("listen", theirs)
        for number in range(100):
            await layer.send(theirs, {"type": "x", "number": number})
        assert [m["number"] for m in await peer.hears(100)] == list(range(100))


async def test_a_plain_channel_is_shared_out_between_processes(redis_layers, config):
    layer = redis_layers(capacity=1000)
    async with Peer(config) as one, Peer(config) as two:
        for peer in (one, two):
            await peer.call("listen", "jobs")
        for number in range(200):
            await layer.send("jobs", {"type": "job", "number": number})
        await eventually(lambda: len(one.heard) + len(two.heard) >= 200, "200 jobs taken")
        await asyncio.sleep(0.3)
        counts = collections.Counter(message["number"] for peer in (one, two) for _, message in peer.heard)
        assert counts == collections.Counter(range(200))
        assert one.heard
        assert two.heard


async def test_a_remote_channel_can_be_added_to_a_group(redis_layers, config):
    layer = redis_layers()
    async with Peer(config) as peer:
        theirs = await peer.call("new_channel")
        await peer.call("listen", theirs)
        await layer.group_add("room", theirs)
        await layer.group_send("room", {"type": "x", "number": 1})
        assert await peer.hears(1) == [{"type": "x", "number": 1}]
        await layer.group_discard("room", theirs)
        await layer.group_send("room", {"type": "x", "number": 2})
        await layer.send(theirs, {"type": "x", "number": 3})
        assert [m["number"] for m in await peer.hears(2)] == [1, 3]


async def test_adding_a_channel_of_a_dead_process_ends_within_its_bound(redis_layers, config):
    layer = redis_layers()
    async with Peer(config) as peer:
        theirs = await peer.call("new_channel")
        os.kill(peer.pid, signal.SIGKILL)
    started = asyncio.get_running_loop().time()
    await layer.group_add("room", theirs)
    assert asyncio.get_running_loop().time() - started < 3


async def test_flush_empties_the_other_processes_too(redis_layers, config):
    layer = redis_layers()
    async with Peer(config) as peer:
        theirs = await peer.call("new_channel")
        await peer.call("group_add", "room", theirs)
        await layer.send(theirs, {"type": "unread"})
        await layer.group_send("room", {"type": "unread"})
        await layer.flush()
        await layer.group_send("room", {"type": "no member any more"})
        await layer.send(theirs, {"type": "after"})
        await peer.call("listen", theirs)
        assert await peer.hears(1) == [{"type": "after"}]


async def test_flush_leaves_live_channels_alone(redis_layers):
    layer = redis_layers()
    await layer.publish("stream/cpu", {"n": 1})
    before = await layer.history("stream/cpu")
    await layer.flush()
    assert (await layer.history("stream/cpu")).position == before.position


async def test_a_plain_member_is_served_whoever_reads_it(redis_layers, config):
    layer = redis_layers()
    await layer.group_add("room", "worker")
    async with Peer(config) as peer:
        await peer.call("listen", "worker")
        await peer.call("group_send", "room", {"type": "x"})
        assert await peer.hears(1) == [{"type": "x"}]


async def test_channel_full_is_exact_for_plain_channels_across_processes(redis_layers, config):
    layer = redis_layers(capacity=4)
    async with Peer({**config, "capacity": 4}) as peer:
        for _ in range(2):
            await layer.send("jobs", {"type": "x"})
            await peer.call("send", "jobs", {"type": "x"})
        with pytest.raises(ChannelFull):
            await layer.send("jobs", {"type": "x"})
        with pytest.raises(RuntimeError, match="ChannelFull"):
            await peer.call("send", "jobs", {"type": "x"})


async def test_a_full_remote_channel_keeps_the_oldest(redis_layers, config):
    layer = redis_layers()
    async with Peer({**config, "capacity": 3}) as peer:
        theirs = await peer.call("new_channel")
        for number in range(6):
            await layer.send(theirs, {"type": "x", "number": number})
        await asyncio.sleep(0.3)
        await peer.call("listen", theirs)
        assert [m["number"] for m in await peer.hears(3)] == [0, 1, 2]
        await layer.send(theirs, {"type": "x", "number": 6})
        assert [m["number"] for m in await peer.hears(4)] == [0, 1, 2, 6]


async def test_processes_with_different_prefixes_are_strangers(redis_layers, config):
    layer = redis_layers()
    await layer.group_add("room", "worker")
    mine = await layer.new_channel()
    await layer.group_add("room", mine)
    async with Peer({**config, "prefix": config["prefix"] + "x"}) as stranger:
        await stranger.call("group_send", "room", {"type": "x"})
        await stranger.call("send", "worker", {"type": "x"})
        await stranger.call("send", mine, {"type": "x"})
        await stranger.call("flush")
    await layer.group_send("room", {"type": "own"})
    assert await unread(layer, mine) == [{"type": "own"}]
    assert await unread(layer, "worker") == [{"type": "own"}]


async def test_the_same_prefix_in_another_database_is_a_stranger(redis_layers, redis_server):
    """PUBLISH ignores database numbers; the layer must not."""
    here = redis_layers()
    there = redis_layers(hosts=[redis_server.url[:-1] + "3"])
    mine = await here.new_channel()
    await here.group_add("room", mine)
    await there.group_send("room", {"type": "foreign"})
    await there.send("worker", {"type": "foreign"})
    await here.group_send("room", {"type": "own"})
    assert await unread(here, mine) == [{"type": "own"}]
    assert await unread(here, "worker") == []


async def test_a_process_that_dies_leaves_the_others_whole(redis_layers, config):
    layer = redis_layers()
    mine = await layer.new_channel()
    await layer.group_add("room", mine)
    async with Peer(config) as peer:
        await peer.call("group_add", "room", await peer.call("new_channel"))
        os.kill(peer.pid, signal.SIGKILL)
    for number in range(10):
        await layer.group_send("room", {"type": "x", "number": number})
    assert [m["number"] for m in await unread(layer, mine)] == list(range(10))


async def test_jobs_taken_by_a_process_that_closes_are_not_lost(redis_layers, config):
    """A worker that stops between taking and reading gives back what it took."""
    layer = redis_layers(capacity=1000)
    for number in range(100):
        await layer.send("jobs", {"type": "job", "number": number})
    async with Peer(config) as peer:
        await peer.call("listen", "jobs")
        await peer.hears(5)
    read_there = [message["number"] for _, message in peer.heard]
    rest = [message["number"] for message in await unread(layer, "jobs")]
    assert sorted(read_there + rest) == list(range(100))


async def test_sharded_hosts_agree_across_processes(redis_layers, redis_server, own_redis, prefix):
    hosts = [redis_server.url, own_redis.url]
    layer = redis_layers(hosts=hosts)
    async with Peer({"hosts": hosts, "prefix": prefix}) as peer:
        theirs = [await peer.call("new_channel") for _ in range(5)]
        for number, channel in enumerate(theirs):
            await peer.call("group_add", f"room-{number}", channel)
            await peer.call("listen", channel)
        for number, channel in enumerate(theirs):
            await layer.send(channel, {"type": "direct", "number": number})
            await layer.group_send(f"room-{number}", {"type": "group", "number": number})
        heard = await peer.hears(10)
        assert sorted((m["type"], m["number"]) for m in heard) == sorted(
            (kind, number) for number in range(5) for kind in ("direct", "group")
        )
        for number in range(10):
            await layer.send(f"plain-{number}", {"type": "x"})
            await peer.call("listen", f"plain-{number}")
        await peer.hears(20)


async def test_a_message_of_an_unknown_version_is_skipped(redis_layers, redis_server, prefix):
    """Newer processes may share this Redis during a deploy: what cannot be read is counted, not fatal."""
    layer = redis_layers()
    mine = await layer.new_channel()
    await layer.group_add("room", mine)
    names = [name for name in redis_server.command("PUBSUB", "CHANNELS") if prefix in name]
    assert names
    for name in names:
        for junk in (b"\xffunknown version", b"", b"\x00", b"9" * 500):
            redis_server.command("PUBLISH", name, junk)
    await layer.group_send("room", {"type": "fine"})
    assert await receive(layer, mine) == {"type": "fine"}
    await layer.send(mine, {"type": "fine too"})
    assert await receive(layer, mine) == {"type": "fine too"}
