"""The publisher of the browser's table, a process of its own. It prints how many publications it made.

flood N SECONDS    as many in flight as N; standard input says when one has arrived everywhere
pace RATE N        N publications, so many a second
beside RATE S      the same for S seconds, beside a flood of big ones on another channel
burst N            one after the other
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import hiredis

from . import site

WARM_UP = 5
BIG, BIG_RATE = "x" * 34_000, 100


def text(stamp: int | None = None, filling: str = "x" * 960) -> bytes:
    """1 kB of JSON that begins with when it was sent; 0 means that nobody shall look at the time."""
    sent = time.monotonic_ns() if stamp is None else stamp
    return json.dumps({"t": sent, "text": filling}, separators=(",", ":")).encode()


async def floor(text: bytes) -> None:
    """Publish without waiting for Redis, on one bare connection."""
    global _writer
    if _writer is None:
        address = urlsplit(site.URL)
        _reader, _writer = await asyncio.open_connection(address.hostname, address.port)
        _running.add(asyncio.create_task(_read(_reader)))
    _writer.write(hiredis.pack_command(("PUBLISH", site.GROUP, text)))  # type: ignore[arg-type]


_writer: asyncio.StreamWriter | None = None
_running: set[asyncio.Task[None]] = set()


async def _read(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


async def send(text: bytes, channel: str = site.CHANNEL) -> None:
    await (floor(text) if site.KIND.startswith("floor") else site.publish(text, channel))


async def flood(in_flight: int, seconds: float) -> int:
    loop, free = asyncio.get_running_loop(), asyncio.Semaphore(in_flight)
    credits = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(credits), sys.stdin)

    async def take() -> None:
        while got := await credits.read(4096):
            for _ in got:
                free.release()

    taking, sending, number = asyncio.create_task(take()), set(), 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                await free.acquire()
                number += 1
                one = asyncio.create_task(send(text()))
                sending.add(one)
                one.add_done_callback(sending.discard)
    except TimeoutError:
        pass
    await asyncio.gather(*sending)
    taking.cancel()
    return number


async def pace(rate: float, number: int) -> int:
    for _ in range(WARM_UP):
        await send(text(0))
        await asyncio.sleep(0.2)
    begun = time.monotonic()
    for at in range(number):
        await asyncio.sleep(max(0.0, begun + at / rate - time.monotonic()))
        await send(text())
    return WARM_UP + number


async def beside(rate: float, seconds: float) -> int:
    async def big() -> None:
        begun, at = time.monotonic(), 0
        while True:
            at += 1
            await send(text(0, BIG), site.BIG_CHANNEL)
            await asyncio.sleep(max(0.0, begun + at / BIG_RATE - time.monotonic()))

    flooding = asyncio.create_task(big())
    number = await pace(rate, int(rate * seconds))
    flooding.cancel()
    return number


async def burst(number: int) -> int:
    for _ in range(number):
        await send(text())
    return number


async def main(what: str, *numbers: str) -> None:
    modes: dict[str, Any] = {"flood": flood, "pace": pace, "beside": beside, "burst": burst}
    made = await modes[what](*(float(one) if "." in one else int(one) for one in numbers))
    await asyncio.sleep(0.2)
    print(made, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
