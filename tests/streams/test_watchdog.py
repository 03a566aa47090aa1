from __future__ import annotations

import asyncio
import logging
import time

from livechannels.streams import watchdog as module
from livechannels.streams.watchdog import BLOCKED, Blocked, Watchdog


def block_for(seconds: float) -> None:
    time.sleep(seconds)


async def test_names_the_task_and_the_place_while_it_blocks_and_tells_how_long_afterwards(monkeypatch, caplog):
    monkeypatch.setattr(module, "LOOKS", 0.05)
    found: list[Blocked] = []
    before = BLOCKED.value()
    watchdog = Watchdog(found.append, patience=0.1)
    watchdog.start()

    async def culprit() -> None:
        block_for(0.5)
        assert "the culprit blocks the event loop" in caplog.text, "it was not named while it blocked"

    with caplog.at_level(logging.WARNING):
        await asyncio.create_task(culprit(), name="the culprit")
        await asyncio.sleep(0.1)
    watchdog.stop()
    [blocked] = found
    assert blocked.task == "the culprit"
    assert "test_watchdog.py" in blocked.place
    assert blocked.place.endswith("in block_for")
    assert 0.45 <= blocked.seconds <= 1
    assert BLOCKED.value() == before + 1
    assert "the culprit had blocked the event loop for 0." in caplog.text


async def test_a_busy_loop_that_turns_is_not_accused(monkeypatch):
    monkeypatch.setattr(module, "LOOKS", 0.05)
    found: list[Blocked] = []
    watchdog = Watchdog(found.append, patience=0.5)
    watchdog.start()
    until = time.monotonic() + 0.8
    while time.monotonic() < until:
        block_for(0.02)
        await asyncio.sleep(0)
    watchdog.stop()
    assert found == []
