"""Which live channels are being published to and how fast: one roster in the store, so nobody has to be asked.

Each process enters the channels it publishes to; an entry expires five minutes after the last publication.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from ..engines.base import Command, RosterGet, RosterSet
from ..exceptions import EngineUnavailable
from ..messages import topics

logger = logging.getLogger(__name__)

T = TypeVar("T")

ENTER_EVERY = 5.0
LISTED_FOR = 300.0
MINUTE = 60.0

_SLOT = 5.0
_SLOTS = int(MINUTE / _SLOT)
_CHANNELS = 10_000


class ActiveChannel(NamedTuple):
    """`rate`: publications in the minute before the last entry, of all processes; `last`: seconds since the epoch."""

    channel: str
    rate: int
    last: float


class Door(Protocol):
    """What this module needs of a layer."""

    async def run(self, command: Command[T]) -> T: ...

    def run_sync(self, command: Command[T]) -> T: ...


class _Entry(msgspec.Struct):
    rate: int
    at: float


class _Meter:
    """Publications in the last minute, in slots of five seconds."""

    __slots__ = ("entered", "now", "slots")

    def __init__(self) -> None:
        self.slots = [0] * _SLOTS
        self.now = 0
        self.entered = -ENTER_EVERY

    def add(self, count: int, at: float) -> int:
        now = int(at / _SLOT)
        for slot in range(max(self.now + 1, now - _SLOTS + 1), now + 1):
            self.slots[slot % _SLOTS] = 0
        self.now = max(self.now, now)
        self.slots[self.now % _SLOTS] += count
        return sum(self.slots)


class Activity:
    """What this process publishes to. Counting is exact here; the roster is renewed at most every 5 s per channel."""

    def __init__(self, layer: Door, clock: Callable[[], float] = time.monotonic) -> None:
        self._layer = layer
        self._clock = clock
        self._meters: dict[str, _Meter] = {}

    async def published(self, channel: str, count: int = 1) -> None:
        """Count publications and, if it is time, renew the entry. A store that is away is no error here."""
        now = self._clock()
        meter = self._meters.get(channel)
        if meter is None:
            if len(self._meters) >= _CHANNELS:
                self._forget(now)
            meter = self._meters[channel] = _Meter()
        rate = meter.add(count, now)
        if now - meter.entered < ENTER_EVERY:
            return
        meter.entered = now
        entry = msgspec.json.encode(_Entry(rate, time.time()))
        try:
            await self._layer.run(RosterSet(topics.CHANNELS, f"{channel} {_process()}", entry, LISTED_FOR))
        except EngineUnavailable as error:
            logger.debug("%s was not entered as active: %s", channel, error)

    def _forget(self, now: float) -> None:
        for channel in [name for name, meter in self._meters.items() if now - meter.entered > MINUTE]:
            del self._meters[channel]
        if len(self._meters) >= _CHANNELS:
            self._meters.clear()


async def active_channels(layer: Door) -> list[ActiveChannel]:
    """The channels published to in the last five minutes, on any node, by name. Raises EngineUnavailable."""
    return _listed(await layer.run(RosterGet(topics.CHANNELS)))


def active_channels_sync(layer: Door) -> list[ActiveChannel]:
    """As `active_channels`, from synchronous code."""
    return _listed(layer.run_sync(RosterGet(topics.CHANNELS)))


def _listed(entries: dict[str, bytes]) -> list[ActiveChannel]:
    found: dict[str, ActiveChannel] = {}
    quiet = time.time() - MINUTE
    for member, raw in entries.items():
        channel = member.partition(" ")[0]
        try:
            entry = msgspec.json.decode(raw, type=_Entry)
        except msgspec.DecodeError:
            continue
        rate = entry.rate if entry.at > quiet else 0
        _, known, last = found.get(channel, (channel, 0, 0.0))
        found[channel] = ActiveChannel(channel, known + rate, max(last, entry.at))
    return [found[channel] for channel in sorted(found)]


def _process() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"
