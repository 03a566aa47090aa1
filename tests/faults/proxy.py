"""A TCP proxy that misbehaves on demand: stalls, delays, resets, leads elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from typing import Any, Literal

Direction = Literal["up", "down"]
BOTH: tuple[Direction, Direction] = ("up", "down")
RESET = struct.pack("ii", 1, 0)


class FaultProxy:
    """Forwards 127.0.0.1:`port` to a target port, from its own thread, so that a blocked test loop cannot stall it.

    "up" is towards the server. Bytes stalled in a direction are not lost: like a network that heals, `heal`
    delivers them late, and while stalled the proxy stops reading, so back-pressure reaches the sender.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay_seconds = 0.0
        self.accepted = 0
        self.detour: int | None = None
        self._open: dict[Direction, asyncio.Event] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._listening = threading.Event()
        self.port = 0

    def start(self) -> FaultProxy:
        self._thread.start()
        assert self._listening.wait(5)
        return self

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    # Faults

    def blackhole(self) -> None:
        """Nothing passes either way, connecting still seems to work."""
        self.stall(*BOTH)

    def stall(self, *directions: Direction) -> None:
        self._do(lambda: [self._open[direction].clear() for direction in directions])

    def heal(self) -> None:
        """Let everything pass again, first what was held."""
        self._do(lambda: [gate.set() for gate in self._open.values()])

    def reset(self) -> int:
        """Cut every connection with a RST, at both ends; returns how many there were."""
        return int(self._do(self._reset))

    def delay(self, seconds: float) -> None:
        """Hold each piece that long, in order."""
        self.delay_seconds = seconds

    def lead_to(self, target: int, *, cut: bool = True) -> None:
        """Forward new connections to another port; `cut` resets the present ones."""
        self.target = target
        if cut:
            self.reset()

    def detach_every_second(self, target: int | None) -> None:
        """Lead every second new connection to `target` (None ends it): one half of a pair talks to the wrong server."""
        self.detour = target
        self.reset()

    @property
    def connections(self) -> int:
        return len(self._writers) // 2

    # The loop

    def _do(self, action: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with contextlib.suppress(RuntimeError):
            self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        for direction in BOTH:
            self._open[direction] = asyncio.Event()
            self._open[direction].set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()
        self._reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # for the transports to close their sockets

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        target = self.detour if self.detour and self.accepted % 2 == 0 else None
        self._spawn(self._connect(reader, writer, target))

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int | None) -> None:
        await self._open["up"].wait()
        try:
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", target or self.target)
        except OSError:
            self._abort([writer])
            return
        self._writers.add(onward_writer)
        self._spawn(self._pump(reader, onward_writer, "up"))
        self._spawn(self._pump(onward_reader, writer, "down"))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                await self._open[direction].wait()
                writer.write(data)
                await writer.drain()
        await self._open[direction].wait()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        self._writers.discard(writer)

    def _reset(self) -> int:
        count = self.connections
        self._abort(list(self._writers))
        return count

    def _abort(self, writers: Iterable[asyncio.StreamWriter]) -> None:
        for writer in writers:
            connection = writer.get_extra_info("socket")
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
            self._writers.discard(writer)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._do(self._stop.set)
            self._thread.join(5)

    def __enter__(self) -> FaultProxy:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()
