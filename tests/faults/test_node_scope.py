"""scope="node" on three real processes: each opens every source itself, and delivers only to its own viewers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from livechannels.engines.base import LeaseGet, Read
from livechannels.layer import LiveChannelLayer
from livechannels.messages import topics
from tests.faults.leaders import StreamNode
from tests.servers import wait_until

NODES = ("node0", "node1", "node2")
CHANNELS = [f"source/{number}" for number in range(3)]
VIEWERS = 2


@pytest.fixture
def nodes(redis_url: str, tmp_path: Path, prefix: str) -> Iterator[list[StreamNode]]:
    config = {
        "url": redis_url, "prefix": prefix, "ttl": 1, "period": 0.02, "watch": len(CHANNELS), "viewers": VIEWERS,
        "scope": "node", "fenced": True, "block": 0, "record": True, "clock": 0,
    }  # fmt: skip
    started = [StreamNode(name, tmp_path, None, config) for name in NODES]
    yield started
    for node in started:
        node.process.kill()


def seen(node: StreamNode) -> dict[tuple[str, int], list[tuple[str, int]]]:
    """Of each viewer of a node: who said what it was given, and the sample's number, in order."""
    found = defaultdict(list)
    for event in node.events("seen"):
        found[event["channel"], event["viewer"]].append((event["said"]["by"], event["said"]["number"]))
    return found


def test_every_viewer_sees_each_sample_of_its_own_node_once_and_none_of_anothers(nodes, redis_url, prefix):
    viewers = {(channel, viewer) for channel in CHANNELS for viewer in range(VIEWERS)}

    def all_see(count: int) -> bool:
        return all(
            seen(node).keys() == viewers and all(len(samples) >= count for samples in seen(node).values())
            for node in nodes
        )

    wait_until(lambda: all_see(30), "thirty samples at every viewer")
    # From here on every node is known to every other: what might leak has had the time to.
    counts = {node.name: max(len(samples) for samples in seen(node).values()) for node in nodes}
    wait_until(lambda: all_see(max(counts.values()) + 20), "twenty more")
    for node in nodes:
        opened = [event["channel"] for event in node.events("open")]
        assert sorted(opened) == CHANNELS, "each source is opened once on each node"
        for samples in seen(node).values():
            assert {by for by, _ in samples} == {node.name}
            numbers = [number for _, number in samples]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert not node.events("repeat", "skip", "insufficient")
    layer = LiveChannelLayer(hosts=[redis_url], prefix=prefix)
    for channel in CHANNELS:
        assert layer.run_sync(LeaseGet(topics.live(channel))) is None
        assert not layer.run_sync(Read(topics.live(channel))).entries
