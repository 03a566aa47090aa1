"""Hundreds of random faults at leaders: `python -m tests.faults.campaign --faults 500 --ttl 1 --seed 7`.

Every fault hits the node that leads most: SIGTERM, SIGKILL, a pause past the lease, or a cut network that heals late.
Prints takeover times by kind, and what the store accepted that it should not have. Ends with 1 if there is any;
with `--unfenced`, the deliberately broken build, it ends with 1 if there is none.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

from tests.faults.leaders import Judgement, StreamCluster, StreamNode, freeze, thaw
from tests.servers import RedisServer, wait_until

KINDS = ("stop", "kill", "pause", "cut")


class Campaign:
    """Faults at one cluster, one after another."""

    def __init__(self, cluster: StreamCluster, dice: random.Random) -> None:
        self.cluster = cluster
        self.dice = dice
        self.takeovers: dict[str, list[float]] = defaultdict(list)
        self.self_stops: list[float] = []

    def strike(self, kind: str) -> None:
        """One fault, until every stream that was hit is led elsewhere and the cluster is whole again."""
        leaders = self.cluster.leaders()
        victim = self.dice.choice(sorted({node.name for node in leaders.values()}))
        node = next(node for node in self.cluster.nodes if node.name == victim)
        led = [channel for channel, leader in leaders.items() if leader is node]
        tokens = {channel: self.cluster.token(channel) for channel in led}
        fault = self._begin(kind, node)
        self.takeovers[kind] += [self.cluster.takeover(channel, fault, tokens[channel]) for channel in led]
        time.sleep(self.dice.uniform(0, 0.3))
        self._heal(kind, node, fault)
        self.cluster.wait_until_led()

    def _begin(self, kind: str, node: StreamNode) -> float:
        if kind == "cut" and node.proxy:
            fault = time.monotonic()
            node.proxy.blackhole()
            return fault
        if kind == "pause":
            return freeze(node)
        return node.send(signal.SIGTERM if kind == "stop" else signal.SIGKILL)

    def _heal(self, kind: str, node: StreamNode, fault: float) -> None:
        if kind == "cut" and node.proxy:
            node.proxy.heal()
            closes = [event["t"] - fault for event in node.events("close") if event["t"] > fault]
            self.self_stops += [seconds for seconds in closes if seconds < 2 * self.cluster.ttl]
        elif kind == "pause":
            thaw(node)
        else:
            wait_until(lambda: not node.process.alive, f"the end of {node.name}")
            self.cluster.replace(node)

    def report(self, judgement: Judgement) -> str:
        lines = []
        for kind, times in sorted(self.takeovers.items()):
            lines.append(
                f"{kind:6} {len(times):5} takeovers: median {statistics.median(times):.3f} s, worst {max(times):.3f} s"
            )
        if self.self_stops:
            lines.append(f"cut off and stopped by itself: worst {max(self.self_stops):.3f} s after the cut")
        return "\n".join([*lines, str(judgement)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--streams", type=int, default=6)
    parser.add_argument("--ttl", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--server", default="valkey")
    parser.add_argument("--unfenced", action="store_true")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    dice = random.Random(options.seed)
    server = RedisServer(options.server).start()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="lc-campaign-") as directory,
            StreamCluster(
                server.url, Path(directory), streams=options.streams, ttl=options.ttl, proxied=True,
                fenced=not options.unfenced, record=False,
            ) as cluster,
        ):  # fmt: skip
            campaign = Campaign(cluster, dice)
            for number in range(1, options.faults + 1):
                campaign.strike(dice.choice(KINDS))
                if number % 50 == 0:
                    print(f"{number} faults\n{campaign.report(cluster.judge())}", flush=True)
            judgement = cluster.judge()
            print(f"{options.faults} faults, seed {options.seed}\n{campaign.report(judgement)}")
    finally:
        server.kill()
    return int(any(judgement) != options.unfenced)


if __name__ == "__main__":
    import django

    django.setup()
    sys.exit(main())
