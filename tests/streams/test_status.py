from __future__ import annotations

import json

from livechannels.engines.base import RosterSet
from livechannels.layer import LiveChannelLayer
from livechannels.messages import topics
from livechannels.streams import status as stream_status
from livechannels.streams.status import NodeReport, StreamStatus


def status(channel: str, node: str, token: int | None, scope: str = "cluster") -> StreamStatus:
    return StreamStatus(channel=channel, node=node, scope=scope, state="running", token=token, since=1.0)


def enter(layer: LiveChannelLayer, node: str, *streams: StreamStatus) -> None:
    report = NodeReport(1, [], list(streams))
    layer.run_sync(RosterSet(topics.STREAMS, node, report.encode(), 10))


async def test_reads_what_all_nodes_entered_by_channel():
    layer = LiveChannelLayer(ha_engine="memory")
    enter(layer, "a", status("s/2", "a", 5))
    enter(layer, "b", status("s/1", "b", 6))
    assert [(found.channel, found.node) for found in await stream_status.read(layer)] == [("s/1", "b"), ("s/2", "a")]
    assert stream_status.read_sync(layer) == await stream_status.read(layer)


def test_a_stream_that_changed_hands_is_its_newest_leaders():
    layer = LiveChannelLayer(ha_engine="memory")
    enter(layer, "a", status("s/1", "a", 5))
    enter(layer, "b", status("s/1", "b", 6))
    enter(layer, "c", status("s/1", "c", 4))
    assert [found.node for found in stream_status.read_sync(layer)] == ["b"]


def test_streams_of_scope_node_are_listed_for_every_node():
    layer = LiveChannelLayer(ha_engine="memory")
    enter(layer, "a", status("s/1", "a", None, "node"))
    enter(layer, "b", status("s/1", "b", None, "node"))
    assert [found.node for found in stream_status.read_sync(layer)] == ["a", "b"]


def test_an_entry_of_another_version_is_left_out():
    layer = LiveChannelLayer(ha_engine="memory")
    layer.run_sync(RosterSet(topics.STREAMS, "new", json.dumps({"streams": [{"stream": 1}]}).encode(), 10))
    layer.run_sync(RosterSet(topics.STREAMS, "newer", b"\x81", 10))
    enter(layer, "a", status("s/1", "a", 5))
    assert [found.node for found in stream_status.read_sync(layer)] == ["a"]


def test_is_fit_for_json():
    assert json.loads(json.dumps(status("s/1", "a", 5).as_dict()))["token"] == 5
