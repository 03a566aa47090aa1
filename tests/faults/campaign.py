"""Hundreds of random faults at leaders: `python -m tests.faults.campaign --faults 500 --ttl 1 --seed 7`.

Every fault hits a node that leads: SIGTERM, SIGKILL, a pause past the lease, or a cut network that heals late.
Prints takeover times by kind, each one that took too long, and what the store accepted that it should not have.
Ends with 1 if there is any of that; with `--unfenced`, the deliberately broken build, if there is none.
With `--minutes` it goes on until they have passed.
"""

from __future__ import annotations

import argparse
import math
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

from livechannels.leadership.lease import SAFE
from tests.faults.leaders import Judgement, StreamCluster, StreamNode, freeze, thaw
from tests.servers import RedisServer, wait_until

KINDS = ("stop", "kill", "pause", "cut")
PROMPT = 0.5
"""Seconds in which a stream that is handed over, or whose lease has run out, is to publish again."""
OWN_STOP = 0.15
"""Seconds for a leader that is cut off to stop, once it trusts its lease no more: 2.7 s at 3 s time to live."""


class Campaign:
    """Faults at one cluster, one after another."""

    def __init__(self, cluster: StreamCluster, dice: random.Random) -> None:
        self.cluster = cluster
        self.dice = dice
        self.faults = 0
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
        self.faults += 1
        self.takeovers[kind] += self.cluster.takeovers(fault, tokens)
        time.sleep(self.dice.uniform(0, 0.3))
        if kind == "cut":
            self.self_stops += self._own_stops(node, fault, tokens)
        self._heal(kind, node)
        self.cluster.wait_until_led()

    def _begin(self, kind: str, node: StreamNode) -> float:
        if kind == "cut" and node.proxy:
            fault = time.monotonic()
            node.proxy.blackhole()
            return fault
        if kind == "pause":
            return freeze(node)
        return node.send(signal.SIGTERM if kind == "stop" else signal.SIGKILL)

    @staticmethod
    def _own_stops(node: StreamNode, fault: float, tokens: dict[str, int]) -> list[float]:
        """Seconds from the cut to the end of each run, infinite for one that goes on."""
        closes = {(event["channel"], event["token"]): event["t"] - fault for event in node.events("close")}
        return [closes.get(run, math.inf) for run in tokens.items()]

    def _heal(self, kind: str, node: StreamNode) -> None:
        if kind == "cut" and node.proxy:
            node.proxy.heal()
        elif kind == "pause":
            thaw(node)
        else:
            wait_until(lambda: not node.process.alive, f"the end of {node.name}")
            self.cluster.replace(node)

    def late(self) -> list[str]:
        """What took longer than it may."""
        bounds = {kind: PROMPT if kind == "stop" else self.cluster.ttl + PROMPT for kind in KINDS}
        found = [
            f"{kind}: {seconds:.3f} s" for kind, times in self.takeovers.items()
            for seconds in times if seconds > bounds[kind]
        ]  # fmt: skip
        stopped = SAFE * self.cluster.ttl + OWN_STOP
        return found + [f"own stop: {seconds:.3f} s" for seconds in self.self_stops if seconds >= stopped]

    def report(self, judgement: Judgement) -> str:
        lines = [f"{self.faults} faults"]
        for kind, times in sorted(self.takeovers.items()):
            lines.append(
                f"{kind:6} {len(times):5} takeovers: median {statistics.median(times):.3f} s, worst {max(times):.3f} s"
            )
        if self.self_stops:
            lines.append(f"cut off and stopped by itself: worst {max(self.self_stops):.3f} s after the cut")
        return "\n".join([*lines, *(f"too late: {late}" for late in self.late()), str(judgement)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, help="how many (500, or as many as there is time for)")
    parser.add_argument("--minutes", type=float, help="when to stop, however many there were")
    parser.add_argument("--streams", type=int, default=6)
    parser.add_argument("--ttl", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--server", default="valkey")
    parser.add_argument("--unfenced", action="store_true")
    options = parser.parse_args()
    most = options.faults or (500 if options.minutes is None else math.inf)
    ends = time.monotonic() + (math.inf if options.minutes is None else 60 * options.minutes)
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
            while campaign.faults < most and time.monotonic() < ends:
                campaign.strike(dice.choice(KINDS))
                if campaign.faults % 50 == 0:
                    print(campaign.report(cluster.judge()), flush=True)
            judgement = cluster.judge()
            print(f"seed {options.seed}, all in all:\n{campaign.report(judgement)}")
    finally:
        server.kill()
    if options.unfenced:
        return int(not judgement.stale)
    return int(any(judgement) or bool(campaign.late()))


if __name__ == "__main__":
    import django

    django.setup()
    sys.exit(main())
