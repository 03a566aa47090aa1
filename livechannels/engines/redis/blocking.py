"""Redis for callers without a loop of ours: a plain sync client, and one thread that serves passing event loops.

Both belong to the process that made them; after a fork the engine makes new ones and touches nothing old.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisClusterException, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ...exceptions import EngineUnavailable
from ...hosts import Endpoint
from ..base import Command, Publish
from .connect import remedy, sync_client
from .operations import Operations, Request, unavailable
from .replies import Lost, ReplyError, from_redis_py

logger = logging.getLogger(__name__)

T = TypeVar("T")

ANSWER_WITHIN = 1.0
START_WITHIN = 1.0


class BlockingShard:
    """One Redis through redis-py's sync client. Thread-safe, as the client is."""

    def __init__(self, endpoint: Endpoint, operations: Operations) -> None:
        self.operations = operations
        self._endpoint = endpoint
        self._client: Any = None
        self._lock = threading.Lock()
        self._complained = ""

    @property
    def client(self) -> Any:
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._connect()
        return self._client

    def examine(self) -> None:
        """Learn what this Redis allows, before requests are made for it. Raises EngineUnavailable."""
        if not self.operations.examined:
            self.operations.examined = self.client is not None

    def _connect(self) -> Any:
        try:
            client = sync_client(self._endpoint, ANSWER_WITHIN)
            self._examine(client)
        except (RedisError, RedisClusterException, OSError) as error:
            text = f"{self._endpoint} cannot be reached: {remedy(str(error))}"
            if text != self._complained:
                self._complained = text
                logger.warning("%s", text)
            raise EngineUnavailable(text) from None
        self._complained = ""
        return client

    def _examine(self, client: Any) -> None:
        asked = time.monotonic()
        told = client.execute_command("TIME")
        seconds, micros = next(iter(told.values())) if isinstance(told, dict) else told  # a cluster's nodes all answer
        self.operations.measure(seconds, micros, asked)
        try:
            info = client.execute_command("INFO", "replication")
        except ResponseError as error:
            if "NOPERM" not in str(error) and type(error).__name__ != "NoPermissionError":
                raise
            self.operations.compare_replids = False
        else:
            if isinstance(info, dict) and self._endpoint.kind != "cluster":
                self.operations.compare_replids = "master_replid" in info

    def exchange(self, batch: list[Request]) -> list[Any]:
        """Send requests and return their replies. Raises Lost or ReplyError."""
        if len(batch) > 1 and not any(request.everywhere for request in batch):
            return self._together(batch)
        return [self._one(request) for request in batch]

    def _together(self, batch: list[Request]) -> list[Any]:
        """All on one connection, as WAIT needs it."""
        client = self.client
        if self._endpoint.kind == "cluster":
            client = client.get_redis_connection(client.get_node_from_key(batch[0].key))
        replies: list[Any] = []
        for words in (Request.by_hash, Request.in_full):
            try:
                with client.pipeline(transaction=False) as pipe:
                    for request in batch:
                        pipe.execute_command(*words(request))
                    replies = pipe.execute(raise_on_error=False)
            except (RedisError, OSError) as error:
                raise Lost(str(error), sent=_was_sent(error)) from None
            if not any(isinstance(reply, NoScriptError) for reply in replies):
                break
        for reply in replies:
            if isinstance(reply, ReadOnlyError):
                raise Lost(str(reply), sent=False)
            if isinstance(reply, Exception):
                raise from_redis_py(reply)
        return replies

    def _one(self, request: Request) -> Any:
        client = self.client
        try:
            try:
                return client.execute_command(*request.by_hash(), **self._options(request))
            except NoScriptError:
                return client.execute_command(*request.in_full(), **self._options(request))
        except ReadOnlyError as error:
            client.connection_pool.disconnect()
            raise Lost(str(error), sent=False) from None
        except ResponseError as error:
            raise from_redis_py(error) from None
        except RedisTimeoutError as error:
            raise Lost(str(error), sent="connect" not in str(error).lower()) from None
        except (RedisConnectionError, OSError) as error:
            raise Lost(str(error), sent=_was_sent(error)) from None
        except RedisError as error:
            raise Lost(str(error), sent=False) from None

    def _options(self, request: Request) -> dict[str, Any]:
        return {"target_nodes": "primaries"} if request.everywhere and self._endpoint.kind == "cluster" else {}

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _was_sent(error: Exception) -> bool:
    text = str(error).lower()
    return not any(word in text for word in ("connecting", "refused", "no such file", "not known", "no master"))


def drive(shard: BlockingShard, command: Command[T]) -> T:
    """Run a command to its result on the calling thread. Raises EngineUnavailable within two seconds."""
    shard.examine()
    operation = shard.operations.make(command)
    batch = next(operation)
    repeated = False
    while True:
        try:
            try:
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
    until: float
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


class Outlet:
    """One thread that runs blocking work, in order, for event loops that have no connection of their own."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` on the thread; the calling loop goes on meanwhile. EngineUnavailable if it cannot start soon."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._jobs.put(_Job(time.monotonic() + START_WITHIN, work, loop, answer))
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
                if time.monotonic() > job.until:
                    raise EngineUnavailable("Redis is too slow or away: the request was not sent in time")
                outcome, error = job.work(), None
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
