"""Redis for callers without a loop of ours: plain sync clients, and one thread that serves passing event loops.

Both belong to the process that made them; after a fork the engine makes new ones and touches nothing old.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from redis.exceptions import NoScriptError, RedisError, ResponseError

from ...exceptions import EngineUnavailable
from ..base import Command, Flush, Publish
from ..endpoints import Endpoint
from .connect import remedy
from .operations import Operations, unavailable
from .replies import Lost, ReplyError, from_redis_py, redirected_to
from .requests import Request
from .sync_connect import Client, Servers, deadline, time_left

logger = logging.getLogger(__name__)

T = TypeVar("T")

CALL_WITHIN = 2.0
START_WITHIN = 1.0
BUSY_PAUSE = 0.05


class BlockingShard:
    """One Redis for the calling thread, however many servers it is made of; `only` narrows it to one of them."""

    def __init__(self, endpoint: Endpoint, operations: Operations, only: Client | None = None) -> None:
        self.operations = operations
        self._endpoint = endpoint
        self._servers = Servers(endpoint)
        self._only = only
        self._complained = ""

    def parts(self) -> list[BlockingShard]:
        """One shard for each master."""
        with self._finding():
            return [BlockingShard(self._endpoint, self.operations, master) for master in self._servers.masters()]

    def examine(self) -> None:
        """Learn what this Redis allows, before requests are made for it. Raises EngineUnavailable."""
        if not self.operations.examined:
            with self._finding():
                self._examine(self._client(""))
            self.operations.examined = True
            self._complained = ""

    @contextmanager
    def _finding(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError, EngineUnavailable) as error:
            self._servers.forget()
            text = f"{self._endpoint} cannot be reached: {remedy(str(error))}"
            if text != self._complained:
                self._complained = text
                logger.warning("%s", text)
            raise EngineUnavailable(text) from None

    def _examine(self, client: Client) -> None:
        asked = time.monotonic()
        seconds, micros = client.execute_command("TIME")
        self.operations.measure(seconds, micros, asked)
        try:
            info = client.execute_command("INFO", "replication")
        except ResponseError as error:
            if not from_redis_py(error).not_allowed:
                raise
            self.operations.compare_replids = False
        else:
            self.operations.compare_replids = "master_replid" in info

    def _client(self, key: str) -> Client:
        return self._only or self._servers.of(key)

    def exchange(self, batch: list[Request]) -> list[Any]:
        """Send requests and return their replies. Raises Lost, ReplyError or EngineUnavailable."""
        try:
            clients = [self._client(request.key) for request in batch]
            if len(batch) > 1 and all(client is clients[0] for client in clients):
                return self._together(clients[0], batch)
            return [self._one(*pair) for pair in zip(clients, batch, strict=True)]
        except (RedisError, OSError) as error:
            self._servers.forget()
            raise Lost(str(error), sent=False) from None

    def _together(self, client: Client, batch: list[Request]) -> list[Any]:
        """All on one connection, as WAIT needs it."""
        replies: list[Any] = []
        try:
            for words in (Request.by_hash, Request.in_full):
                with client.pipeline(transaction=False) as pipe:
                    for request in batch:
                        pipe.execute_command(*words(request))
                    replies = pipe.execute(raise_on_error=False)
                if not any(isinstance(reply, NoScriptError) for reply in replies):
                    break
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        except (RedisError, OSError) as error:
            raise self._told(error) from None
        return replies

    def _one(self, client: Client, request: Request) -> Any:
        while True:
            try:
                try:
                    return client.execute_command(*request.by_hash())
                except NoScriptError:
                    return client.execute_command(*request.in_full())
            except (RedisError, OSError) as error:
                told = self._told(error)
                if isinstance(told, ReplyError) and told.code == "ASK":
                    there = self._servers.at(redirected_to(told))
                    return self._together(there, [Request(request.key, ("ASKING",)), _whole(request)])[1]
                if not (isinstance(told, ReplyError) and told.busy):
                    raise told from None
                time.sleep(min(BUSY_PAUSE, time_left()))

    def _told(self, error: RedisError | OSError) -> Lost | ReplyError:
        """An error of redis-py as ours; after one that says so, or none that says why, the masters are found anew."""
        if isinstance(error, ResponseError):
            told = from_redis_py(error)
            if told.path_is_wrong:
                self._servers.reconnect()
            elif told.code == "MOVED":
                self._servers.forget()
            else:
                return told
            return Lost(str(told), sent=False)
        self._servers.forget()
        return Lost(str(error), sent=_was_sent(error))

    def close(self) -> None:
        self._servers.close()


def _whole(request: Request) -> Request:
    return Request(request.key, request.in_full())


def _was_sent(error: Exception) -> bool:
    text = str(error).lower()
    return not any(word in text for word in ("connecting", "refused", "no such file", "not known", "no master"))


def drive(shard: BlockingShard, command: Command[T], until: float | None = None) -> T:
    """Run a command to its result on the calling thread.

    Raises EngineUnavailable by `until` on `time.monotonic`, or within two seconds; a Flush has them for each step.
    """
    until = until or time.monotonic() + CALL_WITHIN
    if not shard.operations.examined:
        with deadline(until):
            shard.examine()
    operation = shard.operations.make(command)
    batch = next(operation)
    repeated = False
    while True:
        try:
            try:
                with deadline(time.monotonic() + CALL_WITHIN if isinstance(command, Flush) else until):
                    replies = shard.exchange(batch)
            except Lost as error:
                if repeated:
                    raise
                repeated = True
                if error.sent and isinstance(command, Publish):
                    batch = operation.throw(error)
                continue
            batch = operation.send(replies)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except (Lost, ReplyError) as error:
            raise unavailable(error, "Redis") from error


class _Job(NamedTuple):
    asked: float
    work: Callable[[float], Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


class Outlet:
    """One thread that runs blocking work, in order, for event loops that have no connection of their own."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    async def run(self, work: Callable[[float], T]) -> T:
        """Run `work` on the thread and tell it when to have ended; the calling loop goes on meanwhile.

        Raises EngineUnavailable if it cannot start soon.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._jobs.put(_Job(time.monotonic(), work, loop, answer))
        if self._thread is None:
            self._start()
        return await answer  # type: ignore[no-any-return]

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="livechannels-outlet", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                if time.monotonic() > job.asked + START_WITHIN:
                    raise EngineUnavailable("Redis is too slow or away: the request was not sent in time")
                outcome, error = job.work(job.asked + CALL_WITHIN), None
            except BaseException as caught:
                outcome, error = None, caught
            try:
                job.loop.call_soon_threadsafe(_settle, job.answer, outcome, error)
            except RuntimeError:
                logger.debug("A loop was closed before its answer came")


def _settle(answer: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(outcome)
