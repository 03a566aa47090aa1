"""A server process with `benchmarks.site`, and what it uses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import psutil

from tests.servers import Process, free_port, wait_until

from .samples import ROOT

COMMANDS = {
    # Deflate costs 35 KiB for each browser; without a proxy's word for it, uvicorn would offer it.
    "uvicorn": "uvicorn --port {port} --log-level error --ws-per-message-deflate false",
    "daphne": "daphne -b 127.0.0.1 -p {port} -v 0",
}


class Served:
    """`server` is uvicorn or daphne, `kind` one of `benchmarks.site`, `url` Redis."""

    def __init__(self, server: str, kind: str, url: str) -> None:
        self.port = free_port()
        self.env = {**os.environ, "BENCH": f"{kind} {url}"}
        command = [
            sys.executable,
            "-m",
            *COMMANDS[server].format(port=self.port).split(),
            "benchmarks.site:application",
        ]
        self.process = Process(command, ROOT, server, self.env)
        self.process.log = Path(tempfile.gettempdir()) / f"bench-{self.port}.log"

    def __enter__(self) -> Served:
        self.process.spawn()
        wait_until(self._listens, "the server")
        self.measured = psutil.Process(self.process.pid)
        return self

    def _listens(self) -> bool:
        assert self.process.alive, self.process.output()[-2000:]
        return any(one.laddr.port == self.port for one in psutil.Process(self.process.pid).net_connections())

    def __exit__(self, *_exc: object) -> None:
        self.process.kill()
        self.process.log.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def publisher(self, *words: object, stdin: int | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
        """`benchmarks.publisher` with these words, for this server."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.publisher", *map(str, words),
            env=self.env, cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def cpu(self) -> float:
        """Seconds used so far."""
        used = self.measured.cpu_times()
        return float(used.user + used.system)

    def rss(self) -> int:
        """Bytes."""
        return int(self.measured.memory_info().rss)

    def rss_collected(self) -> int:
        """Bytes, after the garbage collector's visit."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/collect", timeout=60) as answer:
            answer.read()
        return self.rss()

    def files(self) -> int:
        """How many it has open, sockets too."""
        return int(self.measured.num_fds())

    def errors(self) -> int:
        """Tracebacks in its log."""
        return self.process.output().count("Traceback (most recent call last)")
