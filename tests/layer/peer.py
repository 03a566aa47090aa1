"""Another process with the same layer, driven by JSON lines: `python -m tests.layer.peer '{"hosts": [...]}'`.

Each line on stdin is {"call": method, "args": [...]} and is answered by {"result": ...} or {"error": ...}.
The call "listen" starts a reader of a channel; what it reads comes as {"heard": channel, "message": ...}.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else repr(value)


class Peer:
    """The test's end of it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Peer:
        from tests.servers import _die_with_parent

        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.layer.peer", json.dumps(self.config), cwd=ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, preexec_fn=_die_with_parent, limit=2**24,
        )  # fmt: skip
        self._reader = asyncio.ensure_future(self._read())
        assert await self._answer() == "ready"
        return self

    async def _read(self) -> None:
        async for line in self._process.stdout:
            said = json.loads(line)
            if "heard" in said:
                self.heard.append((said["heard"], said["message"]))
                self._changed.set()
            else:
                self._answers.put_nowait(said)

    async def _answer(self) -> Any:
        said = await asyncio.wait_for(self._answers.get(), 20)
        if "error" in said:
            raise RuntimeError(said["error"])
        return said["result"]

    async def call(self, method: str, *args: Any) -> Any:
        self._process.stdin.write(json.dumps({"call": method, "args": args}).encode() + b"\n")
        return await self._answer()

    async def hears(self, count: int, timeout: float = 10) -> list[dict[str, Any]]:
        async def enough() -> None:
            while len(self.heard) < count:
                self._changed.clear()
                await self._changed.wait()

        try:
            await asyncio.wait_for(enough(), timeout)
        except TimeoutError:
            raise AssertionError(f"the other process heard {len(self.heard)} of {count}") from None
        return [message for _, message in self.heard]

    @property
    def pid(self) -> int:
        return self._process.pid

    async def __aexit__(self, *_exc: object) -> None:
        if self._process.returncode is None:
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), 5)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await self._reader
        self._process._transport.close()


async def serve(config: dict[str, Any]) -> None:
    from livechannels.layer import LiveChannelLayer

    layer = LiveChannelLayer(**config)
    lines = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    readers = set()

    def say(**words: Any) -> None:
        sys.stdout.write(json.dumps(words, default=_plain) + "\n")
        sys.stdout.flush()

    async def listen(channel: str) -> None:
        while True:
            say(heard=channel, message=await layer.receive(channel))

    say(result="ready")
    async for line in lines:
        order = json.loads(line)
        try:
            if order["call"] == "listen":
                readers.add(asyncio.ensure_future(listen(*order["args"])))
                await asyncio.sleep(0)
                say(result=None)
            elif order["call"] == "client_prefix":
                say(result=layer.client_prefix)
            else:
                say(result=await getattr(layer, order["call"])(*order["args"]))
        except Exception as error:
            say(error=f"{type(error).__name__}: {error}")
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await layer.close()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
