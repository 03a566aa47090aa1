"""Server time of one publish by INFO commandstats, beside scripts that only publish; what storing costs the path."""

from __future__ import annotations

import asyncio
import time
from itertools import count

from livechannels.engines.base import Fence, LeaseAcquire, Publish, Retention
from livechannels.engines.options import parse
from livechannels.engines.redis import RedisEngine
from livechannels.engines.redis.keys import Keys
from livechannels.engines.redis.operations import Operations
from livechannels.engines.redis.requests import Request
from livechannels.messages import topics
from livechannels.messages.positions import Position
from tests.servers import RedisServer

from .layer_workloads import cpu
from .samples import Results, Sample, conditions, interleave, options

READY = "a script that is handed the whole message and publishes it"
ONLY = "a script that only publishes: the same message, made of what it needs"
SAME = "the same, with the publish script's keys and arguments"
PLAIN, FENCED, ONCE = "publish", "publish, fenced", "publish once (idempotency key)"
BARE = {
    READY: "return redis.call('PUBLISH', ARGV[1], ARGV[2])",
    ONLY: "return redis.call('PUBLISH', ARGV[1], '1 ' .. ARGV[3] .. ' ' .. ARGV[2])",
    SAME: "return redis.call('PUBLISH', ARGV[1], '1 ' .. ARGV[6] .. ' 12345 ' .. ARGV[2])",
}
CALLS = [*BARE, PLAIN, FENCED, ONCE]
AIMS = {PLAIN: 2.5, FENCED: 2.8}
TIME = "server us per call"

UNSTORED, STORED = "plain PUBLISH", "stored and published"
RATE, USED = "100 senders, msg/s", "100 senders, CPU us/msg"
SENDERS, LEAST = 100, 0.65

TOPIC = topics.live("bench")
KEPT = Retention(100, 60, 65)
BODY = b"x" * 1000
WINDOW = 16
"""Calls in one pipeline: Redis is then busy enough to have its code in the cache, as it has under load."""
TURN = 10 * WINDOW
"""Calls of one contender before it is the next one's turn: the shorter, the fairer a busy machine is to all."""


class Calls:
    """The requests that the engine itself would send, sent by a synchronous pipeline."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.client = server.client
        self.operations = Operations(Keys("bench", 0))
        self.name = self.operations.keys.name(TOPIC)
        self.listener = server.client.pubsub()
        self.listener.subscribe(self.name)
        grant = self.operations.make(LeaseAcquire(TOPIC, "session", "bench", 600))
        reply = self.client.execute_command(*next(grant)[0].in_full())
        self.fence = Fence("session", int(reply[0]))
        self.bare = {contender: self.client.script_load(source) for contender, source in BARE.items()}
        self.loaded: set[str] = set()
        self.numbers = count(1)

    def request(self, contender: str) -> tuple[object, ...]:
        fence = self.fence if contender == FENCED else None
        key = f"key-{next(self.numbers)}" if contender == ONCE else None
        request = next(self.operations.make(Publish(TOPIC, BODY, KEPT, fence, key)))[0]
        if contender not in BARE:
            return self.known(request)
        if contender == SAME:
            return ("EVALSHA", self.bare[contender], *request.args)
        payload, position = request.args[5], f"0123456789 {next(self.numbers)}"
        if contender == ONLY:
            return ("EVALSHA", self.bare[contender], 0, self.name, payload, position)
        return ("EVALSHA", self.bare[contender], 0, self.name, f"1 {position} ".encode() + payload)

    def known(self, request: Request) -> tuple[object, ...]:
        if request.script and request.script.sha not in self.loaded:
            self.loaded.add(str(self.client.script_load(request.script.source)))
        return request.by_hash()

    def measure(self, contender: str, number: int) -> Sample:
        """Microseconds of Redis for one call, everything the script calls included."""
        requests = [self.request(contender) for _ in range(number)]
        self.client.config_resetstat()
        for start in range(0, number, WINDOW):
            pipeline = self.client.pipeline(transaction=False)
            for request in requests[start : start + WINDOW]:
                pipeline.execute_command(*request)
            pipeline.execute()
            while self.listener.get_message(timeout=0):
                pass
        spent = self.server.info("commandstats")["cmdstat_evalsha"]
        assert spent["calls"] == number, spent
        return {TIME: spent["usec_per_call"]}


class Counter:
    """A listener that counts, and tells when it has counted enough."""

    def __init__(self) -> None:
        self.missing = 0
        self.done = asyncio.Event()

    def on_message(self, topic: str, position: Position | None, time: int, body: bytes, id: bytes = b"") -> None:
        self.missing -= 1
        if not self.missing:
            self.done.set()

    def on_interrupted(self) -> None: ...

    def on_resumed(self, topics: list[str]) -> None: ...


async def _path(url: str, contender: str, number: int) -> Sample:
    """One process that publishes to a live channel, each of 100 tasks awaiting its own, and receives it all."""
    engine, counter = RedisEngine(parse({"hosts": [url], "prefix": "path"})), Counter()
    port = engine.port(counter, "bench")
    await port.subscribe(TOPIC)

    async def send(times: int) -> None:
        for _ in range(times):
            await port.run(Publish(TOPIC, BODY, KEPT if contender == STORED else None))

    counter.missing = SENDERS + number
    await asyncio.gather(*(send(1) for _ in range(SENDERS)))
    begun, used = time.perf_counter(), cpu()
    await asyncio.gather(*(send(number // SENDERS) for _ in range(SENDERS)))
    await asyncio.wait_for(counter.done.wait(), 60)
    sample = {RATE: number / (time.perf_counter() - begun), USED: (cpu() - used) / number * 1e6}
    await port.close()
    engine.close()
    return sample


def _of(results: Results, metric: str, contender: str, base: str) -> float:
    return (results.median(metric, contender) or 0) / (results.median(metric, base) or 1)


def main() -> None:
    args = options(__doc__)
    scripts, path = Results(CALLS), Results([UNSTORED, STORED])
    print(conditions("redis-server"), flush=True)
    with RedisServer("redis") as server:
        calls = Calls(server)
        turns = args.repeats * (10 if args.quick else 50)
        interleave(scripts, "publish", turns, lambda contender: calls.measure(contender, TURN))
        number = 4000 if args.quick else 12000
        interleave(path, "path", args.repeats, lambda contender: asyncio.run(_path(server.url, contender, number)))

    print(f"\n| | {TIME} | of the first | of the second | of the third |\n|---|---|---|---|---|")
    for contender in CALLS:
        ratios = " | ".join(f"x{_of(scripts, TIME, contender, base):.2f}" for base in BARE)
        print(f"| {contender} | {scripts.median(TIME, contender):.1f} | {ratios} |")
    for contender, most in AIMS.items():
        print(f"\n{contender}: x{_of(scripts, TIME, contender, ONLY):.2f} of {ONLY}; at most x{most} is the aim")
    print("\n" + path.table())
    print(f"\n{STORED}: x{_of(path, RATE, STORED, UNSTORED):.2f} of {UNSTORED}; at least x{LEAST} is the aim")


if __name__ == "__main__":
    main()
