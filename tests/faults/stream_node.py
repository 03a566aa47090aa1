"""A node under test: `python -m tests.faults.stream_node '{"url": ..., ...}'`. Runs recorded streams and watches all.

Writes JSON lines to `log`: what its sources did (open, published, refused, close) and what its viewers saw, each with
time.monotonic(), which is one clock for all processes of a machine. SIGUSR1 blocks its event loop inside a source;
SIGUSR2 makes its wall clock jump.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from typing import Any

CONFIG: dict[str, Any] = {}


class Log:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, event: str, **words: Any) -> None:
        line = {"t": time.monotonic(), "node": CONFIG["name"], "event": event, **words}
        os.write(self._file, json.dumps(line).encode() + b"\n")


def configure() -> None:
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="x",
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "livechannels"],
        DATABASES={},
        USE_TZ=True,
        CHANNEL_LAYERS={
            "default": {
                "BACKEND": "livechannels.layer.LiveChannelLayer",
                "CONFIG": {"hosts": [CONFIG["url"]], "prefix": CONFIG["prefix"]},
            }
        },
        LIVECHANNELS={"CHANNELS": "tests.faults.recorded.live_channels", "LEASE_TTL": CONFIG["ttl"]},
    )
    django.setup()


def take_the_fence_away() -> None:
    """The deliberately broken build: nothing is checked, neither by the store nor by the leader itself."""
    from livechannels.leadership.lease import Lease

    Lease.fence = None  # type: ignore[assignment,misc]
    Lease.trusted = lambda self, now: True  # type: ignore[method-assign]


class Clock:
    """The wall clock of this process, off by an offset that jumps."""

    def __init__(self, offset: float) -> None:
        self.offset = offset
        self._real = time.time
        time.time = self.now

    def now(self) -> float:
        return self._real() + self.offset

    def jump(self) -> None:
        self.offset = -self.offset


class Watcher:
    """A viewer of one channel that logs what is wrong with what it is given, and with `record` everything."""

    def __init__(self, channel: str, log: Log, number: int = 0) -> None:
        self.channel = channel
        self._number = number
        self._log = log
        self._epoch = ""
        self._offset = 0

    def on_publication(self, publication: Any) -> None:
        epoch, offset = publication.epoch, publication.offset
        if epoch == self._epoch and offset != self._offset + 1:
            kind = "skip" if offset > self._offset else "repeat"
            self._log.write(kind, channel=self.channel, epoch=epoch, offset=offset, after=self._offset)
        self._epoch, self._offset = epoch, offset
        if CONFIG["record"]:
            where = {"channel": self.channel, "viewer": self._number, "epoch": epoch, "offset": offset}
            self._log.write("seen", **where, said=publication.data)

    def on_join(self, channel: str, info: bytes) -> None: ...

    def on_leave(self, channel: str, info: bytes) -> None: ...

    def on_insufficient(self, channel: str, reason: str) -> None:
        self._log.write("insufficient", channel=channel, reason=reason)
        self._epoch = ""
        asyncio.get_running_loop().create_task(self.watch())

    async def watch(self) -> None:
        from livechannels.exceptions import EngineUnavailable
        from livechannels.layer import live_layer

        hub = live_layer().node().hub
        while True:
            try:
                await hub.subscribe(self.channel, self)
            except EngineUnavailable:
                await asyncio.sleep(0.1)
            else:
                break
        hub.activate(self.channel, self)


async def serve(log: Log) -> None:
    from livechannels.layer import live_layer
    from livechannels.streams import supervisor as streams
    from tests.faults import recorded

    recorded.log = log
    loop = asyncio.get_running_loop()
    if CONFIG["clock"]:
        loop.add_signal_handler(signal.SIGUSR2, Clock(CONFIG["clock"]).jump)
    loop.add_signal_handler(signal.SIGUSR1, recorded.block)
    node = live_layer().node()
    log.write("up", id=node.id, pid=os.getpid())
    viewers = range(CONFIG.get("viewers", 1))
    watchers = [Watcher(f"source/{number}", log, viewer) for number in range(CONFIG["watch"]) for viewer in viewers]
    running = asyncio.ensure_future(streams.run_forever())
    await asyncio.gather(*(watcher.watch() for watcher in watchers))
    log.write("watching")
    await running
    log.write("down")


def main() -> None:
    CONFIG.update(json.loads(sys.argv[1]))
    logging.basicConfig(level=logging.INFO, format="%(created).3f %(levelname)s %(name)s %(message)s")
    configure()
    if not CONFIG["fenced"]:
        take_the_fence_away()
    asyncio.run(serve(Log(CONFIG["log"])))


if __name__ == "__main__":
    sys.modules["tests.faults.stream_node"] = sys.modules["__main__"]
    main()
