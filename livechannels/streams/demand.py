"""Which backend streams are wanted anywhere in the cluster, and which nodes could run them.

Every node enters, in one expiring roster, the streams it has viewers of; changes are also broadcast at once. Nobody
counts: a node that dies falls out of the roster, and whoever missed a broadcast sees the change at the next reading.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from ..engines.base import RosterDrop, RosterGet, RosterSet
from ..exceptions import EngineUnavailable
from ..leadership.election import Bus
from ..messages import topics
from .status import NodeReport, StreamStatus, decode

logger = logging.getLogger(__name__)

REFRESH = 5.0
TTL = 15.0
PAUSE = 0.2


@dataclass(slots=True)
class _Node:
    """What is known of another node."""

    seq: int
    wants: set[str]
    heard: float


class Demand:
    """The wishes of all nodes as this one knows them; it observes the hub's viewers. Belongs to the node's loop.

    `relevant(channel)`: whether a channel is a backend stream. `changed(channel, reason)` is called when a stream
    may have become wanted or unwanted; `reason` is true when a node without viewers of it just got one. `report()`
    gives the status of the streams this node runs, entered with its wishes.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        relevant: Callable[[str], bool],
        changed: Callable[[str, bool], None],
        report: Callable[[], list[StreamStatus]],
    ) -> None:
        self._bus = bus
        self._relevant = relevant
        self._changed = changed
        self._report = report
        self._seq = 0
        self._wants: set[str] = set()
        self._others: dict[str, _Node] = {}
        self._wanted_by: dict[str, set[str]] = {}
        self._ended: set[str] = set()
        self._gone: deque[str] = deque(maxlen=1000)
        self._added: set[str] = set()
        self._dropped: set[str] = set()
        self._news = asyncio.Event()
        self._write = asyncio.Event()
        self._read = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        bus.on_control("demand", self._on_demand)
        for loop in (self._announce_loop(), self._write_loop(), self._read_loop()):
            task = asyncio.get_running_loop().create_task(loop, context=Context())
            self._tasks.add(task)

    def nodes(self) -> Collection[str]:
        """Ids of the nodes that run backend streams, this one included."""
        return {self._bus.id, *self._others}

    def wanted(self, channel: str) -> bool:
        """Whether anyone in the cluster looks at `channel`."""
        return channel in self._wanted_by

    def wanted_here(self, channel: str) -> bool:
        """Whether this node has viewers of `channel`."""
        return channel in self._wants

    def ended(self, channel: str) -> bool:
        """Whether the stream had returned cleanly when the roster was last read."""
        return channel in self._ended

    def on_first_viewer(self, channel: str) -> None:
        if self._relevant(channel) and channel not in self._wants:
            self._wants.add(channel)
            self._added.add(channel)
            self._dropped.discard(channel)
            self._news.set()
            self._add(self._bus.id, channel, True)

    def on_last_viewer(self, channel: str) -> None:
        if channel in self._wants:
            self._wants.discard(channel)
            self._dropped.add(channel)
            self._added.discard(channel)
            self._news.set()
            self._drop(self._bus.id, channel)

    def touch(self) -> None:
        """The status of a stream changed: enter it soon."""
        self._write.set()

    async def close(self) -> None:
        """Take this node out of the roster and tell the others. Never raises."""
        for task in self._tasks:
            task.cancel()
        try:
            await self._bus.run(RosterDrop(topics.STREAMS, self._bus.id))
            await self._bus.broadcast("demand", {"node": self._bus.id, "gone": True})
        except EngineUnavailable:
            logger.debug("%s: could not leave the roster of streams; it expires", self._bus.id)

    # Telling

    async def _announce_loop(self) -> None:
        self._news.set()
        while True:
            await self._news.wait()
            self._news.clear()
            self._seq += 1
            payload = {"node": self._bus.id, "seq": self._seq, "add": list(self._added), "drop": list(self._dropped)}
            self._added.clear()
            self._dropped.clear()
            self._write.set()
            try:
                await self._bus.broadcast("demand", payload)
            except EngineUnavailable:
                logger.debug("%s: could not broadcast its demand; the roster will tell", self._bus.id)

    async def _write_loop(self) -> None:
        while True:
            await _wait(self._write, REFRESH)
            report = NodeReport(self._seq, sorted(self._wants), self._report())
            try:
                await self._bus.run(RosterSet(topics.STREAMS, self._bus.id, report.encode(), TTL))
            except EngineUnavailable:
                self._write.set()
            await asyncio.sleep(PAUSE)

    # Hearing

    async def _read_loop(self) -> None:
        self._read.set()
        while True:
            await _wait(self._read, REFRESH)
            try:
                entries = await self._bus.run(RosterGet(topics.STREAMS))
                self._learn(decode(entries))
            except EngineUnavailable:
                logger.debug("%s: could not read the roster of streams", self._bus.id)
            await asyncio.sleep(PAUSE)

    def _learn(self, reports: Mapping[str, NodeReport]) -> None:
        now = time.monotonic()
        self._ended = {s.channel for report in reports.values() for s in report.streams if s.state == "ended"}
        for node, report in reports.items():
            if node == self._bus.id or node in self._gone:
                continue
            new = node not in self._others
            known = self._others.setdefault(node, _Node(0, set(), now))
            if report.seq >= known.seq:
                known.seq = report.seq
                self._replace(node, known, set(report.wants), news=not new)
        for node, known in list(self._others.items()):
            if node not in reports and now - known.heard > REFRESH:
                self._forget(node)

    def _on_demand(self, payload: dict[str, Any]) -> None:
        node = payload["node"]
        if node == self._bus.id:
            return
        if payload.get("gone"):
            self._gone.append(node)
            self._forget(node)
            return
        known = self._others.get(node)
        if known is None:
            known = self._others[node] = _Node(0, set(), 0)
        known.heard = time.monotonic()
        if payload["seq"] != known.seq + 1:
            self._read.set()
        if payload["seq"] > known.seq:
            known.seq = payload["seq"]
            self._replace(node, known, (known.wants | set(payload["add"])) - set(payload["drop"]), news=True)

    def _replace(self, node: str, known: _Node, wants: set[str], *, news: bool) -> None:
        added, dropped = wants - known.wants, known.wants - wants
        known.wants = wants
        for channel in added:
            self._add(node, channel, news)
        for channel in dropped:
            self._drop(node, channel)

    def _forget(self, node: str) -> None:
        known = self._others.pop(node, None)
        for channel in known.wants if known else ():
            self._drop(node, channel)

    def _add(self, node: str, channel: str, news: bool) -> None:
        self._wanted_by.setdefault(channel, set()).add(node)
        self._changed(channel, news)

    def _drop(self, node: str, channel: str) -> None:
        nodes = self._wanted_by.get(channel, set())
        nodes.discard(node)
        if not nodes:
            self._wanted_by.pop(channel, None)
            self._changed(channel, False)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    # Not wait_for(): before Python 3.12 it swallows a cancellation that meets the event.
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    event.clear()
