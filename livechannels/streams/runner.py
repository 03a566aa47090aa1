"""One backend stream while this node runs it: restarted after errors, ended by a clean return, stopped on demand."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async

from .. import metrics
from ..exceptions import LeaseLost, LiveChannelsError
from ..leadership.lease import Lease
from .source import Stream, StreamSource, ThreadStream
from .status import State, StreamStatus

logger = logging.getLogger(__name__)

RESTARTS = metrics.counter(
    "livechannels_stream_restarts_total", "Restarts of backend streams after an error.", "channel"
)

GRACE = 0.25
OVERDUE = 5.0
ASK_CONFIGURATION = 10.0
RATE_WINDOW = 10.0
FIRST_PAUSE = 0.1
MOST_PAUSE = 5.0
HEALTHY = 1.0


class Backoff:
    """0.1 s, doubling to 5 s; back to 0.1 s after a life longer than a second and than the pause before it."""

    def __init__(self, first: float = FIRST_PAUSE, most: float = MOST_PAUSE, healthy: float = HEALTHY) -> None:
        self._first = first
        self._most = most
        self._healthy = healthy
        self._pause = 0.0

    def after(self, lived: float) -> float:
        """The pause, in seconds, after a life of `lived` seconds."""
        if lived > max(self._healthy, self._pause):
            self._pause = 0.0
        self._pause = min(self._pause * 2, self._most) if self._pause else self._first
        return self._pause


class Runner:
    """Runs a source from `start` to `stop`, under `lease` (None with scope="node"). Belongs to the node's loop.

    `make` gives a fresh source for every run; if it fails, that run has failed. `changed` is called when the status
    did, `lost` when a publication was refused. With `ended`, the stream had ended already: it waits for `again` or
    `restart`.
    """

    def __init__(
        self,
        source_class: type[StreamSource],
        channel: str,
        make: Callable[[], StreamSource],
        layer: Any,
        node: str,
        lease: Lease | None,
        *,
        changed: Callable[[], None],
        lost: Callable[[], None],
        ended: bool = False,
    ) -> None:
        self.channel = channel
        self.scope = source_class.scope
        self.state: State = "ended" if ended else "starting"
        self.since = lease.since if lease else time.time()
        self.restarts = 0
        self.last_error = ""
        self.last_error_at = 0.0
        self.publications = 0
        self._make = make
        self._layer = layer
        self._node = node
        self._lease = lease
        self._changed = changed
        self._lost = lost
        self._recent: deque[float] = deque(maxlen=10000)
        self._runs = 0
        self._started = time.monotonic()
        self._stream: Stream | None = None
        self._thread: ThreadStream | None = None
        self._run: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._restarting = False
        self._stopping = False
        self._task = _start(self._supervise(), f"supervisor of {self.channel}")

    @property
    def over(self) -> bool:
        """Whether the run has ended for good."""
        return self._task.done()

    def status(self) -> StreamStatus:
        now = time.monotonic()
        while self._recent and self._recent[0] < now - RATE_WINDOW:
            self._recent.popleft()
        return StreamStatus(
            channel=self.channel,
            node=self._node,
            scope=self.scope,
            state=self.state,
            token=self._lease.token if self._lease else None,
            since=self.since,
            restarts=self.restarts,
            last_error=self.last_error,
            last_error_at=self.last_error_at,
            rate=round(len(self._recent) / min(max(now - self._started, 1), RATE_WINDOW), 2),
            publications=self.publications,
        )

    def again(self) -> None:
        """There is a new reason to run: a stream that had ended starts over."""
        if self.state == "ended":
            self._again.set()

    def restart(self, why: str) -> None:
        """Run anew, with a fresh source: its configuration changed."""
        logger.info("%s restarts: %s", self.channel, why)
        self._restarting = True
        self._again.set()
        self._end_run()

    def blamed(self, error: str) -> None:
        """Note an error that did not end the run."""
        self.last_error, self.last_error_at = error, time.time()
        self._changed()

    async def stop(self) -> bool:
        """Ask the run to end, and give it a moment for last words; true iff it has ended. Nothing is sent after."""
        self._stopping = True
        self._set("stopping")
        if self._stream:
            self._stream.stopped = True
        self._end_run()
        if self._run is None:
            self._task.cancel()
        await asyncio.wait([self._task], timeout=GRACE)
        if self._stream:
            self._stream.closed = True
        return self._task.done()

    async def finished(self) -> None:
        """Until the run has really ended; a thread cannot be made to."""
        while not self._task.done():
            await asyncio.wait([self._task], timeout=OVERDUE)
            if not self._task.done():
                logger.error(
                    "%s: run() was told to stop and goes on; this node leads it no more until it ends", self.channel
                )

    # Running

    async def _supervise(self) -> None:
        backoff = Backoff()
        if self.state == "ended":
            await self._again.wait()
        while True:
            self._again.clear()
            self._restarting = False
            began = time.monotonic()
            error = await self._run_once()
            if self._stopping or (isinstance(error, LeaseLost) and not self._leads()):
                return
            if self._told_to_end():
                continue
            if error is None:
                await self._say_ended()
                await self._again.wait()
                continue
            pause = backoff.after(time.monotonic() - began)
            self._failed(error, pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._again.wait()

    async def _run_once(self) -> BaseException | None:
        """One life of `run`; returns what ended it, None for a clean return."""
        self._runs += 1
        try:
            source = self._make()
            self._set("running")
            configuration = await _ask_configuration(source)
            last = await self._last()
            if self._told_to_end():
                return None
            name = f"{self._lease.token if self._lease else self._node}.{self._runs}"
            self._stream = Stream(
                source, self._layer, self._lease, run=name, last=last, published=self._count, refused=self._lost
            )
            self._run = _start(self._run_source(source, self._stream), f"stream {self.channel}")
        except Exception as error:
            return error
        asking = _start(self._watch_configuration(source, configuration), f"configuration of {self.channel}")
        await asyncio.wait([self._run])
        asking.cancel()
        run, self._run, self._thread = self._run, None, None
        self._stream.stopped = True
        if run.cancelled():
            return None if self._told_to_end() else RuntimeError("run() cancelled itself")
        return run.exception()

    async def _run_source(self, source: StreamSource, stream: Stream) -> None:
        if iscoroutinefunction(source.run):
            await source.run(stream)
        else:
            self._thread = ThreadStream(stream)
            await _in_thread(source.run, self._thread, f"stream {self.channel}")

    def _told_to_end(self) -> bool:
        return self._stopping or self._restarting

    def _leads(self) -> bool:
        return self._lease is None or self._lease.trusted(time.monotonic())

    def _end_run(self) -> None:
        if self._thread:
            self._thread.stop()
        elif self._run:
            self._run.cancel()

    async def _last(self) -> Any:
        try:
            found = await self._layer.history(self.channel, limit=2, reverse=True)
        except LiveChannelsError:
            return None
        return next((item.data for item in found.publications if (item.tags or {}).get("stream") != "ended"), None)

    async def _watch_configuration(self, source: StreamSource, configured: Any) -> None:
        while type(source).configuration is not StreamSource.configuration:
            await asyncio.sleep(ASK_CONFIGURATION)
            try:
                if await _ask_configuration(source) != configured:
                    return self.restart("its configuration changed")
            except Exception as error:
                logger.warning("%s: configuration() failed: %r", self.channel, error)

    # Telling

    async def _say_ended(self) -> None:
        """Viewers learn it from a publication without rows, tagged stream=ended, in their history as well."""
        self._set("ended")
        logger.info("%s ended: run() returned", self.channel)
        if self._stream:
            self._stream.stopped = False
            last = self._stream.last
            try:
                await self._stream.publish(_without_rows(last), tags={"stream": "ended"})
                self._stream.last = last
            except LiveChannelsError as error:
                logger.warning("%s ended and its viewers could not be told: %s", self.channel, error)

    def _failed(self, error: BaseException, pause: float) -> None:
        self.restarts += 1
        RESTARTS.inc(channel=self.channel)
        self.last_error, self.last_error_at = f"{type(error).__name__}: {error}"[:500], time.time()
        trace = None if isinstance(error, LiveChannelsError) else error
        logger.warning("%s failed and restarts in %.1f s: %s", self.channel, pause, self.last_error, exc_info=trace)
        self._set("backoff")

    def _count(self) -> None:
        self.publications += 1
        self._recent.append(time.monotonic())

    def _set(self, state: State) -> None:
        self.state = state
        self._changed()


def _start(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A task that inherits nothing from whoever caused it: no viewer's request, user or database state."""
    return asyncio.get_running_loop().create_task(coroutine, name=name, context=Context())


async def _in_thread(run: Callable[[ThreadStream], Any], stream: ThreadStream, name: str) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def target() -> None:
        error: BaseException | None = None
        try:
            run(stream)
        except Exception as raised:
            error = raised
        finally:
            _close_connections()
            try:
                loop.call_soon_threadsafe(finish, error)
            except RuntimeError:
                logger.debug("%s ended after its loop was closed", name)

    threading.Thread(target=target, name=name, daemon=True).start()
    await done


def _close_connections() -> None:
    from django.db import connections

    connections.close_all()


async def _ask_configuration(source: StreamSource) -> Any:
    if type(source).configuration is StreamSource.configuration:
        return None
    if iscoroutinefunction(source.configuration):
        return await source.configuration()
    return await sync_to_async(source.configuration, thread_sensitive=True)()


def _without_rows(last: Any) -> Any:
    """A frame like the last one but empty, so that a panel that ignores tags draws nothing; None for other data."""
    if isinstance(last, dict) and isinstance(last.get("schema"), dict):
        fields = last["schema"].get("fields", [])
        return {"schema": last["schema"], "data": {"values": [[] for _ in fields]}}
    return None
