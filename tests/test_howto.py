"""The example of the page "write a StreamSource" is run as it stands there, against a real server."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from livechannels.layer import LiveChannelLayer, process
from livechannels.registry import policy_for
from livechannels.streams import supervisor as streams
from tests.streams.test_supervisor import Viewer

PAGE = Path(__file__).parent.parent / "docs" / "howto" / "write-a-stream-source.md"


async def test_the_example_of_a_stream_source_reads_a_real_server(
    redis_url: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
    module = ModuleType("example")
    exec(compile(example, str(PAGE), "exec"), module.__dict__)
    settings.LIVECHANNELS = {"CHANNELS": module.live_channels}
    monkeypatch.setitem(module.SERVERS, "main", redis_url)
    monkeypatch.setattr(process, "startup_hooks", [streams.attach])
    monkeypatch.setattr(LiveChannelLayer, "policies", staticmethod(policy_for))
    layer = LiveChannelLayer(ha_engine="memory")
    try:
        async with Viewer(layer, "source/redis/main") as viewer:
            first, second = (await viewer.sees(lambda data: len(data) >= 2))[:2]
        assert first["memory"] > 0
        assert second["commands"] > first["commands"], "the example's own INFO is a command"
        assert first["clients"] >= 1
    finally:
        await layer.close()
