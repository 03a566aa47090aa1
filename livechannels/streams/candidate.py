"""One backend stream as one node sees it: stand for it while it is wanted, run it while leading, let go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol

from ..leadership.election import Leadership
from ..leadership.lease import Lease
from ..messages.topics import live
from .runner import Runner
from .source import StreamSource

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """The node's streams, as one of them sees them."""

    leadership: Leadership
    layer: Any

    @property
    def id(self) -> str: ...

    def make(self, channel: str) -> StreamSource: ...

    def wanted(self, channel: str, source_class: type[StreamSource]) -> bool: ...

    def touched(self, stream: BackendStream) -> None: ...

    def forget(self, stream: BackendStream) -> None: ...


class BackendStream:
    """Lives from the first reason to run a stream until there is none left and its run has ended.

    `ended`: its source returned and there was no new reason since; whoever leads then waits for one.
    """

    def __init__(self, owner: Owner, channel: str, source_class: type[StreamSource], *, ended: bool) -> None:
        self.channel = channel
        self.ended = ended
        self.runner: Runner | None = None
        self._owner = owner
        self._class = source_class
        self._interrupted = asyncio.Event()
        self._idle: asyncio.TimerHandle | None = None
        self._task = asyncio.get_running_loop().create_task(
            self._live(), name=f"candidacy for {self.channel}", context=Context()
        )

    def reconsider(self, news: bool) -> None:
        """Viewers came or went; `news`: where there were none before."""
        if news:
            self.ended = False
            if self.runner:
                self.runner.again()
        if self._owner.wanted(self.channel, self._class):
            if self._idle:
                self._idle.cancel()
                self._idle = None
        elif not self.runner:
            self._owner.leadership.withdraw(self.channel)
        elif not self._idle:
            self._idle = asyncio.get_running_loop().call_later(self._class.idle_timeout, self._interrupt_idle)

    def _interrupt_idle(self) -> None:
        self._idle = None
        if not self._owner.wanted(self.channel, self._class):
            self._interrupted.set()

    async def stop(self) -> bool:
        """The node is stopping: end the run, leave the lease to the caller; true iff the run has ended."""
        self._task.cancel()
        return await self.runner.stop() if self.runner else True

    async def _live(self) -> None:
        while self._owner.wanted(self.channel, self._class):
            self._interrupted.clear()
            lease = None
            if self._class.scope == "cluster":
                lease = await self._owner.leadership.stand(self.channel, live(self.channel), self._on_end)
                if lease is None:
                    continue
            await self._run(lease)
        self._owner.forget(self)

    def _on_end(self, lease: Lease) -> None:
        self._interrupted.set()

    async def _run(self, lease: Lease | None) -> None:
        runner = self.runner = Runner(
            self._class, self.channel, self._make, self._owner.layer, self._owner.id, lease,
            changed=lambda: self._owner.touched(self), lost=self._loser(lease), ended=self.ended,
        )  # fmt: skip
        self.reconsider(False)
        await self._interrupted.wait()
        await runner.stop()
        if lease:
            await self._owner.leadership.release([lease])
        await runner.finished()
        self.runner = None
        self._owner.touched(self)

    def _loser(self, lease: Lease | None) -> Callable[[], None]:
        return lambda: self._owner.leadership.lose(lease, "a publication was refused") if lease else None

    def _make(self) -> StreamSource:
        return self._owner.make(self.channel)
