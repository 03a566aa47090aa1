"""`durability="replicated"`: the publisher learns whether a replica has it."""

from __future__ import annotations

import time

import pytest

from livechannels.exceptions import NotReplicated
from livechannels.layer import LiveChannelLayer
from livechannels.messages.policy import Policy
from tests.servers import RedisServer


class Replicated(LiveChannelLayer):
    policies = staticmethod(lambda channel: Policy(history_size=10, history_ttl=60, durability="replicated"))


@pytest.fixture
def master():
    with RedisServer("redis") as server:
        yield server


async def test_without_a_replica_the_publisher_is_told(master, prefix):
    layer = Replicated(hosts=[master.url], prefix=prefix)
    with pytest.raises(NotReplicated) as caught:
        await layer.publish("stream/cpu", {"n": 1})
    assert caught.value.position.offset == 1
    history = await layer.history("stream/cpu")
    assert [publication.data for publication in history.publications] == [{"n": 1}], "stored all the same"
    await layer.close()


async def test_with_a_replica_it_is_there_when_publish_returns(master, prefix):
    host, port = master.address.split(":")
    with RedisServer("redis") as replica:
        replica.command("REPLICAOF", host, port)
        deadline = time.monotonic() + 20
        while "online" not in str(master.command("INFO", "replication")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        layer = Replicated(hosts=[master.url], prefix=prefix)
        node = layer.node()
        while True:  # a replica that has just come online may take a second to its first acknowledgement
            try:
                await layer.publish("stream/cpu", {"n": "first"})
                break
            except NotReplicated:
                assert time.monotonic() < deadline
        first = (await layer.history("stream/cpu")).position.offset
        for number in range(10):
            position = await layer.publish("stream/cpu", {"n": number})
            stored = replica.command("XREVRANGE", f"{prefix}:lc1:{{l/stream/cpu}}:s", "+", "-", "COUNT", "1")
            assert f"0-{position.offset}" in str(stored), f"publication {number} is not on the replica"
        assert layer.publish_sync("stream/cpu", {"n": 10}).offset == first + 11
        assert node is layer.node()
        await layer.close()
