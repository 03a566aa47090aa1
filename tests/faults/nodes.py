"""Several nodes under test on one store, and what the judge needs of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from livechannels.engines.base import Read
from livechannels.exceptions import EngineUnavailable
from livechannels.layer import LiveChannelLayer
from livechannels.messages import topics
from livechannels.messages.publications import Publication
from tests.faults.history import Event, Report, Surviving, judge
from tests.servers import Process, wait_until

ROOT = Path(__file__).parent.parent.parent


class NodeProcess(Process):
    """One node; its log is a list of events."""

    def __init__(self, directory: Path, config: dict[str, Any]) -> None:
        self.events_path = directory / f"{config['name']}.jsonl"
        config = {**config, "log": str(self.events_path)}
        command = [sys.executable, "-m", "tests.faults.history_node", json.dumps(config)]
        super().__init__(command, directory, config["name"], {**os.environ, "PYTHONPATH": str(ROOT)})
        self.killed = False
        self._read = 0
        self._events: list[Event] = []
        self._by_kind: dict[str, list[Event]] = defaultdict(list)

    def events(self, *kinds: str) -> list[Event]:
        """What it has logged so far, all of it or of these kinds; only what is new is read."""
        if self.events_path.exists():
            with self.events_path.open("rb") as log:
                log.seek(self._read)
                whole = log.read().rpartition(b"\n")[0]
            if whole:
                self._read += len(whole) + 1
                for line in whole.split(b"\n"):
                    event = json.loads(line)
                    self._events.append(event)
                    self._by_kind[event["event"]].append(event)
        if not kinds:
            return self._events
        return self._by_kind[kinds[0]] if len(kinds) == 1 else [e for kind in kinds for e in self._by_kind[kind]]

    def kill(self) -> None:
        self.killed = True
        super().kill()


class Nodes:
    """`count` nodes that publish to each other and follow each other. `hosts` may differ by node (own proxies).

    Use as a context manager; `settle` stops the publishing, waits until everything has arrived and returns the
    judge's report.
    """

    def __init__(
        self,
        directory: Path,
        hosts: Sequence[str],
        *,
        direct: str | None = None,
        count: int = 2,
        channels: Sequence[str] = ("keyed/1", "plain/1"),
        period: float = 0.02,
        prefix: str = "faults",
        groups: bool = True,
        **config: Any,
    ) -> None:
        self.directory, self.channels, self.prefix = directory, list(channels), prefix
        self.direct = direct or hosts[0]
        self._hosts = list(hosts)
        names = [f"n{number}" for number in range(count)]
        self._config = {
            "prefix": prefix, "channels": self.channels, "period": period, "begin_after": 0.3,
            "groups": [f"room-{name}" for name in names] if groups else [], **config,
        }  # fmt: skip
        self.nodes = [self._make(name, hosts[number % len(hosts)]) for number, name in enumerate(names)]
        self.faults: list[Event] = []
        self.gone: list[NodeProcess] = []

    def _make(self, name: str, host: str) -> NodeProcess:
        config = {**self._config, "name": name, "hosts": [host]}
        if self._config["groups"]:
            others = [node.name for node in getattr(self, "nodes", []) if not node.killed]
            config["groups"] = sorted({f"room-{other}" for other in (name, *others)} | set(self._config["groups"]))
        return NodeProcess(self.directory, config)

    def replace(self, node: NodeProcess) -> None:
        """Kill a node and start another in its place, under a new name: it joins the others' groups and has its own."""
        number = len(self.nodes) + len(self.gone)
        host = self._hosts[self.nodes.index(node) % len(self._hosts)]
        node.kill()
        newcomer = self._make(f"n{number}", host)
        self.gone.append(node)
        self.nodes[self.nodes.index(node)] = newcomer
        newcomer.spawn()
        self.wait(lambda: newcomer.events("seen"), "a newcomer that sees something", 60)

    def __enter__(self) -> Nodes:
        for node in self.nodes:
            node.spawn()
        self.wait(lambda: all(node.events("seen") for node in self.nodes), "nodes that see each other", 30)
        return self

    def __exit__(self, *_exc: object) -> None:
        for node in (*self.nodes, *self.gone):
            Process.kill(node)

    def wait(self, condition: Any, what: str, timeout: float = 30) -> Any:
        """`wait_until` that notices a node which died by itself."""

        def holds() -> Any:
            for node in self.nodes:
                if not node.alive and not node.killed:
                    raise AssertionError(f"{node.name} ended by itself:\n{node.output()[-3000:]}")
            return condition()

        return wait_until(holds, what, timeout)

    def fault(self, kind: str) -> None:
        """Note that one was injected."""
        self.faults.append({"t": time.monotonic(), "node": "nemesis", "event": "fault", "kind": kind})

    def server_gone(self) -> None:
        """Note that a server goes away now, perhaps with what it has acknowledged a moment ago."""
        self.faults.append({"t": time.monotonic(), "node": "nemesis", "event": "server-gone"})

    def seen(self) -> list[int]:
        return [len(node.events("seen")) for node in self.nodes]

    def wait_for_progress(self, count: int = 20, timeout: float = 40) -> float:
        """Until every node has seen `count` more publications; how long that took."""
        before, began = self.seen(), time.monotonic()
        self.wait(
            lambda: all(now >= then + count for now, then in zip(self.seen(), before, strict=True)),
            "publications that arrive again", timeout,
        )  # fmt: skip
        return time.monotonic() - began

    def send_all(self, number: int) -> None:
        for node in self.nodes:
            node.send_signal(number)

    def surviving(self) -> dict[str, Surviving]:
        """What the store holds now, asked past every proxy."""
        layer = LiveChannelLayer(hosts=[self.direct], prefix=self.prefix)
        try:
            return {channel: self._read(layer, channel) for channel in self.channels}
        finally:
            asyncio.run(layer.close())

    @staticmethod
    def _read(layer: LiveChannelLayer, channel: str) -> Surviving:
        found = layer.run_sync(Read(topics.live(channel)))
        ids = {e.offset: Publication.from_entry(channel, e, "").data["id"] for e in found.entries}
        return Surviving(found.position.epoch, found.position.offset, ids)

    def settle(self, *, lossless: bool = False, patience: float = 20) -> Report:
        """Stop publishing, wait for the last messages to arrive (the judge says so if they do not), and judge."""
        living = [node for node in self.nodes if not node.killed]
        for node in living:
            node.thaw()
            node.send_signal(signal.SIGUSR1)
        self.wait(lambda: all(node.events("quiet") for node in living), "the end of publishing", 40)
        surviving = self._surviving_at_last()
        deadline = time.monotonic() + patience
        while True:
            report = judge(self.events(), surviving, dead=self.dead, lossless=lossless)
            if not report.violations or time.monotonic() > deadline:
                break
            time.sleep(0.3)
            surviving = self._surviving_at_last()
        failures = [event for node in living for event in node.events("failed")]
        report.violations += [f"{event['node']}: {event['why']}" for event in failures]
        return report

    def _surviving_at_last(self) -> dict[str, Surviving]:
        deadline = time.monotonic() + 40
        while True:
            try:
                return self.surviving()
            except EngineUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def events(self) -> list[Event]:
        return [*self.faults, *(event for node in (*self.nodes, *self.gone) for event in node.events())]

    @property
    def dead(self) -> list[str]:
        return [node.name for node in (*self.nodes, *self.gone) if node.killed]
