"""W1 to W6: what is asked of a channel layer. Each runs in a fresh process on an empty Redis."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import psutil
import redis
from asgiref.sync import async_to_sync

from .layers import BARE, make, message
from .samples import LOST, Sample

PATIENCE = 3.0
"""Seconds without any delivery after which what has not come is counted as lost."""


def cpu() -> float:
    """Seconds this process has computed."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Readers:
    """Channels in one group with a reader each, counting; a `deep` one looks into the nested values."""

    def __init__(self, layer: Any, deep: bool = False) -> None:
        self.layer, self.deep = layer, deep
        self.count, self.last = 0, time.perf_counter()
        self.first = 0.0
        self.stamps: list[int] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, group: str, number: int) -> None:
        for _ in range(number):
            channel = await self.layer.new_channel()
            await self.layer.group_add(group, channel)
            self._tasks.append(asyncio.create_task(self._read(channel)))
        await asyncio.sleep(0.3)

    async def _read(self, channel: str) -> None:
        while True:
            got = await self.layer.receive(channel)
            self.count += 1
            self.last = time.perf_counter()
            self.first = self.first or self.last
            if self.deep:
                got["payload"]["series"][0]["labels"]["host"], got["payload"]["meta"]["tags"]["rack"]
            if got["t"]:
                self.stamps.append(time.monotonic_ns() - got["t"])

    async def wait(self, wanted: int) -> int:
        """Until so many messages came, or none for a while; how many did not."""
        self.last = time.perf_counter()
        while self.count < wanted and time.perf_counter() - self.last < PATIENCE:
            await asyncio.sleep(0.002)
        return wanted - self.count


