"""A node under test: `python -m tests.faults.history_node '{"name": ..., "hosts": [...], ...}'`.

It publishes numbered messages, follows them through viewers that behave like client sessions (they come, go, and
resume from their position), and sends to groups it stands in. Every step is a JSON line in `log`, stamped with
time.monotonic(), which is one clock for all processes of a machine. SIGUSR1: stop publishing. SIGUSR2: all viewers
leave, or come back. SIGTERM: end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import sys
import time
from dataclasses import replace
from typing import Any

from livechannels.exceptions import EngineUnavailable, PublishUnknown
from livechannels.layer import LiveChannelLayer
from livechannels.messages.policy import Policy
from livechannels.messages.positions import Position
from livechannels.messages.publications import Publication

KEPT = Policy(history_size=200_000, history_ttl=3600)
SHORT = Policy(history_size=20, history_ttl=3600)


def policy_for(channel: str) -> Policy:
    return SHORT if channel.startswith("short/") else KEPT


def switch_recovery_off() -> None:
    """A deliberately broken build: whoever missed something is told that all is well."""
    from livechannels.messages.positions import Recovery
    from livechannels.node import feeds, hub

    def nothing_missed(since: Position, found: Any) -> Recovery:
        return Recovery(True, [], found.position, "")

    feeds.recover = hub.recover = nothing_missed  # type: ignore[assignment]


def switch_epoch_rule_off() -> None:
    """Another one: a rewind of the store is not looked for, as in a broker whose epoch is only a random name."""
    from livechannels.engines.base import Read
    from livechannels.engines.redis.operations import Operations
    from livechannels.messages.positions import START
    from livechannels.node.hub import Hub

    read = Operations._read

    def read_blindly(self: Operations, command: Read) -> Any:
        return read(self, replace(command, since=Position("", command.since.offset)))

    Operations._read = read_blindly  # type: ignore[method-assign]
    Operations.compare_replids = property(lambda self: False, lambda self, value: None)  # type: ignore[assignment]
    Operations._seen = lambda self, command: START  # type: ignore[method-assign]
    Hub.position = lambda self, channel: START  # type: ignore[method-assign]


BROKEN = {"recovery": switch_recovery_off, "epoch rule": switch_epoch_rule_off}


class Log:
    def __init__(self, path: str, node: str) -> None:
        self._file, self._node = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), node

    def write(self, event: str, **words: Any) -> None:
        line = {"t": time.monotonic(), "node": self._node, "event": event, **words}
        os.write(self._file, json.dumps(line).encode() + b"\n")


class Viewer:
    """A client session on one live channel: keeps its position, resumes from it, starts anew when told to."""

    def __init__(self, name: str, channel: str, layer: LiveChannelLayer, log: Log, away: float) -> None:
        self.name, self.channel, self.layer, self.log, self.away = name, channel, layer, log, away
        self.position: Position | None = None
        self.present = asyncio.Event()
        self.present.set()
        self._over = asyncio.Event()

    def _write(self, event: str, **words: Any) -> None:
        self.log.write(event, viewer=self.name, channel=self.channel, **words)

    async def run(self) -> None:
        hub = self.layer.node().hub
        while True:
            await self.present.wait()
            self._over.clear()
            try:
                welcome = await hub.subscribe(self.channel, self, since=self.position)
            except EngineUnavailable:
                await asyncio.sleep(0.1)
                continue
            top = welcome.position
            self._write(
                "subscribed", since=self.position, recovered=welcome.recovered, epoch=top.epoch, offset=top.offset
            )
            if not welcome.recovered:
                self.position = top
            else:
                self.position = Position(top.epoch, self.position.offset if self.position else 0)
            for publication in welcome.publications:
                self.on_publication(publication)
            self._write("activated", offset=top.offset)
            hub.activate(self.channel, self)
            await self._stay()
            hub.unsubscribe(self.channel, self)

    async def _stay(self) -> None:
        """Until continuity ends, the session is sent away, or (with `away`) it drops off by itself."""
        leaving = random.expovariate(1 / self.away) if self.away else None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), leaving)
        if not self._over.is_set():
            self.leave()
            await asyncio.sleep(random.uniform(0, self.away / 2))

    def leave(self) -> None:
        self.layer.node().hub.unsubscribe(self.channel, self)
        self._write("left")
        self._over.set()

    def on_publication(self, publication: Publication) -> None:
        if not publication.offset:
            self._write("unplaced", id=publication.data["id"])
            return
        self._write("seen", epoch=publication.epoch, offset=publication.offset, id=publication.data["id"])
        self.position = publication.position

    def on_join(self, channel: str, info: bytes) -> None: ...

    def on_leave(self, channel: str, info: bytes) -> None: ...

    def on_insufficient(self, channel: str, reason: str) -> None:
        self._write("insufficient", reason=reason)
        self._over.set()


class NodeUnderTest:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config, self.name = config, config["name"]
        self.log = Log(config["log"], self.name)
        options = {"hosts": config["hosts"], "prefix": config["prefix"], "capacity": 20_000, "on_gap": "live.gap"}
        self.layer = LiveChannelLayer(**{**options, **config.get("options", {})})
        self.quiet = asyncio.Event()
        self.viewers = [
            Viewer(f"viewer{number}", channel, self.layer, self.log, config.get("away", 0) if number else 0)
            for channel in config["channels"]
            for number in range(config.get("viewers", 1))
        ]

    async def publish(self, channel: str) -> None:
        """One message after the other; one that failed is sent again under its key, or given up if it has none."""
        number = 0
        keyed = channel.startswith("keyed/")
        while not self.quiet.is_set():
            number += 1
            await self._publish_one(channel, f"{self.name}-{number}", keyed)
            await asyncio.sleep(self.config["period"])

    async def _publish_one(self, channel: str, name: str, keyed: bool) -> None:
        while True:
            try:
                position = await self.layer.publish(channel, {"id": name}, idempotency_key=name if keyed else None)
            except (EngineUnavailable, PublishUnknown) as error:
                self.log.write("refused", channel=channel, id=name, why=str(error))
                await asyncio.sleep(0.1)
                if not keyed:
                    return
            else:
                self.log.write("published", channel=channel, id=name, epoch=position.epoch, offset=position.offset)
                return

    async def send_to_group(self) -> None:
        number = 0
        while not self.quiet.is_set():
            number += 1
            began, name = time.monotonic(), f"{self.name}-{number}"
            try:
                await self.layer.group_send(f"room-{self.name}", {"type": "x", "id": name})
            except (EngineUnavailable, PublishUnknown) as error:
                self.log.write("group-refused", group=f"room-{self.name}", id=name, why=str(error))
                await asyncio.sleep(0.1)
            else:
                self.log.write("group-sent", group=f"room-{self.name}", id=name, began=began)
            await asyncio.sleep(self.config["period"])

    async def stand_in(self, group: str) -> None:
        channel = await self.layer.new_channel()
        await self.layer.group_add(group, channel)
        self.log.write("joined", group=group)
        while True:
            message = await self.layer.receive(channel)
            if message["type"] == "live.gap":
                self.log.write("gap", group=group, reason=message["reason"])
            else:
                self.log.write("heard", group=group, id=message["id"])

    def come_or_go(self) -> None:
        for viewer in self.viewers:
            if viewer.present.is_set():
                viewer.present.clear()
                viewer.leave()
            else:
                viewer.present.set()

    async def run(self) -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, over.set)
        loop.add_signal_handler(signal.SIGUSR1, self.quiet.set)
        loop.add_signal_handler(signal.SIGUSR2, self.come_or_go)
        tasks = [asyncio.ensure_future(viewer.run()) for viewer in self.viewers]
        tasks += [asyncio.ensure_future(self.stand_in(group)) for group in self.config.get("groups", [])]
        self.log.write("up", id=self.layer.node().id)
        await asyncio.sleep(self.config.get("begin_after", 0))
        busy = []
        if self.config["period"]:
            busy = [asyncio.ensure_future(self.publish(channel)) for channel in self.config["channels"]]
            if self.config.get("groups"):
                busy.append(asyncio.ensure_future(self.send_to_group()))
        await asyncio.gather(*busy)
        self.log.write("quiet")
        await over.wait()
        for task in tasks:
            task.cancel()
        for task in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(task, Exception):
                self.log.write("failed", why=repr(task))
        await self.layer.close()


def main() -> None:
    config = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(created).3f %(name)s %(levelname)s %(message)s")
    random.seed(config.get("seed"))
    LiveChannelLayer.policies = staticmethod(policy_for)  # type: ignore[method-assign]
    for what in config.get("broken", []):
        BROKEN[what]()
    asyncio.run(NodeUnderTest(config).run())


if __name__ == "__main__":
    main()
