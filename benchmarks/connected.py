"""Thousands of browsers that are merely there: the memory of each, and how soon all are back after all were cut off."""

from __future__ import annotations

import asyncio
import json
import time

from .crowd import Crowd
from .samples import Sample
from .served import Served

WARM = 50
MISSED = 10


async def idle(site: Served, hello: str, clients: int) -> Sample:
    """What the server's memory grows by with each connection, garbage collected before and after."""
    crowd = Crowd(site.port, hello)
    await crowd.grow(WARM)
    await asyncio.sleep(1)
    before = await asyncio.to_thread(site.rss_collected)
    await crowd.grow(clients)
    await asyncio.sleep(2)
    assert not any(client.lost for client in crowd.clients), "a connection was lost"
    grown = await asyncio.to_thread(site.rss_collected) - before
    return {"KiB per idle connection": grown / clients / 1024}


async def reconnect(site: Served, hello: str, channel: str, clients: int) -> Sample:
    """All connect, all are cut off, and come back at once; where there is something to recover, each recovers it."""
    crowd = Crowd(site.port, hello)
    await crowd.grow(clients)
    position = crowd.clients[0].position
    crowd.cut()
    if position is not None:
        async with site.publisher("burst", MISSED) as process:
            await process.communicate()
    await asyncio.sleep(2)
    back = Crowd(site.port, _returning(channel, *position) if position is not None else hello)
    used, begun = site.cpu(), time.perf_counter()
    await back.grow(clients, together=200)
    took, used = time.perf_counter() - begun, site.cpu() - used
    wrong = sum(client.recovered != (MISSED if position is not None else 0) for client in back.clients)
    return {
        "back, connections/s": clients / took,
        "back, CPU us each": used / clients * 1e6,
        "not recovered in full": float(wrong),
        "errors in the server's log": float(site.errors()),
    }


def _returning(channel: str, epoch: str, offset: int) -> str:
    request = {"channel": channel, "recover": True, "epoch": epoch, "offset": offset}
    return json.dumps({"id": 1, "connect": {}}) + "\n" + json.dumps({"id": 2, "subscribe": request})
