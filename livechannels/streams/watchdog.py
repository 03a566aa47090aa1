"""Finds what blocks an event loop, while it blocks it: a thread that looks whether the loop still turns."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

from .. import metrics

logger = logging.getLogger(__name__)

BLOCKED = metrics.counter("livechannels_loop_blocked_total", "Times something blocked an event loop.")

LOOKS = 0.25
PATIENCE = 0.75


class Blocked(NamedTuple):
    """What was running when the loop had not turned for a while: the task's name, the place, and for how long."""

    task: str
    place: str
    seconds: float


class Watchdog:
    """Watches the running loop from `start` to `stop`; `blocked` is called on the loop once it turns again.

    A loop counts as blocked after `patience` seconds without a turn, seen by two looks of this thread in a row:
    a process that was paused as a whole is not blocked. The log record comes while it still is, and names the task.
    """

    def __init__(self, blocked: Callable[[Blocked], None], *, patience: float = PATIENCE) -> None:
        self._blocked = blocked
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._turned = time.monotonic()
        self._found: Blocked | None = None
        self._stop = threading.Event()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin. The thread is a daemon and ends by itself when the loop is closed."""
        self._turn()
        threading.Thread(target=self._look, name="livechannels watchdog", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()
        if self._timer:
            self._timer.cancel()

    def _turn(self) -> None:
        now = time.monotonic()
        if self._found:
            found, self._found = self._found._replace(seconds=now - self._turned), None
            logger.warning("%s had blocked the event loop for %.1f s at %s", found.task, found.seconds, found.place)
            self._blocked(found)
        self._turned = now
        self._timer = self._loop.call_later(LOOKS, self._turn)

    def _look(self) -> None:
        late = 0
        while not self._stop.wait(LOOKS) and not self._loop.is_closed():
            silent = time.monotonic() - self._turned
            late = late + 1 if silent > self._patience else 0
            if late == 2 and self._found is None:
                self._report(silent)

    def _report(self, silent: float) -> None:
        frame = sys._current_frames().get(self._thread_id)
        task = asyncio.current_task(self._loop)
        found = Blocked(task.get_name() if task else "a callback", _place(frame), silent)
        self._found = found
        BLOCKED.inc()
        logger.warning(
            "%s blocks the event loop: no turn for %.1f s, now at %s. Call it with asyncio.to_thread(), "
            "or write run() without async so that it gets a thread.\n%s",
            found.task,
            silent,
            found.place,
            "".join(traceback.format_stack(frame)) if frame else "",
        )


def _place(frame: FrameType | None) -> str:
    if frame is None:
        return "an unknown place"
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
