"""The browser's table: WebSocket clients, their server and the publisher in three processes.

Delivered publications per second with 8 and 64 in flight, latency at 5 a second, and memory per idle connection.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.servers import Process, RedisServer, free_port, wait_until

from .crowd import Crowd
from .samples import LOST, ROOT, Results, Sample, conditions, interleave, options, take

NAMES = {
    "stock consumer, channels_redis pubsub": "stock",
    "stock consumer, livechannels": "stock_ours",
    "LiveConsumer, one message a frame": "single",
    "LiveConsumer": "live",
    "bare ASGI floor": "floor",
}
IDLE = {
    "stock consumer, channels_redis pubsub": "stock",
    "stock, auth stack": "stock+auth",
    "LiveConsumer": "live",
    "LiveConsumer, auth stack": "live+auth",
    "bare ASGI floor": "floor",
}
SERVERS = ("uvicorn", "daphne")
CLIENTS = 300


class Site:
    """A server process with `benchmarks.site`."""

    def __init__(self, server: str, kind: str, url: str) -> None:
        self.port = free_port()
        self.env = {**os.environ, "BENCH": f"{kind} {url}"}
        commands = {
            "uvicorn": [
                "uvicorn",
                "--port",
                str(self.port),
                "--log-level",
                "error",
                "--ws-per-message-deflate",
                "false",
            ],
            "daphne": ["daphne", "-b", "127.0.0.1", "-p", str(self.port), "-v", "0"],
        }
        command = [sys.executable, "-m", *commands[server], "benchmarks.site:application"]
        self.process = Process(command, ROOT, server, self.env)
        self.process.log = Path(tempfile.gettempdir()) / f"bench-{self.port}.log"

    def __enter__(self) -> Site:
        self.process.spawn()
        wait_until(self._listens, "the server")
        self.measured = psutil.Process(self.process.pid)
        return self

    def _listens(self) -> bool:
        assert self.process.alive, self.process.output()[-2000:]
        return any(one.laddr.port == self.port for one in psutil.Process(self.process.pid).net_connections())

    def __exit__(self, *_exc: object) -> None:
        self.process.kill()
        self.process.log.unlink(missing_ok=True)

    def cpu(self) -> float:
        used = self.measured.cpu_times()
        return float(used.user + used.system)

    def rss(self) -> int:
        return int(self.measured.memory_info().rss)


def run(server: str, kind: str, url: str, what: str, seconds: float, clients: int) -> Sample:
    os.environ["BENCH"] = f"{kind} {url}"
    from .site import hello

    with Site(server, kind, url) as site:
        if what == "idle":
            measured = _idle(site, hello, clients)
        else:
            measured = _delivered(site, hello, int(what), seconds)
        return asyncio.run(measured)


async def _idle(site: Site, hello: str, clients: int) -> Sample:
    crowd = Crowd(site.port, hello)
    await crowd.grow(50)
    await asyncio.sleep(1)
    before = site.rss()
    await crowd.grow(clients)
    await asyncio.sleep(2)
    return {"KiB per idle connection": (site.rss() - before) / len(crowd.clients[50:]) / 1024}


async def _delivered(site: Site, hello: str, in_flight: int, seconds: float) -> Sample:
    """`in_flight` 0 measures latency at 5 publications a second instead."""
    reading, writing = os.pipe()
    crowd = Crowd(site.port, hello, writing if in_flight else None)
    await crowd.grow(CLIENTS)
    await asyncio.sleep(0.3)
    if not in_flight:
        crowd.latencies = []
    used, begun = site.cpu(), time.perf_counter()
    publisher = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.publisher", str(in_flight), str(seconds),
        env=site.env, cwd=ROOT, stdin=reading, stdout=subprocess.PIPE,
    )  # fmt: skip
    os.close(reading)
    while not crowd.count:
        used, begun = site.cpu(), time.perf_counter()
        await asyncio.sleep(0.001)
    out, _ = await publisher.communicate()
    wanted = int(out) * CLIENTS
    while crowd.count < wanted and time.perf_counter() - crowd.last < 3:
        await asyncio.sleep(0.01)
    lost = {LOST: float(wanted - crowd.count)}
    if crowd.latencies is not None:
        latencies = sorted(crowd.latencies)
        middle, late = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
        return {"at 5/s, p50 ms": middle, "at 5/s, p99 ms": late, **lost}
    each = f"{in_flight} in flight"
    return {
        f"{each}, deliveries/s": crowd.count / (crowd.last - begun),
        f"{each}, CPU us/delivery": (site.cpu() - used) / crowd.count * 1e6,
        **lost,
    }


def tables(args: Any, url: str) -> None:
    seconds = 3 if args.quick else 5
    clients = 1000 if args.quick else 2000
    for server in SERVERS:
        if args.only and args.only not in server:
            continue

        def measure(names: dict[str, str], what: str, contender: str, server: str = server) -> Sample | str:
            case = {"server": server, "kind": names[contender], "url": url, "what": what}
            return take("benchmarks.browser", **case, seconds=120, run_for=seconds, clients=clients)

        results, memory = Results(list(NAMES)), Results(list(IDLE))
        for what in ("8", "64", "0"):
            interleave(results, what, args.repeats, lambda contender, what=what: measure(NAMES, what, contender))
        print(f"\n{server}, {CLIENTS} clients, 1 kB\n\n{results.table()}", flush=True)
        interleave(memory, "idle", args.repeats, lambda contender: measure(IDLE, "idle", contender))
        print(f"\n{server}, {clients} idle connections\n\n{memory.table()}", flush=True)


def main() -> None:
    args = options(__doc__)
    if args.sample:
        case = args.sample
        case["seconds"] = case.pop("run_for")
        print(json.dumps(run(**case)), flush=True)
        return
    print(conditions("redis-server"), flush=True)
    with RedisServer("redis") as redis:
        tables(args, redis.url)


if __name__ == "__main__":
    main()
