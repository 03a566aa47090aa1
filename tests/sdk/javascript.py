"""The test's end of client.mjs: centrifuge-js in a node process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.servers import _die_with_parent

TIMEOUT = 20.0
SCRIPT = Path(__file__).with_name("client.mjs")
Event = dict[str, Any]


class Refused(Exception):
    """A call of the SDK was rejected; `code` is the protocol's."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']} {error['message']}")
        self.code = error["code"]


class JavaScript:
    """One node process, any number of clients."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.events: list[Event] = []
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> JavaScript:
        self.process = await asyncio.create_subprocess_exec(
            self.node, "--no-warnings", "--experimental-websocket", str(SCRIPT),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, preexec_fn=_die_with_parent, limit=2**24,
        )  # fmt: skip
        self._ready = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read())
        await asyncio.wait_for(self._ready, TIMEOUT)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), TIMEOUT)
        await self._reader

    async def _read(self) -> None:
        assert self.process.stdout
        while line := await self.process.stdout.readline():
            message = json.loads(line)
            if "ready" in message:
                self._ready.set_result(None)
            elif "answer" in message:
                future = self._answers.pop(message["answer"])
                if "error" in message:
                    future.set_exception(Refused(message["error"]))
                else:
                    future.set_result(message["result"])
            else:
                async with self._changed:
                    self.events.append(message)
                    self._changed.notify_all()

    async def do(self, operation: str, **command: Any) -> Any:
        assert self.process.stdin
        self._number += 1
        future = self._answers[self._number] = asyncio.get_running_loop().create_future()
        line = {"op": operation, "number": self._number, **command}
        self.process.stdin.write(json.dumps(line).encode() + b"\n")
        return await asyncio.wait_for(future, TIMEOUT)

    async def event(self, test: Callable[[Event], bool], what: str) -> Event:
        """The first event that passes, which is then forgotten together with all before it."""
        try:
            async with asyncio.timeout(TIMEOUT), self._changed:
                while True:
                    for index, event in enumerate(self.events):
                        if test(event):
                            del self.events[index]
                            return event
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"no {what}; there were {self.events}") from None

    async def client(self, name: str, url: str, **options: Any) -> Client:
        await self.do("open", client=name, url=url, **options)
        return Client(self, name)


class Client:
    """One Centrifuge client."""

    def __init__(self, javascript: JavaScript, name: str) -> None:
        self.javascript = javascript
        self.name = name

    async def connect(self) -> Event:
        await self.start()
        return await self.event("connected")

    async def start(self) -> None:
        await self.javascript.do("connect", client=self.name)

    async def disconnect(self) -> None:
        await self.javascript.do("disconnect", client=self.name)

    async def cut(self) -> None:
        await self.javascript.do("cut", client=self.name)

    async def subscribe(self, channel: str, **options: Any) -> Event:
        await self.begin(channel, **options)
        return await self.event("subscribed", channel)

    async def begin(self, channel: str, **options: Any) -> None:
        await self.javascript.do("subscribe", client=self.name, channel=channel, options=options)

    async def unsubscribe(self, channel: str) -> None:
        await self.javascript.do("unsubscribe", client=self.name, channel=channel)

    async def call(self, method: str, *args: Any, channel: str | None = None) -> Any:
        return await self.javascript.do("call", client=self.name, channel=channel, method=method, args=args)

    async def event(self, name: str, channel: str | None = None) -> Any:
        """The context of the next event of this name; of a subscription if a channel is given."""
        found = await self.javascript.event(
            lambda event: (event["client"], event["event"], event.get("channel")) == (self.name, name, channel),
            f"{name} of {self.name} on {channel}",
        )
        return found["context"]

    def seen(self, name: str, channel: str | None = None) -> list[Any]:
        """Contexts of the events of this name that nobody has taken yet."""
        return [
            event["context"]
            for event in self.javascript.events
            if (event["client"], event["event"], event.get("channel")) == (self.name, name, channel)
        ]
