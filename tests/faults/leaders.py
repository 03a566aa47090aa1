"""A cluster of real processes that run backend streams on one store, and the judgement over what they did."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from livechannels.engines.base import LeaseGet, Read
from livechannels.layer import LiveChannelLayer
from livechannels.messages import topics
from tests.faults.proxy import FaultProxy
from tests.servers import Process, wait_until

ROOT = Path(__file__).parent.parent.parent
Event = dict[str, Any]


class StreamNode:
    """One process of the cluster; `proxy` is its way to the store, if it has one of its own."""

    def __init__(self, name: str, directory: Path, proxy: FaultProxy | None, config: dict[str, Any]) -> None:
        self.name = name
        self.proxy = proxy
        self.log = directory / f"{name}.jsonl"
        config = {**config, "name": name, "log": str(self.log)}
        command = [sys.executable, "-m", "tests.faults.stream_node", json.dumps(config)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = Process(command, directory, name, env)
        self.process.spawn()

    def events(self, *kinds: str) -> list[Event]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in events if event["event"] in kinds] if kinds else events

    @property
    def id(self) -> str:
        return str(self.events("up")[0]["id"])

    def send(self, number: int) -> float:
        """Send a signal; when it was sent."""
        now = time.monotonic()
        self.process.send_signal(number)
        return now


class StreamCluster:
    """`count` nodes, all watching `streams` channels, which exactly one of them is to run each."""

    def __init__(
        self,
        url: str,
        directory: Path,
        *,
        count: int = 3,
        streams: int = 1,
        ttl: float = 3.0,
        period: float = 0.05,
        prefix: str = "faults",
        fenced: bool = True,
        proxied: bool = False,
        clocks: Iterable[float] = (),
        block: float = 0.0,
        record: bool = True,
    ) -> None:
        self.ttl = ttl
        self.layer = LiveChannelLayer(hosts=[url], prefix=prefix)
        self.channels = [f"source/{number}" for number in range(streams)]
        self.nodes: list[StreamNode] = []
        self.gone: list[StreamNode] = []
        self._url, self._directory, self._proxied = url, directory, proxied
        self._clocks = list(clocks)
        self._config = {
            "prefix": prefix, "ttl": ttl, "period": period, "watch": streams, "fenced": fenced, "block": block,
            "record": record,
        }  # fmt: skip
        for _ in range(count):
            self.add()

    def add(self) -> StreamNode:
        """One node more."""
        number = len(self.nodes) + len(self.gone)
        proxy = FaultProxy(int(self._url.rsplit(":", 1)[1].split("/")[0])).start() if self._proxied else None
        clock = self._clocks[number] if number < len(self._clocks) else 0
        config = {**self._config, "url": proxy.url if proxy else self._url, "clock": clock}
        self.nodes.append(StreamNode(f"node{number}", self._directory, proxy, config))
        return self.nodes[-1]

    def replace(self, node: StreamNode) -> StreamNode:
        """A new node for one that is gone."""
        newcomer = self.add()
        wait_until(lambda: newcomer.events("watching"), "the newcomer", 60)
        node.process.kill()
        if node.proxy:
            node.proxy.stop()
        self.gone.append(node)
        self.nodes.remove(node)
        return newcomer

    def __enter__(self) -> StreamCluster:
        wait_until(lambda: all(node.events("watching") for node in self.nodes), "nodes that watch", 60)
        self.wait_until_led()
        return self

    def __exit__(self, *error: object) -> None:
        for node in self.nodes:
            node.process.kill()
            if node.proxy:
                node.proxy.stop()

    # Who leads

    def leaders(self) -> dict[str, StreamNode]:
        """Channel to its leader, as the store says."""
        by_id = {node.id: node for node in self.nodes if node.events("up")}
        found = {}
        for channel in self.channels:
            grant = self.layer.run_sync(LeaseGet(topics.live(channel)))
            if grant and grant.holder in by_id:
                found[channel] = by_id[grant.holder]
        return found

    def leader(self, channel: str = "source/0") -> StreamNode:
        """Its leader, once there is one."""
        return wait_until(lambda: self.leaders().get(channel), f"a leader of {channel}")  # type: ignore[no-any-return]

    def wait_until_led(self, by: Iterable[StreamNode] | None = None, timeout: float = 60) -> None:
        """Until every stream publishes, led by one of `by`."""
        names = {node.name for node in by or self.nodes}

        def led() -> bool:
            leaders = self.leaders()
            return len(leaders) == len(self.channels) and all(node.name in names for node in leaders.values())

        wait_until(led, "every stream is led", timeout)
        wait_until(lambda: set(self.channels) <= {e["channel"] for e in self._living("published")}, "all publish")

    # What happened

    def events(self, *kinds: str) -> list[Event]:
        """Of all nodes, in the order of time."""
        return sorted(
            (event for node in self.gone + self.nodes for event in node.events(*kinds)), key=lambda event: event["t"]
        )

    def _living(self, *kinds: str) -> list[Event]:
        """Of the nodes that are not gone: the logs of hundreds that are would take the nodes' time to read."""
        return [event for node in self.nodes for event in node.events(*kinds)]

    def takeovers(self, fault: float, tokens: Mapping[str, int], timeout: float = 30) -> list[float]:
        """Seconds from the fault to the first accepted publication of each stream's next leader.

        `tokens`: what each was led under before.
        """

        def found() -> dict[str, float] | None:
            first: dict[str, float] = {}
            for event in self._living("published"):
                channel = event["channel"]
                if event["t"] >= fault and event["said"]["token"] > tokens.get(channel, math.inf):
                    first[channel] = min(event["t"], first.get(channel, math.inf))
            return first if len(first) == len(tokens) else None

        first: dict[str, float] = wait_until(found, f"takeover of {', '.join(tokens)}", timeout) if tokens else {}
        return [first[channel] - fault for channel in tokens]

    def token(self, channel: str = "source/0") -> int:
        grant = self.layer.run_sync(LeaseGet(topics.live(channel)))
        assert grant and grant.token
        return grant.token

    def history(self, channel: str) -> list[Event]:
        """What the store accepted and kept, in order; each with its offset and epoch."""
        found = self.layer.run_sync(Read(topics.live(channel)))
        bodies = [(entry.offset, json.loads(self.layer.codec.unseal(entry.body))) for entry in found.entries]
        return [{"offset": offset, **body["data"]} for offset, body in bodies if body.get("data")]

    def judge(self) -> Judgement:
        """Of everything the store kept and every viewer saw."""
        histories = [self.history(channel) for channel in self.channels]
        wrong = Counter(event["event"] for event in self.events("repeat", "skip"))
        return Judgement(sum(map(count_stale, histories)), two_holders(histories), wrong["repeat"], wrong["skip"])

    def double_open(self) -> float:
        """The longest time for which two nodes had the same stream open, in seconds."""
        return max((overlap(self.events("open", "close"), channel) for channel in self.channels), default=0)


