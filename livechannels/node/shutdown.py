"""Graceful stop: what has to be done when the process is asked to end, before the server closes its sockets.

Servers differ: uvicorn takes a signal and closes sockets before lifespan shutdown; daphne runs Twisted's reactor and
knows no lifespan; a plain script just dies. So a duty is done at whichever comes first: the signal, Twisted's "before
shutdown" event, or the interpreter's exit.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
PATIENCE = 2.5

Leave = Callable[[], Coroutine[Any, Any, None]]


class Duty:
    """Something to do once before the end: `leave` on its loop, or `leave_late` when no loop runs any more."""

    def __init__(self, leave: Leave, leave_late: Callable[[], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.done = threading.Event()
        self._leave = leave
        self._leave_late = leave_late
        self._task: asyncio.Task[None] | None = None
        self._left = False
        self._pid = os.getpid()

    def begin(self) -> asyncio.Task[None]:
        """Start leaving, at most once. On the duty's loop only."""
        if self._task is None:
            self._task = self.loop.create_task(self._run(), name="livechannels-leave")
        return self._task

    def begin_soon(self) -> None:
        """The same from anywhere, signal handlers included."""
        try:
            self.loop.call_soon_threadsafe(self.begin)
        except RuntimeError:
            self.done.set()

    async def _run(self) -> None:
        try:
            await self._leave()
            self._left = True
        except Exception:
            logger.exception("Leaving the cluster failed; the leases of this node expire")
        finally:
            self.done.set()

    def late(self) -> None:
        """At the interpreter's exit: what `begin` did not get done."""
        if self._pid == os.getpid() and not self._left:
            self._leave_late()


_duties: list[Duty] = []
_previous: dict[int, Any] = {}


def before_exit(leave: Leave, leave_late: Callable[[], None]) -> Callable[[], None]:
    """Have `leave()` awaited on the running loop before this process ends; else `leave_late()` at its exit.

    Returns a function that calls it off. Signals are handled only for loops in the main thread.
    """
    duty = Duty(leave, leave_late)
    if not _duties:
        atexit.register(_at_exit)
    _duties.append(duty)
    _watch_signals()
    _watch_twisted(duty)
    return lambda: _duties.remove(duty) if duty in _duties else None


def _watch_signals() -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        handler = signal.getsignal(number)
        if handler is not _on_signal and handler is not signal.SIG_IGN and handler is not None:
            _previous[number] = handler
            signal.signal(number, _on_signal)


def _on_signal(number: int, frame: FrameType | None) -> None:
    duties = list(_duties)
    for duty in duties:
        duty.begin_soon()
    previous = _previous.get(number, signal.SIG_DFL)
    signal.signal(number, previous)
    if callable(previous):
        previous(number, frame)
    else:
        threading.Thread(target=_end, args=(number, duties), name="livechannels end", daemon=True).start()


def _end(number: int, duties: list[Duty]) -> None:
    """The signal's default is death: let the duties be done first."""
    for duty in duties:
        duty.done.wait(PATIENCE)
    os.kill(os.getpid(), number)


def _watch_twisted(duty: Duty) -> None:
    reactor = sys.modules.get("twisted.internet.reactor")
    if reactor is None or not getattr(reactor, "running", False):
        return
    if getattr(reactor, "_asyncioEventloop", None) is not duty.loop:
        return
    from twisted.internet.defer import Deferred

    def leave() -> Deferred[None]:
        return Deferred.fromFuture(duty.begin())

    reactor.addSystemEventTrigger("before", "shutdown", leave)


def _at_exit() -> None:
    for duty in list(_duties):
        try:
            duty.late()
        except Exception:
            logger.debug("A lease could not be released at exit; it expires", exc_info=True)
