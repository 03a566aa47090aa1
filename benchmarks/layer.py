"""The layer's table: W1 to W6 for every contender, as ratios to channels_redis pubsub."""

from __future__ import annotations

import json
import os
import sys

from tests.servers import RedisServer

from .layer_workloads import WORKLOADS, run
from .layers import BARE, CONTENDERS, CORE, NO_HISTORY
from .samples import Results, Sample, conditions, interleave, options, take

SKIPPED = {
    ("W1 100 senders", CORE), ("W4 membership", CORE), ("groups", CORE),  # its connection pool gives out
    *((workload, NO_HISTORY) for workload in ("W4 membership", "W6 memory")),  # as with history
    ("groups", BARE),
}  # fmt: skip


def main() -> None:
    args = options(__doc__)
    if args.sample:
        print(json.dumps(run(**args.sample)))
        sys.stdout.flush()
        os._exit(0)  # what layers leave running is not measured
    results = Results(CONTENDERS)
    print(conditions("redis-server"), flush=True)
    with RedisServer("redis") as server:
        for workload in WORKLOADS:
            if args.only not in workload:
                continue

            def measure(contender: str, workload: str = workload) -> Sample | str | None:
                if (workload, contender) in SKIPPED:
                    return None
                server.command("FLUSHALL")
                scale = 1 if args.quick else 3
                return take("benchmarks.layer", workload=workload, contender=contender, url=server.url, scale=scale)

            interleave(results, workload, args.repeats, measure)
            print(f"measured: {workload}", file=sys.stderr, flush=True)
    print("\n" + results.table())


if __name__ == "__main__":
    main()
