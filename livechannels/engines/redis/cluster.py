"""Redis Cluster: one link per master, requests by slot, sharded pub/sub. Follows the cluster as slots move."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from redis.crc import key_slot
from redis.exceptions import RedisError

from ...exceptions import EngineUnavailable
from ..base import Health
from ..endpoints import Endpoint
from .connect import CONNECT_WITHIN, close_connection, mind_cancellation, open_connection
from .link import WAIT_FOR_PATH, Batch, Link
from .operations import Operations
from .replies import Address, Lost, ReplyError, redirected_to, slot_owners
from .requests import Request

logger = logging.getLogger(__name__)

REFRESH_EVERY, REFRESH_SOON = 5.0, 0.5
REDIRECTS = 6
BUSY_PAUSE = 0.05


class ClusterShard:
    """All masters of a cluster as one Redis. A name lives on the link of its slot's master."""

    def __init__(
        self,
        endpoint: Endpoint,
        operations: Operations,
        *,
        on_message: Callable[[str, bytes], None],
        on_path: Callable[[bool, list[str]], None],
    ) -> None:
        self.operations = operations
        self._endpoint = endpoint
        self._on_message = on_message
        self._on_path = on_path
        self._owners: list[Address] = []
        self._links: dict[Address, Link] = {}
        self._tasks: dict[Address, asyncio.Task[None]] = {}
        self._names: dict[str, asyncio.Future[None]] = {}
        self._mapped = asyncio.Event()
        self._stale = asyncio.Event()
        self._since = time.time()
        self._problem = "connecting"

    @property
    def health(self) -> Health:
        if not self._links:
            return Health(False, self._since, self._problem, self.operations.compare_replids)
        states = [link.health for link in self._links.values()]
        bad = [state for state in states if not state.ok]
        return min(bad or states, key=lambda state: state.since)

    def parts(self) -> list[Link]:
        """The links to all masters."""
        return list(self._links.values())

    def part(self, topic: str) -> int:
        if not self._owners:
            return 0
        return list(self._links).index(self._owners[key_slot(self.operations.keys.record(topic).encode())])

    # Commands

    def call(self, packed: bytes) -> asyncio.Future[Any] | None:
        return None  # every request may be redirected

    def note(self, error: ReplyError) -> None:
        self._stale.set()

    async def exchange(self, batch: list[Request]) -> list[Any]:
        """Send each request to the master of its slot; follows MOVED, ASK and TRYAGAIN a bounded number of times."""
        if len(batch) == 1:
            return [await self._one(batch[0])]
        return list(await asyncio.gather(*(self._one(request) for request in batch)))

    async def _one(self, request: Request) -> Any:
        await self._wait_mapped()
        link, asking = self._link(request.key), False
        for _ in range(REDIRECTS):
            try:
                return await link.asking(request) if asking else (await link.exchange([request]))[0]
            except ReplyError as error:
                if error.is_redirect:
                    self._stale.set()
                    link, asking = await self._linked(redirected_to(error)), error.code == "ASK"
                elif error.busy:
                    await asyncio.sleep(BUSY_PAUSE)
                else:
                    raise
        raise Lost("the cluster redirected too often", sent=False)

    async def wait_up(self) -> None:
        await self._wait_mapped()
        await next(iter(self._links.values())).wait_up()

    async def _wait_mapped(self) -> None:
        if not self._mapped.is_set():
            try:
                async with asyncio.timeout(WAIT_FOR_PATH):
                    await self._mapped.wait()
            except TimeoutError:
                raise EngineUnavailable(self._problem) from None

    def _link(self, key: str) -> Link:
        return self._links[self._owners[key_slot(key.encode())]]

    async def _linked(self, address: Address) -> Link:
        self._add(address)
        link = self._links[address]
        await link.wait_up()
        return link

    # Subscriptions

    def subscribe(self, names: list[str]) -> asyncio.Future[None] | None:
        waiting = [confirmed for name in names if not (confirmed := self._subscribe(name)).done()]
        if not waiting:
            return None
        batch = Batch(asyncio.get_running_loop().create_future(), len(waiting))
        for confirmed in waiting:
            confirmed.add_done_callback(lambda _: batch.confirm())
        return batch.confirmed

    def _subscribe(self, name: str) -> asyncio.Future[None]:
        confirmed = self._names.get(name)
        if confirmed is None:
            confirmed = self._names[name] = asyncio.get_running_loop().create_future()
        if self._owners and not confirmed.done():
            self._subscribe_at(self._link(name), name, lambda _: _finish(confirmed))
        return confirmed

    @staticmethod
    def _subscribe_at(link: Link, name: str, then: Callable[[asyncio.Future[None] | None], None]) -> None:
        confirmed = link.subscribe([name])
        if confirmed is None:
            then(None)
        else:
            confirmed.add_done_callback(then)

    def unsubscribe(self, names: list[str]) -> None:
        for name in names:
            self._names.pop(name, None)
            for link in self._links.values():
                if name in link.wanted:
                    link.unsubscribe([name])

    # Following the cluster

    async def run(self) -> None:
        """Keep the map of slots and one link per master until cancelled."""
        try:
            while True:
                try:
                    self._apply(await self._discover())
                except EngineUnavailable as error:
                    if str(error) != self._problem:
                        logger.warning("The Redis cluster is away, trying again: %s", error)
                    self._problem = str(error)
                self._stale.clear()
                try:
                    async with asyncio.timeout(REFRESH_EVERY if self._owners and self.health.ok else REFRESH_SOON):
                        await self._stale.wait()
                        await asyncio.sleep(0.1)
                except TimeoutError:
                    pass
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _discover(self) -> list[Address]:
        problems = []
        for address in [*self._links, *self._endpoint.addresses]:
            try:
                connection = await open_connection(self._endpoint, address)
            except EngineUnavailable as error:
                problems.append(str(error))
                continue
            try:
                async with asyncio.timeout(CONNECT_WITHIN):
                    await connection.send_command("CLUSTER", "SLOTS")
                    ranges = await connection.read_response()
                    mind_cancellation()
            except (RedisError, OSError, TimeoutError) as error:
                problems.append(f"{address[0]}:{address[1]}: {error}")
                continue
            finally:
                await close_connection(connection)
            owners = slot_owners(ranges, address[0])
            if owners is not None:
                return owners
            problems.append(f"{address[0]}:{address[1]} does not know the whole cluster yet")
        raise EngineUnavailable(f"{self._endpoint}: no node could name all slots: {'; '.join(problems[-3:])}")

    def _apply(self, owners: list[Address]) -> None:
        self._owners = owners
        masters = set(owners)
        for address in masters:
            self._add(address)
        for address in set(self._links) - masters:
            link = self._links.pop(address)
            self._tasks.pop(address).cancel()
            self._on_path(False, list(link.wanted))
        for name in list(self._names):
            owner = self._link(name)
            for link in self._links.values():
                if link is not owner and name in link.wanted:
                    link.unsubscribe([name])
            if name not in owner.wanted:
                confirmed = self._names[name]
                moved = confirmed.done()
                self._subscribe_at(owner, name, functools.partial(self._followed, name, moved))
        self._mapped.set()

    def _followed(self, name: str, moved: bool, _: asyncio.Future[None] | None) -> None:
        confirmed = self._names.get(name)
        if confirmed is not None:
            _finish(confirmed)
            if moved:
                self._on_path(True, [name])

    def _add(self, address: Address) -> None:
        if address not in self._links:
            link = self._links[address] = Link(
                self._endpoint,
                self.operations,
                on_message=self._on_message,
                on_path=self._on_path,
                address=address,
                sharded=True,
                on_moved=self._on_moved,
            )
            task = asyncio.get_running_loop().create_task(link.run(), name="livechannels-cluster-link")
            self._tasks[address] = task

    def _on_moved(self, name: str) -> None:
        for link in self._links.values():
            link.let_go(name)
        self._stale.set()


def _finish(confirmed: asyncio.Future[None]) -> None:
    if not confirmed.done():
        confirmed.set_result(None)
