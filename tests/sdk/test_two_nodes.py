"""Two daphnes on one Redis, clients on both: what one node says, the other's browsers hear."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterator

import pytest

from tests.faults.proxy import FaultProxy
from tests.sdk.conftest import Start
from tests.sdk.javascript import JavaScript
from tests.sdk.servers import Server
from tests.servers import RedisServer

Nodes = tuple[Server, Server]


@pytest.fixture
def nodes(start: Start, redis_url: str, prefix: str) -> Nodes:
    layer = {"hosts": [redis_url], "prefix": prefix}
    return start(layer), start(layer)


@pytest.fixture
def balancer(nodes: Nodes) -> Iterator[FaultProxy]:
    """What stands in front of both nodes; it leads to the first until told otherwise."""
    proxy = FaultProxy(nodes[0].port).start()
    yield proxy
    proxy.stop()


def through(balancer: FaultProxy) -> str:
    return f"ws://127.0.0.1:{balancer.port}/live/ws"


async def test_every_client_sees_everything_in_one_order(nodes: Nodes, javascript: JavaScript, room: str) -> None:
    clients = [await javascript.client(f"c{index}", node.ws) for index, node in enumerate(nodes)]
    for client in clients:
        await client.connect()
        await client.subscribe(room)
    await asyncio.gather(
        *(client.call("publish", [index, n], channel=room) for n in range(20) for index, client in enumerate(clients))
    )
    await nodes[0].call("apublish", channel=room, data="server")
    seen = []
    for client in clients:
        got = [await client.event("publication", room) for _ in range(41)]
        assert [one["offset"] for one in got] == list(range(1, 42))
        seen.append([one["data"] for one in got])
    assert seen[0] == seen[1]


async def test_presence_spans_nodes(nodes: Nodes, javascript: JavaScript, room: str) -> None:
    here, there = await javascript.client("h", nodes[0].ws), await javascript.client("t", nodes[1].ws)
    await here.connect()
    await here.subscribe(room)
    await here.event("join", room)
    await there.connect()
    await there.subscribe(room)
    await here.event("join", room)
    for client in (here, there):
        assert (await client.call("presenceStats", channel=room))["numClients"] == 2
    await there.disconnect()
    await here.event("leave", room)
    assert (await here.call("presenceStats", channel=room))["numClients"] == 1


async def test_recovery_on_the_other_node_after_a_kill(
    nodes: Nodes, balancer: FaultProxy, javascript: JavaScript, room: str
) -> None:
    client = await javascript.client("c", through(balancer))
    await client.connect()
    await client.subscribe(room)
    await client.call("publish", 0, channel=room)
    await client.event("publication", room)
    await asyncio.to_thread(nodes[0].kill)
    for number in range(1, 11):
        await nodes[1].call("apublish", channel=room, data=number)
    balancer.lead_to(nodes[1].port)
    again = await client.event("subscribed", room)
    assert again["wasRecovering"] and again["recovered"]
    assert [(await client.event("publication", room))["data"] for _ in range(10)] == list(range(1, 11))
    await nodes[1].call("apublish", channel=room, data="live")
    assert (await client.event("publication", room))["data"] == "live"


async def test_a_node_that_stops_sends_its_clients_on(
    nodes: Nodes, balancer: FaultProxy, javascript: JavaScript, room: str
) -> None:
    client = await javascript.client("c", through(balancer))
    await client.connect()
    await client.subscribe(room)
    await client.event("connecting")
    balancer.lead_to(nodes[1].port, cut=False)
    await asyncio.to_thread(nodes[0].stop)
    moved = await client.event("connecting")
    assert (moved["code"], moved["reason"]) == (3001, "shutdown")
    await client.event("connected")
    assert (await client.event("subscribed", room))["recovered"]


async def test_ended_from_the_other_node(nodes: Nodes, javascript: JavaScript) -> None:
    headers = await nodes[0].sign_in("ann")
    leaving = await javascript.client("l", nodes[1].ws, headers=headers)
    staying = await javascript.client("s", nodes[1].ws, headers=await nodes[0].sign_in("ann"))
    for client in (leaving, staying):
        await client.connect()
        await client.subscribe("member/x")
    await nodes[0].fetch("/sign-out", headers["Cookie"])
    assert (await leaving.event("disconnected"))["code"] == 3503
    await nodes[0].call("aunsubscribe", user=1, channel="member/x")
    assert (await staying.event("unsubscribed", "member/x"))["code"] == 2000
    await nodes[0].call("adisconnect", user=1)
    assert (await staying.event("disconnected"))["code"] == 3503


async def test_events_over_http(nodes: Nodes, room: str) -> None:
    url = nodes[1].url(f"/live/events?channel={room}")
    lines = await asyncio.to_thread(urllib.request.urlopen, url, timeout=20)
    try:
        await nodes[0].call("apublish", channel=room, data="hello")

        def read() -> bytes:
            while not (line := lines.readline()).startswith(b"data:"):
                pass
            return bytes(line)

        assert b'"data":"hello"' in await asyncio.to_thread(read)
    finally:
        await asyncio.to_thread(lines.close)


class TestEpochs:
    """The server comes back as another one: with what it had, or without."""

    @pytest.mark.parametrize("kept", [True, False])
    async def test_new_epoch(
        self, start: Start, own_redis: RedisServer, prefix: str, javascript: JavaScript, room: str, kept: bool
    ) -> None:
        server = start({"hosts": [own_redis.url], "prefix": prefix})
        client = await javascript.client("c", server.ws)
        await client.connect()
        first = await client.subscribe(room)
        for number in range(3):
            await client.call("publish", number, channel=room)
            await client.event("publication", room)
        await client.event("subscribing", room)
        if kept:
            own_redis.command("SAVE")
        await asyncio.to_thread(own_redis.restart)
        lost = await client.event("subscribing", room)
        assert (lost["code"], lost["reason"]) == (2500, "insufficient state")
        again = await client.event("subscribed", room)
        assert again["streamPosition"]["epoch"] != first["streamPosition"]["epoch"]
        assert again["wasRecovering"]
        assert again["recovered"] is kept
        await client.call("publish", "on", channel=room)
        assert (await client.event("publication", room))["data"] == "on"
