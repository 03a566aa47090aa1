"""The kept path to one Redis, where its surroundings fail rather than Redis."""

from __future__ import annotations

import asyncio

from livechannels import options
from livechannels.engines.redis import RedisEngine, link
from tests.engines.conftest import Recorder
from tests.topologies import SentinelSet


async def test_sentinels_that_do_not_answer_break_no_path_to_a_good_master(monkeypatch, prefix):
    monkeypatch.setattr(link, "MASTER_CHECK_EVERY", 0.5)
    with SentinelSet() as topology:
        addresses = ",".join(sentinel.address for sentinel in topology.sentinels)
        engine = RedisEngine(options.parse({"hosts": [f"redis+sentinel://{addresses}/mymaster/0"], "prefix": prefix}))
        heard = Recorder()
        port = engine.port(heard, "node")
        try:
            await heard.until(lambda: heard.resumed, "the first connection")
            for sentinel in topology.sentinels:
                sentinel.freeze()
            await asyncio.sleep(8)  # one round of asking all three, and the probes that would be late by it
            assert heard.interruptions == 0
        finally:
            for sentinel in topology.sentinels:
                sentinel.thaw()
            await port.close()
