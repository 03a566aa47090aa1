"""The publisher of the browser's table, a process of its own: as many in flight as asked, or at a rate."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

import hiredis

from . import site


def text() -> bytes:
    """1 kB of JSON that begins with when it was sent."""
    return json.dumps({"t": time.monotonic_ns(), "text": "x" * 960}, separators=(",", ":")).encode()


async def floor() -> None:
    """Publish without waiting for Redis, on one bare connection."""
    global _writer
    if _writer is None:
        address = urlsplit(site.URL)
        _reader, _writer = await asyncio.open_connection(address.hostname, address.port)
        _drain.add(asyncio.create_task(_read(_reader)))
    _writer.write(hiredis.pack_command(("PUBLISH", site.GROUP, text())))


_writer: asyncio.StreamWriter | None = None
_drain: set[asyncio.Task[None]] = set()


async def _read(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


async def send() -> None:
    if site.KIND == "floor":
        await floor()
    else:
        await site.publish(text())


async def flood(in_flight: int, seconds: float) -> None:
    """Publish whenever one of those in flight has arrived everywhere; standard input says when."""
    loop, free = asyncio.get_running_loop(), asyncio.Semaphore(in_flight)
    credits = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(credits), sys.stdin)

    async def take() -> None:
        while got := await credits.read(4096):
            for _ in got:
                free.release()

    taking = asyncio.create_task(take())
    number, until = 0, time.monotonic() + seconds

    async def one() -> None:
        nonlocal number
        while time.monotonic() < until:
            await free.acquire()
            number += 1
            await send()

    workers = [asyncio.create_task(one()) for _ in range(in_flight)]
    await asyncio.wait(workers, timeout=seconds + 2)
    taking.cancel()
    await asyncio.sleep(0.2)
    print(number, flush=True)


async def pace(rate: float, seconds: float) -> None:
    begun, number = time.monotonic(), int(rate * seconds)
    for at in range(number):
        await asyncio.sleep(max(0.0, begun + at / rate - time.monotonic()))
        await send()
    await asyncio.sleep(0.2)
    print(number, flush=True)


if __name__ == "__main__":
    in_flight, seconds = int(sys.argv[1]), float(sys.argv[2])
    asyncio.run(flood(in_flight, seconds) if in_flight else pace(5, seconds))
