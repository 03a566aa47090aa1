"""Backend streams as their authors see them: the StreamSource class and the stream it publishes to."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from ..channels import LiveChannel
from ..exceptions import EngineUnavailable, LeaseLost
from ..leadership.lease import Lease

if TYPE_CHECKING:
    from ..engines.base import Fence
    from ..messages.positions import Position

PUBLISH_TIMEOUT = 10.0


class StreamSource(LiveChannel):
    """A live channel filled by `run`, on one node of the cluster at a time while anyone is watching.

    `scope`: "cluster", or "node": every node runs its own, for its own viewers. `always`: run without viewers
    too; True for a pattern without parameters, else the list of channel names. `idle_timeout`: seconds from
    the last viewer's leaving to the stop. Runs under the application's identity, never a viewer's.
    """

    history_size = 300
    history_ttl = 300
    scope: ClassVar[Literal["cluster", "node"]] = "cluster"
    always: ClassVar[bool | Sequence[str]] = False
    idle_timeout: ClassVar[float] = 10

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if inspect.isasyncgenfunction(cls.run) or inspect.isgeneratorfunction(cls.run):
            raise TypeError(f"{cls.__qualname__}.run yields; call stream.publish(frame) instead of yielding the frame.")

    def run(self, stream: Any) -> Coroutine[Any, Any, None] | None:
        """Publish until cancelled. Override it with `async def`, or with plain `def` to get a thread of its own.

        Returning ends the stream until there is a new reason to run it; an exception restarts it after a pause.
        An async `run` is cancelled to stop it; one in a thread has to look at `stream.stopped` or publish.
        """
        raise NotImplementedError(f"{type(self).__qualname__} needs a run(self, stream) method.")

    def configuration(self) -> Any:
        """What `run` was configured with, as anything comparable; `run` is restarted when it changes.

        Asked every ten seconds while the stream runs here; sync or async. Default None: no configuration.
        """
        return None


class Publisher(Protocol):
    """What a stream needs of the layer."""

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        tags: Mapping[str, str] | None = None,
        fence: Fence | None = None,
        from_source: bool = False,
    ) -> Position | None: ...


class Stream:
    """What `run` gets: the way to publish to its channel. Belongs to the node's loop.

    `channel` and `kwargs` are the source's. `token` is the fencing token: it rises with every new leader;
    None with scope="node". `last` is the data published last, by this leader or the one before, else None.
    `stopped` is true once this run has to end.
    """

    def __init__(
        self,
        source: StreamSource,
        layer: Publisher,
        lease: Lease | None,
        *,
        run: str,
        last: Any = None,
        published: Callable[[], None] = lambda: None,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self.channel = source.channel
        self.kwargs = source.kwargs
        self.token = lease.token if lease else None
        self.last = last
        self.stopped = False
        self.closed = False
        self._layer = layer
        self._lease = lease
        self._tags = {"run": run}
        self._published = published
        self._refused = refused

    def __repr__(self) -> str:
        return f"<Stream {self.channel}{' stopped' if self.stopped else ''}>"

    async def publish(self, data: Any, *, tags: Mapping[str, str] | None = None) -> Position | None:
        """Publish a Frame or JSON-able data; returns its Position, None without history.

        The store accepts it only while this node leads: else LeaseLost, and nobody was given it.
        The tag "run" changes whenever the stream was started anew: before that publication data may be missing.
        Raises EngineUnavailable if the store cannot be reached.
        """
        if self.closed or (self._lease and not self._lease.trusted(time.monotonic())):
            raise LeaseLost(f"{self.channel}: this run is over; the publication was not sent.")
        fence = self._lease.fence if self._lease else None
        try:
            position = await self._layer.publish(
                self.channel, data, tags={**self._tags, **(tags or {})}, fence=fence, from_source=True
            )
        except LeaseLost:
            self._refused()
            raise
        self.last = data.to_dict() if hasattr(data, "to_dict") else data
        self._published()
        return position


class ThreadStream:
    """The same for a `run` without async, in its thread: `publish` returns when the publication is stored.

    Once stopped, `publish` raises LeaseLost; let it pass, it ends the run.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self.channel = stream.channel
        self.kwargs = stream.kwargs
        self.token = stream.token

    @property
    def last(self) -> Any:
        return self._stream.last

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set() or self._loop.is_closed()

    def wait(self, seconds: float) -> bool:
        """Sleep, but not past the stop; true iff stopped."""
        return self._stopped.wait(seconds) or self.stopped

    def stop(self) -> None:
        """Called by the runner."""
        self._stopped.set()

    def publish(self, data: Any, *, tags: Mapping[str, str] | None = None) -> Position | None:
        """As Stream.publish. Raises LeaseLost once stopped."""
        if self.stopped:
            raise LeaseLost(f"{self.channel}: this run was stopped; the publication was not sent.")
        sending = self._stream.publish(data, tags=tags)
        try:
            future = asyncio.run_coroutine_threadsafe(sending, self._loop)
        except RuntimeError:
            sending.close()
            raise LeaseLost(f"{self.channel}: the server has shut down.") from None
        try:
            return future.result(PUBLISH_TIMEOUT)
        except TimeoutError:
            future.cancel()
            raise EngineUnavailable(f"{self.channel}: the event loop did not publish in time.") from None
