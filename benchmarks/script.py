"""Server time of one publish, by INFO commandstats, beside a script that only publishes."""

from __future__ import annotations

from itertools import count

from livechannels.engines.base import Fence, LeaseAcquire, Publish, Retention
from livechannels.engines.redis.keys import Keys
from livechannels.engines.redis.operations import Operations, Request
from tests.servers import RedisServer

from .samples import Results, Sample, conditions, interleave, options

ONLY, PLAIN, FENCED, ONCE = "a script that only publishes", "publish", "publish, fenced", "publish once"
TARGETS = {PLAIN: 2.5, FENCED: 2.8}
BODY = b"x" * 1000
WINDOW = 16
"""Calls in one pipeline: Redis is then busy enough to have its code in the cache, as it has under load."""


class Calls:
    """The requests that the engine itself would send, sent by a synchronous pipeline."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.client = server.client
        self.operations = Operations(Keys("bench", 0))
        self.listener = server.client.pubsub()
        self.listener.subscribe(self.operations.keys.name("g/bench"))
        grant = self.operations.make(LeaseAcquire("g/bench", "session", "bench", 600))
        reply = self.client.execute_command(*next(grant)[0].in_full())
        self.fence = Fence("session", int(reply[0]))
        self.only = self.client.script_load("return redis.call('PUBLISH', ARGV[1], ARGV[2])")
        self.loaded: set[str] = set()
        self.numbers = count()

    def request(self, contender: str) -> tuple[object, ...]:
        if contender == ONLY:
            name = self.operations.keys.name("g/bench")
            return ("EVALSHA", self.only, 0, name, b"1 - 0 " + self.operations.payload(BODY))
        fence = self.fence if contender == FENCED else None
        key = f"key-{next(self.numbers)}" if contender == ONCE else None
        made = next(self.operations.make(Publish("g/bench", BODY, Retention(100, 60, 65), fence, key)))
        return self.known(made[0])

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
        return {"server us per call": spent["usec_per_call"]}


def main() -> None:
    args = options(__doc__)
    results = Results([ONLY, PLAIN, FENCED, ONCE])
    print(conditions("redis-server"), flush=True)
    with RedisServer("redis") as server:
        calls = Calls(server)
        number = 1600 if args.quick else 8000
        interleave(results, "publish", args.repeats, lambda contender: calls.measure(contender, number))
    print("\n" + results.table())
    for contender, most in TARGETS.items():
        ratio = results.ratio("server us per call", contender)
        print(f"{contender}: x{1 / ratio if ratio else 0:.2f} of {ONLY}, at most x{most} is the aim")


if __name__ == "__main__":
    main()
