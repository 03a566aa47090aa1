"""The backend streams of a node: stood for while wanted anywhere, run while led, handed over when it stops."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .. import metrics, registry
from ..conf import settings
from ..engines.base import Command, LeaseRelease
from ..exceptions import ConfigurationError, LiveChannelsError
from ..layer import LiveChannelLayer, live_layer
from ..leadership.election import Bus, Leadership
from ..node.shutdown import before_exit
from .candidate import BackendStream
from .demand import REFRESH, Demand
from .runner import GRACE
from .source import Stream, StreamSource, ThreadStream
from .status import StreamStatus
from .watchdog import Blocked, Watchdog

if TYPE_CHECKING:
    from ..node.node import Node

__all__ = [
    "Stream",
    "StreamSource",
    "Streams",
    "ThreadStream",
    "always_on",
    "arestart",
    "attach",
    "of",
    "restart",
    "run_forever",
]

logger = logging.getLogger(__name__)

PROMPT = 0.02
RESTART = "stream-restart"

_attached: WeakKeyDictionary[Any, Streams] = WeakKeyDictionary()


def attach(layer: LiveChannelLayer, node: Node) -> None:
    """Startup hook of a node: run backend streams on it, and give them up before it closes."""
    streams = _attached[node] = Streams(_NodeBus(layer, node), layer, ttl=settings.LEASE_TTL)
    node.hub.observers.append(streams.demand)
    node.on_close(streams.close)
    node.on_close(_call_off(before_exit(streams.close, lambda: streams.release_late(layer.run_sync))))
    try:
        streams.start(always_on())
    except ConfigurationError as error:
        logger.error("%s", error)


def of(node: Node) -> Streams:
    """The backend streams of a node."""
    return _attached[node]


async def run_forever() -> None:
    """Be one more node that runs backend streams, without a web server, until SIGTERM or SIGINT; then hand over."""
    layer = live_layer(settings.LAYER)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    node = layer.node()
    logger.info("%s runs backend streams", node.id)
    await ended.wait()
    await layer.close()


async def arestart(*patterns: str) -> None:
    """Run anew, wherever they run, the streams whose channel matches one of these globs: what they read has changed.

    Raises EngineUnavailable. A stream that had ended starts over.
    """
    await live_layer(settings.LAYER).broadcast(RESTART, {"patterns": list(patterns)})


def restart(*patterns: str) -> None:
    """`arestart` for synchronous code, such as a post_save receiver."""
    live_layer(settings.LAYER).broadcast_sync(RESTART, {"patterns": list(patterns)})


def always_on() -> list[str]:
    """The channels that run without viewers. Raises ConfigurationError where they cannot be named."""
    names: list[str] = []
    for path in registry.live_paths():
        channel_class = path.channel_class
        if not issubclass(channel_class, StreamSource) or not channel_class.always:
            continue
        if channel_class.always is not True:
            names.extend(channel_class.always)
        elif path.parameters:
            raise ConfigurationError(
                f"{path!r}: always = True needs a pattern without parameters; "
                f"list the channels instead: always = [{path.pattern!r}, ...].",
                check_id="livechannels.E008",
            )
        else:
            names.append(path.pattern)
    return names


def find_source(channel: str) -> type[StreamSource] | None:
    """The class of a channel's source, or None if it is no backend stream; runs nothing of the project's own."""
    try:
        found = registry.class_for(channel)
    except LiveChannelsError:
        return None
    return found if issubclass(found, StreamSource) else None


def _call_off(duty: Callable[[], None]) -> Callable[[], Coroutine[Any, Any, None]]:
    async def call_off() -> None:
        duty()

    return call_off


class _NodeBus:
    """A node as leadership and demand see it."""

    def __init__(self, layer: LiveChannelLayer, node: Node) -> None:
        self.id = node.id
        self.run = node.run
        self.on_control = node.on_control
        self.broadcast = layer.broadcast


class Streams:
    """All backend streams of one node. Made on its loop, closed before its sockets.

    `find` gives the class of a channel's source, None if the channel is no backend stream.
    """

    def __init__(
        self, bus: Bus, layer: Any, *, ttl: float = 3.0, find: Callable[[str], type[StreamSource] | None] = find_source
    ) -> None:
        self.id = bus.id
        self.layer = layer
        self.demand = Demand(bus, relevant=self._relevant, changed=self._changed, report=self.status)
        self.leadership = Leadership(bus, self.demand.nodes, ttl=ttl)
        self._bus = bus
        self._find = find
        self._streams: dict[str, BackendStream] = {}
        self._always: set[str] = set()
        self._closing = False
        self._watchdog = Watchdog(self._blamed)
        self._watchdog.start()
        self._tasks = [asyncio.get_running_loop().create_task(self._balance(), context=Context())]
        bus.on_control("stream-ended", self._on_ended)
        bus.on_control(RESTART, self._on_restart)

    def start(self, channels: Iterable[str]) -> None:
        """Run these from now on, with and without viewers."""
        for channel in channels:
            self._always.add(channel)
            self._changed(channel, True)

    def status(self) -> list[StreamStatus]:
        """The streams this node runs now."""
        return [stream.runner.status() for stream in self._streams.values() if stream.runner]

    def leader(self, channel: str) -> str:
        """The id of the node that led `channel` when this one last heard of it, else ""."""
        return self.leadership.leader(channel)

    async def close(self) -> None:
        """End every run, give up every lease, leave the roster. Bounded; never raises for an engine that is away."""
        if self._closing:
            return
        self._closing = True
        self._watchdog.stop()
        for task in self._tasks:
            task.cancel()
        stops = [asyncio.ensure_future(stream.stop()) for stream in self._streams.values()]
        if stops:
            await asyncio.wait(stops, timeout=PROMPT)
            slow = [stop for stop in stops if not stop.done()]
            if slow:
                await self._release_ended()
                await asyncio.wait(slow, timeout=2 * GRACE)
        await self.leadership.close()
        await self.demand.close()
        self._streams.clear()

    def release_late(self, run_sync: Callable[[Command[bool]], bool]) -> None:
        """The same in a process whose loop runs no more: give up what is still held."""
        for lease in self.leadership.leases():
            run_sync(LeaseRelease(lease.topic, lease.session, lease.token))

    async def _release_ended(self) -> None:
        """Those that ended at once need not wait for those that take their time."""
        ended = {stream.channel for stream in self._streams.values() if not stream.runner or stream.runner.over}
        await self.leadership.release(
            [lease for lease in self.leadership.leases() if lease.name in ended], leaving=True
        )

    # What a BackendStream asks of its owner

    def make(self, channel: str) -> StreamSource:
        source = registry.resolve(channel)
        assert isinstance(source, StreamSource)
        return source

    def wanted(self, channel: str, source_class: type[StreamSource]) -> bool:
        """Whether there is a reason for this node to run the stream, or to stand by for it."""
        if self._closing:
            return False
        if channel in self._always:
            return True
        return self.demand.wanted_here(channel) if source_class.scope == "node" else self.demand.wanted(channel)

    def touched(self, stream: BackendStream) -> None:
        """The status of a stream changed."""
        self.demand.touch()
        if stream.runner and stream.runner.state == "ended" and not stream.ended:
            stream.ended = True
            self._soon(self._bus.broadcast("stream-ended", {"channel": stream.channel}))

    def forget(self, stream: BackendStream) -> None:
        if self._streams.get(stream.channel) is stream:
            del self._streams[stream.channel]
        self.demand.touch()

    # News

    def _relevant(self, channel: str) -> bool:
        return self._find(channel) is not None

    def _changed(self, channel: str, news: bool) -> None:
        stream = self._streams.get(channel)
        if stream:
            stream.reconsider(news)
            return
        source_class = self._find(channel)
        if source_class and self.wanted(channel, source_class):
            self._streams[channel] = BackendStream(
                self, channel, source_class, ended=not news and self.demand.ended(channel)
            )

    def _on_ended(self, payload: dict[str, Any]) -> None:
        stream = self._streams.get(payload["channel"])
        if stream and not stream.runner:
            stream.ended = True

    def _on_restart(self, payload: dict[str, Any]) -> None:
        for stream in self._streams.values():
            if any(fnmatchcase(stream.channel, pattern) for pattern in payload["patterns"]):
                stream.ended = False
                if stream.runner:
                    stream.runner.restart("it was asked to")

    def _blamed(self, blocked: Blocked) -> None:
        for stream in self._streams.values():
            if stream.runner and blocked.task == f"stream {stream.channel}":
                stream.runner.blamed(f"blocked the event loop for {blocked.seconds:.1f} s at {blocked.place}")

    async def _balance(self) -> None:
        while True:
            await asyncio.sleep(REFRESH)
            await self.leadership.ask_for(self.leadership.balance())

    def _soon(self, coroutine: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await coroutine
            except LiveChannelsError as error:
                logger.debug("%s: not told: %s", self.id, error)

        task = asyncio.get_running_loop().create_task(guarded(), context=Context())
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)


def local_status() -> Iterable[StreamStatus]:
    """The streams that every node of this process runs now."""
    return [status for streams in list(_attached.values()) for status in streams.status()]


metrics.gauge(
    "livechannels_stream_token", "Fencing token of each backend stream led here.", "channel", "state"
).collect_from(lambda: [metrics.Sample((s.channel, s.state), s.token or 0) for s in local_status()])
metrics.gauge(
    "livechannels_stream_since_seconds", "When this node took each backend stream, in Unix time.", "channel"
).collect_from(lambda: [metrics.Sample((s.channel,), s.since) for s in local_status()])
metrics.gauge(
    "livechannels_stream_rate", "Publications per second of each backend stream led here.", "channel"
).collect_from(lambda: [metrics.Sample((s.channel,), s.rate) for s in local_status()])
