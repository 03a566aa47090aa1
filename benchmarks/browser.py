"""The browser's tables: WebSocket clients, their server and the publisher in three processes.

`--parts` chooses from: delivered, latency, slow, idle, reconnect.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.servers import RedisServer

from . import connected, delivered, signed_in
from .samples import Results, Sample, conditions, interleave, options, take
from .served import COMMANDS, Served

STOCK, STOCK_OURS = "stock consumer, channels_redis pubsub", "stock consumer, livechannels"
SINGLE, LIVE, FLOOR = "LiveConsumer, one message a frame", "LiveConsumer", "bare ASGI floor"
DELIVERED = {STOCK: "stock", STOCK_OURS: "stock_ours", SINGLE: "single", LIVE: "live", FLOOR: "floor"}
IDLE = {
    STOCK: "stock",
    "stock, signed in": "stock+auth",
    LIVE: "live",
    "LiveConsumer, signed in": "live+auth",
    FLOOR: "floor",
    "floor, signed in": "floor+auth",
}
RECONNECT = {"accept and authenticate": "floor+auth", "LiveConsumer, 10 messages to recover": "live+auth"}
SLOW = {"all read": "reads", "one never reads": "never"}
THOUSANDS = 5000
PARTS = ("delivered", "latency", "slow", "idle", "reconnect")


def run(server: str, kind: str, url: str, what: str, **amounts: Any) -> Sample:
    """One sample, in a process of its own."""
    reads = kind == "reads"
    if what == "slow":
        kind = "live"
    if not kind.endswith("+auth"):
        os.environ.pop("COOKIE", None)
    os.environ["BENCH"] = f"{kind} {url}"
    from . import site

    hello = site.hello(site.CHANNEL)
    with Served(server, kind, url) as served:
        match what:
            case "delivered":
                return asyncio.run(delivered.flood(served, hello, **amounts))
            case "latency":
                return asyncio.run(delivered.pace(served, hello, **amounts))
            case "slow":
                return asyncio.run(delivered.slow(served, hello, site.hello(site.BIG_CHANNEL), reads=reads, **amounts))
            case "idle":
                return asyncio.run(connected.idle(served, hello, **amounts))
        return asyncio.run(connected.reconnect(served, hello, site.CHANNEL, **amounts))


class Tables:
    """All that is asked for, one server after the other."""

    def __init__(self, args: Any, url: str) -> None:
        self.args, self.url = args, url

    def print(self) -> None:
        for part in self.args.parts or PARTS:
            for server in COMMANDS:
                if self.args.only in server:
                    getattr(self, part)(server)

    def _measure(self, server: str, names: dict[str, str], what: str, **amounts: Any) -> Callable[[str], Sample | str]:
        def measure(contender: str) -> Sample | str:
            case = {"server": server, "kind": names[contender], "url": self.url, "what": what, **amounts}
            return take("benchmarks.browser", **case)

        return measure

    def _show(self, title: str, results: Results) -> None:
        print(f"\n### {title}\n\n{results.table()}", flush=True)

    def delivered(self, server: str) -> None:
        results = Results(list(DELIVERED))
        seconds = 3 if self.args.quick else 5
        for in_flight in (8, 64):
            measure = self._measure(server, DELIVERED, "delivered", in_flight=in_flight, lasting=seconds)
            interleave(results, str(in_flight), self.args.repeats, measure)
        self._show(f"{server}, {delivered.CLIENTS} clients, 1 kB, saturated", results)
        print("\n" + results.table([FLOOR, SINGLE, LIVE]), flush=True)

    def latency(self, server: str) -> None:
        results = Results(list(DELIVERED))
        publications = 50 if self.args.quick else 100
        measure = self._measure(server, DELIVERED, "latency", publications=publications)
        interleave(results, "latency", self.args.repeats, measure)
        self._show(f"{server}, {delivered.CLIENTS} clients, 1 kB, {publications} publications at 5 a second", results)
        print("\n" + results.table([FLOOR, SINGLE, LIVE]), flush=True)

    def slow(self, server: str) -> None:
        results = Results(list(SLOW))
        seconds = 10 if self.args.quick else 20
        interleave(results, "slow", self.args.repeats, self._measure(server, SLOW, "slow", lasting=seconds))
        self._show(f"{server}, {delivered.CLIENTS} clients at 20 a second and one more", results)

    def idle(self, server: str) -> None:
        results = Results(list(IDLE))
        # Memory hardly differs from one time to the next.
        interleave(results, "idle", 1, self._measure(server, IDLE, "idle", clients=THOUSANDS))
        self._show(f"{server}, {THOUSANDS} idle connections", results)

    def reconnect(self, server: str) -> None:
        results = Results(list(RECONNECT))
        measure = self._measure(server, RECONNECT, "reconnect", clients=THOUSANDS)
        interleave(results, "reconnect", self.args.repeats, measure)
        self._show(f"{server}, {THOUSANDS} come back at once", results)


def main() -> None:
    args = options(__doc__, PARTS)
    if args.sample:
        print(json.dumps(run(**args.sample)), flush=True)
        return
    print(conditions("redis-server"), flush=True)
    with RedisServer("redis") as redis, tempfile.TemporaryDirectory() as directory:
        os.environ["DATABASE"] = str(Path(directory) / "bench.sqlite3")
        os.environ["COOKIE"] = signed_in.make(os.environ["DATABASE"])
        Tables(args, redis.url).print()


if __name__ == "__main__":
    main()
