"""When sessions end, asked for many at once: a thousand browsers that come back cost a few queries, not a thousand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from weakref import WeakKeyDictionary

AT_ONCE = 500

Ask = Callable[[list[str]], Awaitable[dict[str, float]]]
"""Session keys to seconds since the Unix epoch; a key without an answer is left out."""

_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Expiries] = WeakKeyDictionary()


class Expiries:
    """Asks one question at a time; who comes while it is under way stands in the next. For one event loop."""

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Future[float | None]] = {}
        self._answering: asyncio.Task[None] | None = None

    @classmethod
    def here(cls) -> Expiries:
        """Those of the running loop."""
        return _by_loop.setdefault(asyncio.get_running_loop(), cls())

    async def expiry(self, session_key: str, ask: Ask) -> float | None:
        """When this session ends, None if there is no such session. Raises what `ask` raises."""
        loop = asyncio.get_running_loop()
        answer = self._asked.get(session_key)
        if answer is None:
            answer = self._asked[session_key] = loop.create_future()
        if self._answering is None:
            self._answering = loop.create_task(self._answer(ask), name="livechannels-expiries")
        return await asyncio.shield(answer)

    async def _answer(self, ask: Ask) -> None:
        try:
            while self._asked:
                some = list(self._asked)[:AT_ONCE]
                asked = {key: self._asked.pop(key) for key in some}
                try:
                    found = await ask(some)
                except Exception as error:
                    for answer in asked.values():
                        answer.set_exception(error)
                        answer.exception()  # whoever asked may be gone
                else:
                    for key, answer in asked.items():
                        answer.set_result(found.get(key))
        finally:
            self._answering = None
