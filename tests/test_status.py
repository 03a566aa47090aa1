from __future__ import annotations

import asyncio
import json

import pytest

from livechannels import LiveChannel, StreamSource, live_path, status
from livechannels.node.activity import Activity
from livechannels.streams.source import Stream
from livechannels.testing import live_client, live_test_layer

pytestmark = pytest.mark.django_db(transaction=True)


class Ticker(StreamSource):
    def can_subscribe(self, user: object) -> bool:
        return True

    async def run(self, stream: Stream) -> None:
        await stream.publish({"n": 1})
        await asyncio.Event().wait()


class Open(LiveChannel):
    def can_subscribe(self, user: object) -> bool:
        return True


@pytest.fixture(autouse=True)
def channels(settings: object) -> None:
    settings.LIVECHANNELS = {"CHANNELS": [live_path("tick/<slug:name>", Ticker)]}  # type: ignore[attr-defined]


async def test_a_running_stream_shows_its_leader_and_token() -> None:
    with live_test_layer() as layer:
        async with live_client() as client:
            await client.subscribe("tick/a")
            await client.publication()
            async with asyncio.timeout(10):
                while not ((found := await status.gather())["streams"] and found["nodes"]):
                    await asyncio.sleep(0.01)
            stream = found["streams"][0]
            assert (stream["channel"], stream["leader"], stream["state"]) == ("tick/a", layer.node().id, "running")
            assert stream["token"] >= 1
            assert stream["age"] >= 0
            assert found["nodes"][0]["node"] == layer.node().id
            assert found["engine"]["engine"] == "memory"
            assert json.loads(json.dumps(found)) == found
        await layer.close()


async def test_channels_show_their_viewers_on_this_node(settings: object) -> None:
    """Those published to come first; those only looked at follow."""
    settings.LIVECHANNELS = {"CHANNELS": [live_path("open/<slug:name>", Open)]}  # type: ignore[attr-defined]
    with live_test_layer() as layer:
        async with live_client() as first, live_client() as second:
            for client, channel in ((first, "open/b"), (second, "open/b"), (first, "open/a")):
                await client.subscribe(channel)
            await Activity(layer).published("open/b")
            found = (await status.gather())["channels"]
        await layer.close()
    assert [(one["channel"], one["viewers"]) for one in found] == [("open/b", 2), ("open/a", 1)]


def test_from_sync_code_nothing_runs() -> None:
    with live_test_layer():
        found = status.gather_sync()
    assert (found["nodes"], found["streams"], found["channels"]) == ([], [], [])
