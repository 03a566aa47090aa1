from __future__ import annotations

import asyncio
import json

import pytest

from livechannels import StreamSource, live_path, status
from livechannels.sources import Stream
from livechannels.testing import live_client, live_test_layer

pytestmark = pytest.mark.django_db(transaction=True)


class Ticker(StreamSource):
    def can_subscribe(self, user: object) -> bool:
        return True

    async def run(self, stream: Stream) -> None:
        await stream.publish({"n": 1})
        await asyncio.Event().wait()


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


def test_from_sync_code_nothing_runs() -> None:
    with live_test_layer():
        found = status.gather_sync()
    assert (found["nodes"], found["streams"], found["channels"]) == ([], [], [])