async def flood(layer: Any, group: str, number: int, senders: int) -> None:
    """Send so many messages; each sender awaits its own."""
    body = message()

    async def one() -> None:
        for _ in range(number // senders):
            await layer.group_send(group, body)

    await asyncio.gather(*(one() for _ in range(senders)))


async def _group_send(layer: Any, senders: int, number: int) -> tuple[float, float, int]:
    readers = Readers(layer)
    await readers.start("bench", 1)
    await flood(layer, "bench", 100, 1)
    await readers.wait(100)
    readers.count = 0
    begun, used = time.perf_counter(), cpu()
    await flood(layer, "bench", number, senders)
    lost = await readers.wait(number)
    return number / (readers.last - begun), (cpu() - used) / number * 1e6, lost


async def w1_one(layer: Any, url: str, scale: int) -> Sample:
    rate, used, lost = await _group_send(layer, 1, 1000 * scale)
    return {"W1 1 sender, msg/s": rate, "W1 1 sender, CPU us/msg": used, LOST: lost}


async def w1_many(layer: Any, url: str, scale: int) -> Sample:
    rate, used, lost = await _group_send(layer, 100, 4000 * scale)
    return {"W1 100 senders, msg/s": rate, "W1 100 senders, CPU us/msg": used, LOST: lost}


def _fan_out(members: int, deep: bool = False) -> Callable[[Any, str, int], Awaitable[Sample]]:
    async def w2(layer: Any, url: str, scale: int) -> Sample:
        readers = Readers(layer, deep)
        await readers.start("bench", members)
        number = max(10, 8000 * scale // members)
        await flood(layer, "bench", 5, 1)
        await readers.wait(5 * members)
        readers.count = 0
        begun, used = time.perf_counter(), cpu()
        await flood(layer, "bench", number, 1)
        lost = await readers.wait(number * members)
        total, name = number * members, f"W2 group of {members}" + ", nested values read" * deep
        return {
            f"{name}, deliveries/s": total / (readers.last - begun),
            f"{name}, CPU us/delivery": (cpu() - used) / total * 1e6,
            LOST: lost,
        }

    return w2


async def w3_processes(layer: Any, url: str, scale: int) -> Sample:
    readers = Readers(layer)
    await readers.start("bench", 1)
    slow, fast = 150 * scale, 3000 * scale

    async def send(contender: str, number: int, senders: int) -> None:
        case = json.dumps({"contender": contender, "url": url, "number": number, "senders": senders})
        sender = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.layer_workloads", case)
        await sender.wait()

    name = contender_of(layer)
    await send(name, slow, 0)
    lost = await readers.wait(slow)
    stamps, readers.stamps = sorted(readers.stamps), []
    readers.count, readers.first = 0, 0.0
    used = cpu()
    await send(name, fast, 100)
    lost += await readers.wait(fast)
    return {
        "W3 at 200/s, p50 us": statistics.median(stamps) / 1000,
        "W3 at 200/s, p99 us": stamps[int(len(stamps) * 0.99)] / 1000,
        "W3 100 senders, msg/s": readers.count / (readers.last - readers.first),
        "W3 receiver, CPU us/msg": (cpu() - used) / max(readers.count, 1) * 1e6,
        LOST: lost,
    }


async def _send_elsewhere(contender: str, url: str, number: int, senders: int) -> None:
    """The sending process of W3, one that has been at it for a while: 200 messages a second with a stamp, or as
    fast as it goes."""
    layer = make(contender, url)
    for _ in range(50):
        await layer.group_send("other", message())
        await asyncio.sleep(0.03)
    if senders:
        await flood(layer, "bench", number, senders)
        return
    begun = time.monotonic()
    for at in range(number):
        await asyncio.sleep(max(0.0, begun + at / 200 - time.monotonic()))
        await layer.group_send("bench", message(at, time.monotonic_ns()))


async def w4_membership(layer: Any, url: str, scale: int) -> Sample:
    channel = await layer.new_channel()
    await layer.group_add("live", channel)

    async def come_and_go(begin: int, number: int) -> None:
        for at in range(begin, begin + number):
            await layer.group_add(f"group-{at}", channel)
            await layer.group_discard(f"group-{at}", channel)

    async def measure(tasks: int, each: int, begin: int) -> float:
        begun = time.perf_counter()
        await asyncio.gather(*(come_and_go(begin + task * each, each) for task in range(tasks)))
        return 2 * tasks * each / (time.perf_counter() - begun)

    await measure(1, 20, 0)
    alone = await measure(1, 400 * scale, 1000)
    together = await measure(100, 10 * scale, 100_000)
    begun, number = time.perf_counter(), 1000 * scale
    for _ in range(number):
        name = await layer.new_channel()
        await layer.group_add("live", name)
        await layer.group_discard("live", name)
    return {
        "W4 join and leave, 1 task, ops/s": alone,
        "W4 join and leave, 100 tasks, ops/s": together,
        "W4 connect to a live group and leave, /s": number / (time.perf_counter() - begun),
    }


def w5_sync(layer: Any, url: str, scale: int) -> Sample:
    """From code without an event loop. Who has no native call is measured by async_to_sync there too."""
    calls = 100 * scale
    body = message()

    def wrapped() -> None:
        async_to_sync(layer.group_send)("bench", body)

    calls_of: tuple[Callable[[], Any], Callable[[], Any]] = wrapped, wrapped
    if contender_of(layer) == BARE:
        publish = partial(redis.Redis.from_url(url).publish, "bench", msgspec.msgpack.encode(body))
        calls_of = publish, publish
    elif hasattr(type(layer), "group_send_sync"):
        calls_of = wrapped, partial(layer.group_send_sync, "bench", body)
    called, native = calls_of

    def measure(call: Callable[[], Any], number: int) -> tuple[float, float]:
        begun, used = time.perf_counter(), cpu()
        for _ in range(number):
            call()
        return number / (time.perf_counter() - begun), (cpu() - used) / number * 1e6

    called()
    native()
    before = _connections_received(url)
    rate, used = measure(called, calls)
    opened = _connections_received(url) - before - 1
    native_rate, _ = measure(native, calls if native is called else 10 * calls)
    return {
        "W5 async_to_sync, calls/s": rate,
        "W5 async_to_sync, CPU us/call": used,
        "W5 Redis connections opened per call": opened / calls,
        "W5 native sync, calls/s": native_rate,
    }


def _connections_received(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info("stats")["total_connections_received"])


async def w6_memory(layer: Any, url: str, scale: int) -> Sample:
    process, client, number = psutil.Process(), redis.Redis.from_url(url), 2000 * scale

    def sizes() -> tuple[int, int]:
        gc.collect()
        return process.memory_info().rss, client.info("memory")["used_memory"]

    async def grown(add: Callable[[int], Awaitable[None]]) -> tuple[float, float]:
        await asyncio.sleep(1.5)
        before = sizes()
        for at in range(number):
            await add(at)
        await asyncio.sleep(1.5)
        after = sizes()
        return (after[0] - before[0]) / number, (after[1] - before[1]) / number

    async def channel(at: int) -> None:
        await layer.group_add("shared", await layer.new_channel())

    own = await layer.new_channel()

    async def group(at: int) -> None:
        await layer.group_add(f"own-{at}", own)

    for at in range(200):
        await channel(at)
        await layer.group_add(f"warm-{at}", own)
    here, there = await grown(channel)
    own_here, own_there = await grown(group)
    there, own_there = max(there, 0.0), max(own_there, 0.0)
    return {
        "W6 bytes per idle channel in a shared group": here,
        "W6 Redis bytes per idle channel": there,
        "W6 bytes per own group": own_here,
        "W6 Redis bytes per own group": own_there,
    }


async def groups_in_redis(layer: Any, url: str, scale: int) -> Sample:
    """What Redis holds after one message to each of many groups, before they expire."""
    client, number = redis.Redis.from_url(url), 10_000 * scale
    before = client.info("memory")["used_memory"]
    limit = asyncio.Semaphore(100)

    async def one(at: int) -> None:
        async with limit:
            await layer.group_send(f"group-{at}", message())

    for start in range(0, number, 1000):
        await asyncio.gather(*(one(at) for at in range(start, start + 1000)))
    held = (client.info("memory")["used_memory"] - before) / number
    return {"Redis bytes per group with one message kept": max(held, 0.0)}


WORKLOADS: dict[str, Any] = {
    "W1 1 sender": w1_one,
    "W1 100 senders": w1_many,
    "W2 10": _fan_out(10),
    "W2 100": _fan_out(100),
    "W2 1000": _fan_out(1000),
    "W2 100 deep": _fan_out(100, deep=True),
    "W3 processes": w3_processes,
    "W4 membership": w4_membership,
    "W5 sync": w5_sync,
    "W6 memory": w6_memory,
    "groups": groups_in_redis,
}

_made: dict[int, str] = {}


def contender_of(layer: Any) -> str:
    return _made[id(layer)]


def run(workload: str, contender: str, url: str, scale: int) -> Sample:
    """One sample, in this process."""
    layer = make(contender, url)
    _made[id(layer)] = contender
    found = WORKLOADS[workload](layer, url, scale)
    return found if isinstance(found, dict) else asyncio.run(_bounded(found))


async def _bounded(workload: Awaitable[Sample]) -> Sample:
    async with asyncio.timeout(90):
        return await workload


def sent_by_child(case: str) -> None:
    known = json.loads(case)
    asyncio.run(_send_elsewhere(known["contender"], known["url"], known["number"], known["senders"]))


if __name__ == "__main__":
    sent_by_child(sys.argv[1])