class Judgement(NamedTuple):
    """What must all be 0: stale publications accepted, tokens of two nodes, repeats and silent gaps at viewers."""

    stale: int = 0
    shared_tokens: int = 0
    repeats: int = 0
    skips: int = 0


CLEAN = Judgement()


def count_stale(history: list[Event]) -> int:
    """Entries of an earlier token after the first entry of a later one."""
    highest, stale = 0, 0
    for entry in history:
        stale += entry["token"] < highest
        highest = max(highest, entry["token"])
    return stale


def two_holders(histories: Iterable[list[Event]]) -> int:
    """Tokens of one stream under which two nodes published."""
    count = 0
    for history in histories:
        holders: dict[int, set[str]] = defaultdict(set)
        for entry in history:
            holders[entry["token"]].add(entry["by"])
        count += sum(len(names) > 1 for names in holders.values())
    return count


def overlap(events: list[Event], channel: str) -> float:
    """How long, at most, more than one run of `channel` was open; events of killed nodes have no close."""
    longest, since, opened = 0.0, 0.0, 0
    for event in events:
        if event["channel"] != channel:
            continue
        if event["event"] == "open":
            opened += 1
            since = event["t"] if opened == 2 else since
        else:
            if opened == 2:
                longest = max(longest, event["t"] - since)
            opened -= 1
    return longest


def freeze(node: StreamNode) -> float:
    return node.send(signal.SIGSTOP)


def thaw(node: StreamNode) -> float:
    return node.send(signal.SIGCONT)
